"""Runs of a comparison on a Ray cluster: the command's side, the actor of a run, and the process beside a run."""
