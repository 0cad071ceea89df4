"""Evaluates a trained policy: ``python scripts/evaluate.py runs/first --episodes 100``.

PATH is a run folder or a checkpoint. Episodes are whole ones on fresh environments, made as in training
(arguments, wrappers, time limit); returns are in the environment's own rewards. Beside the figures it can
write videos (``--video``), open a window (``--render``) and draw what the network believes (``--beliefs``);
these show single episodes, with seeds from ``--seed`` on.

``--json`` and ``--output`` write one object, whose keys stay as they are; others may be added:

    schema                1; raised if a key is renamed, removed or changes its meaning
    checkpoint            the file that was loaded
    env                   environment id
    policy                "greedy" or "sampled"
    seed                  of environments, of sampled actions and of the bootstrap
    episodes              how many were played
    return_mean, return_std, return_iqm, return_min, return_max
                          of the episode returns; the deviation is that of the episodes played, iqm is the
                          interquartile mean (without the lowest and the highest quarter)
    return_mean_interval  [low, high], 95 % confidence interval of the mean by the BCa bootstrap over
                          episodes; null for a single episode
    length_mean           mean episode length in steps
    reward_threshold      mean return from which Gymnasium calls the environment solved, or null
    solved                whether return_mean reaches it; null if there is none
    episode_returns, episode_lengths, episodes_cut
                          of every episode, in one order: the last says whether it was cut after so many steps
                          as --max_episode_steps allows, and counts with its return so far
    videos                [{"mp4", "gif", "seed", "episode_return", "length", "whole"}], empty without
                          --video; whole is false if the episode goes on beyond what is shown
    beliefs               the picture's file, or null
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from a3c.training.cli.entry import prepare_process

if TYPE_CHECKING:  # torch and the rest only once the command line is found right
    from a3c import Agent

SCHEMA = 1
PICTURES = (".pdf", ".png", ".svg")
USAGE_ERROR = 2
INTERRUPTED = 130


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong with a flag, with the nearest name where there is none such."""

    def error(self, message: str) -> NoReturn:
        if match := re.match(r"unrecognized arguments: (\S+)", message):
            given = match[1].split("=")[0]
            near = difflib.get_close_matches(given, self._option_string_actions, n=1)
            message = f"{given}: no such flag" + (f"; nearest: {near[0]}" if near else "")
        elif match := re.match(r"argument (?:-h/)?(?:--)?([\w/-]+): (.*)", message):
            message = f"{match[1]}: {match[2]}"
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message}\n")


def whole_number(least: int, most: float = float("inf")) -> Callable[[str], int]:
    """Gives the reader of a flag's whole number."""

    def read(text: str) -> int:
        if not (re.fullmatch(r"-?\d+", text) and least <= int(text) <= most):
            allowed = f"of at least {least}" if most == float("inf") else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"got {text!r}, must be a whole number {allowed}")
        return int(text)

    return read


def new_file(text: str) -> Path:
    """Reads the name of a file that is to be written."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"got {text!r}, must be a file, and is a folder")
    return Path(text)


def picture(text: str) -> Path:
    """Reads the name of a picture's file."""
    if Path(text).suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"got {text!r}, must end in one of {', '.join(PICTURES)}")
    return new_file(text)


