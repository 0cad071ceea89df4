"""An environment that goes wrong with the second learner of a run only."""

import os

import gymnasium

from a3c.envs.faulty import FaultyEnv

IS_SECOND = os.environ.get("LOCAL_RANK") == "1"


class Breaks(FaultyEnv):
    """Raises in a step."""

    def __init__(self, **kwargs):
        super().__init__(kind="raise" if IS_SECOND else "none", **kwargs)


def never_made():
    """Ends the process that makes it."""
    if IS_SECOND:
        os._exit(9)
    return FaultyEnv(kind="none")


gymnasium.register("BreaksInSecond-v0", Breaks)
gymnasium.register("NeverMadeInSecond-v0", never_made)
