"""Update modes: where rollouts come from, who updates, what is shared, and how a run stops.

A mode is a class. It stands between the module, which learns, and the data module, which is told what to
collect: both are handed it, and neither knows the other. A mode of your own is a subclass of `Mode` or
`TrainerLearns`, entered in `MODES`.
"""

from a3c.training.modes.asynchronous import Async
from a3c.training.modes.base import Mode, Stopping
from a3c.training.modes.hogwild import Hogwild
from a3c.training.modes.on_ray import AsyncOnRay
from a3c.training.modes.sync import Sync
from a3c.training.modes.trainer_learns import TrainerLearns

MODES: dict[str, type[Mode]] = {mode.name: mode for mode in (Sync, Async, Hogwild)}
ON_RAY: dict[str, type[AsyncOnRay]] = {mode.name: mode for mode in (AsyncOnRay,)}  # whose workers can be actors

__all__ = ["MODES", "ON_RAY", "Async", "AsyncOnRay", "Hogwild", "Mode", "Stopping", "Sync", "TrainerLearns"]