def make_parser() -> OneLineParser:
    """Makes the parser of the command line."""
    parser = OneLineParser(
        prog="evaluate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="run folder, or checkpoint file")
    add("--episodes", type=whole_number(1), default=100, metavar="N", help="episodes to play (default: 100)")
    add(
        "--max_episode_steps",
        type=whole_number(1),
        metavar="N",
        help="steps after which an episode is cut (default: the environment's own limit, 10,000 where it has none)",
    )
    add("--seed", type=whole_number(0, 2**32 - 1), default=0, help="of environments and actions (default: 0)")
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument("--greedy", action="store_true", help="take the most probable action (default)")
    policy.add_argument("--sampled", action="store_true", help="draw actions from the policy, as in training")
    add("--which", choices=("last", "best"), default="last", help="checkpoint of a run folder (default: last)")
    add("--json", action="store_true", help="print JSON, and nothing else, to stdout")
    add("--output", type=new_file, metavar="FILE", help="write the JSON to a file")
    add("--video", type=Path, metavar="DIR", help="write mp4 and GIF of episodes, of 1000 steps each at most")
    add("--video_episodes", type=whole_number(1), default=1, metavar="N", help="for --video and --render (default: 1)")
    add("--render", action="store_true", help="play episodes in a window")
    add("--beliefs", type=picture, metavar="FILE", help="draw values and the policy along one episode")
    add("--allow", action="append", default=[], metavar="PREFIX", help="another module that the checkpoint may name")
    return parser


def record(agent: Agent, folder: Path, seeds: Sequence[int], greedy: bool) -> list[dict[str, Any]]:
    """Writes an mp4 and a GIF of an episode for each seed; says what they show."""
    from a3c.evaluation.video import Recorder, write_gif

    recorder = Recorder(agent.env, greedy)
    videos = []
    try:
        for seed in seeds:
            unnamed = folder / f".seed{seed}.mp4"
            recording = recorder(agent.network, seed, unnamed)
            assert recording is not None, "nothing stops it"
            episode, whole = recording
            mp4 = unnamed.replace(folder / f"seed{seed}-return{episode.episode_return:.6g}.mp4")
            gif = mp4.with_suffix(".gif")
            write_gif(mp4, gif)
            videos.append({"mp4": str(mp4), "gif": str(gif), "seed": seed, **episode._asdict(), "whole": whole})
    finally:
        recorder.close()
    return videos


def evaluate(agent: Agent, options: argparse.Namespace) -> dict[str, Any]:
    """Does what the command line asks for, and gives what the JSON says.

    Raises:
        EnvError: the environment cannot be made or drawn, or gives returns that are not finite.
        OSError: something cannot be written.
    """
    from a3c.envs.source import EnvError
    from a3c.evaluation.scores import score

    greedy = not options.sampled
    seeds = range(options.seed, options.seed + options.video_episodes)
    for folder in (options.video, *(file.parent for file in (options.output, options.beliefs) if file)):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    # What can fail for want of a display or a library comes first: nobody likes to wait for it.
    videos = record(agent, options.video, seeds, greedy) if options.video else []
    if options.render:
        from a3c.evaluation.video import show

        show(agent.network, agent.env, seeds, greedy)
    if options.beliefs:
        agent.plot_beliefs(options.seed, greedy).savefig(options.beliefs, dpi=120)
    evaluation = agent.evaluate(options.episodes, options.seed, greedy, options.max_episode_steps)
    try:
        scores = score(evaluation, options.seed)
    except ValueError as error:
        raise EnvError(f"env: {agent.env.name}: {error}") from error
    threshold = agent.env.reward_threshold
    return {
        "schema": SCHEMA,
        "checkpoint": str(agent.checkpoint),
        "env": agent.env.name,
        "policy": "greedy" if greedy else "sampled",
        "seed": options.seed,
        "episodes": len(evaluation.episodes),
        "return_mean": scores.mean,
        "return_std": scores.std,
        "return_iqm": scores.iqm,
        "return_min": scores.minimum,
        "return_max": scores.maximum,
        "return_mean_interval": scores.interval,
        "length_mean": evaluation.length_mean,
        "reward_threshold": threshold,
        "solved": None if threshold is None else scores.mean >= threshold,
        "episode_returns": [episode.episode_return for episode in evaluation.episodes],
        "episode_lengths": [episode.length for episode in evaluation.episodes],
        "episodes_cut": evaluation.cut,
        "videos": videos,
        "beliefs": str(options.beliefs) if options.beliefs else None,
    }


def print_table(result: dict[str, Any]) -> None:
    """Prints the figures, and where the files lie."""
    from rich.console import Console
    from rich.table import Table

    from a3c.runs.figures import figure

    table = Table(title=f"{result['env']} · {result['policy']} · {result['episodes']} episodes · seed {result['seed']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("return, mean", figure(result["return_mean"]))
    if result["return_mean_interval"] is not None:
        low, high = result["return_mean_interval"]
        table.add_row("95 % interval of the mean", f"{figure(low)} to {figure(high)}")
    for name, key in (
        ("standard deviation", "std"),
        ("interquartile mean", "iqm"),
        ("lowest", "min"),
        ("highest", "max"),
    ):
        table.add_row(f"return, {name}", figure(result[f"return_{key}"]))
    table.add_row("episode length, mean", f"{result['length_mean']:.1f} steps")
    if any(result["episodes_cut"]):
        table.add_row("episodes cut", f"{sum(result['episodes_cut'])}, after {max(result['episode_lengths']):,} steps")
    if result["solved"] is not None:
        verdict = "yes" if result["solved"] else "no"
        table.add_row("solved", f"{verdict}, from a mean of {result['reward_threshold']:g}")
    console = Console()
    console.print(table)
    files = [("checkpoint", result["checkpoint"]), ("beliefs", result["beliefs"])]
    files += [(kind, video[kind]) for video in result["videos"] for kind in ("mp4", "gif")]
    for kind, file in files:
        if file is not None:
            console.print(f"{kind + ':':<12}{file}", soft_wrap=True, highlight=False, markup=False)


def refuse(error: Exception) -> int:
    """Says in one line why nothing comes of it; gives the exit status."""
    sys.stderr.write(f"evaluate.py: error: {str(error).splitlines()[0]}\n")
    return USAGE_ERROR


def main(args: Sequence[str] | None = None) -> int:
    """Evaluates; gives the exit status: 0, 2 for what cannot be used, 130 after Ctrl-C."""
    words = [os.path.expanduser(word) for word in (sys.argv[1:] if args is None else args)]
    options = make_parser().parse_args(words)
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # a window's would swallow SIGTERM
    from a3c import load
    from a3c.envs.source import EnvError
    from a3c.runs.allowlist import add_current_folder

    add_current_folder()  # where modules of your own are found

    try:
        agent = load(options.path, options.which, options.allow)
    except (ValueError, OSError) as error:
        return refuse(error)
    try:
        result = evaluate(agent, options)
        text = json.dumps(result, indent=2, allow_nan=False)
    except (EnvError, OSError) as error:
        return refuse(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    if options.json:
        print(text)
    else:
        print_table(result)
    if options.output is not None:
        try:
            options.output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:  # nothing is lost: it stands above
            return refuse(error)
    return 0


if __name__ == "__main__":
    prepare_process()
    sys.exit(main())
