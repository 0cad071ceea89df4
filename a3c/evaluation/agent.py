"""A trained policy outside of training: load it, act, evaluate, look at its run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from a3c.envs.random_states import random_states_kept
from a3c.envs.shared_statistics import RunStatistics
from a3c.envs.spec import EnvSpec
from a3c.evaluation.evaluator import Evaluation, Evaluator
from a3c.networks import ActorCritic
from a3c.networks.normalisation import Normalisation
from a3c.networks.policy import Policy
from a3c.runs.allowlist import checked_prefixes, lies_under, or_trusted, own_class, own_module
from a3c.runs.checkpoints import CheckpointError, read_checkpoint
from a3c.runs.descriptions import build

if TYPE_CHECKING:
    from a3c.evaluation.video import Recording


WRAPPERS = ("a3c", "gymnasium.wrappers")  # that a checkpoint may name without leave


class Agent:
    """A policy and the environment it was trained in.

    Args:
        network: the policy.
        env: its environment.
        folder: the run folder, if it has one.
        checkpoint: the file that it was loaded from, if any.
        discount: γ that its critic was trained with.
        reward_scale: factor on rewards that the critic's values are in units of; None if they have
            no fixed units.
    """

    def __init__(
        self,
        network: ActorCritic,
        env: EnvSpec,
        folder: Path | None = None,
        checkpoint: Path | None = None,
        discount: float = 0.99,
        reward_scale: float | None = 1.0,
    ) -> None:
        self.network = network
        self.env = env
        self.folder = folder
        self.checkpoint = checkpoint
        self.discount = discount
        self.reward_scale = reward_scale

    @torch.inference_mode()
    def act(self, observation: ArrayLike, greedy: bool = True) -> NDArray[np.int64] | int:
        """Choose an action.

        Args:
            observation: one observation, [*shape], or several, [..., *shape].
            greedy: take the most probable action; False samples, with torch's global generator.

        Returns:
            The action as an int, or as an array, [...].

        Raises:
            ValueError: the observation's last axes are not the observation space's, or a number is not finite.
        """
        space = self.network.observation_space
        array = np.asarray(observation, dtype=space.dtype)
        shape = space.shape or ()
        if array.shape[array.ndim - len(shape) :] != shape:
            raise ValueError(f"observation: got shape {array.shape}, must end in {shape}")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ValueError(f"observation: got {array[~np.isfinite(array)][0]}, must be finite")
        action = Policy(self.network, greedy).act(array)
        return int(action) if array.shape == shape else action

    def evaluate(
        self, episodes: int = 100, seed: int = 0, greedy: bool = True, max_episode_steps: int | None = None
    ) -> Evaluation:
        """Play whole episodes on fresh environments.

        Args:
            episodes: how many, ≥ 1.
            seed: of the environments and, if sampled, of the actions.
            greedy: take the most probable action; False samples.
            max_episode_steps: steps after which an episode is cut; None for the environment's own
                time limit, and for 10,000 where it has none.

        Raises:
            EnvError: the environments cannot be made.
            ValueError: fewer than one episode, or no steps.
        """
        evaluator = Evaluator(self.env, episodes, greedy, max_episode_steps)
        try:
            evaluation = evaluator(self.network, seed)
            assert evaluation is not None, "nothing stops it"
            return evaluation
        finally:
            evaluator.close()

    def record(self, path: str | PathLike[str], seed: int = 0, greedy: bool = True) -> Recording:
        """Record one episode as a video, of which it shows at most 1000 steps.

        Args:
            path: the mp4, in a folder that exists.
            seed: of the environment and, if sampled, of the actions.
            greedy: take the most probable action; False samples.

        Raises:
            EnvError: the environment cannot be made, or cannot draw itself.
            OSError: the file cannot be written.
        """
        from a3c.evaluation.video import Recorder

        recorder = Recorder(self.env, greedy)
        try:
            recording = recorder(self.network, seed, Path(path))
            assert recording is not None, "nothing stops it"
            return recording
        finally:
            recorder.close()

    def plot_beliefs(self, seed: int = 0, greedy: bool = True) -> Figure:
        """Draw what the network believes along one episode: values against what came, and its policy.

        Args:
            seed: of the environment and, if sampled, of the actions.
            greedy: take the most probable action; False samples.
        """
        from a3c.evaluation.beliefs import draw, observe

        with random_states_kept(seed):
            env = self.env.bounded().make(1, like=self.network.spaces)
        try:
            beliefs = observe(env, self.network, self.discount, self.reward_scale, seed, greedy)
        finally:
            env.close()
        how = "greedy" if greedy else "sampled"
        end = "terminated" if beliefs.terminated else "cut off"
        steps = len(beliefs.actions)
        title = f"{self.env.id} · {how} · seed {seed} · return {beliefs.episode_return:.6g} · {end} after {steps} steps"
        return draw(beliefs, title)

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json.

        Raises:
            FileNotFoundError: there is no run folder, or the run has not ended.
        """
        summary: dict[str, Any] = json.loads((self._run_folder() / "summary.json").read_text(encoding="utf-8"))
        return summary

    def plot(self) -> Figure:
        """Draw the run's learning curve.

        Raises:
            FileNotFoundError: there is no run folder, or nothing has been logged in it.
        """
        from a3c.runs.curves import learning_curve

        return learning_curve(self._run_folder() / "metrics.csv", self.env.id, self.env.reward_threshold)

    def _run_folder(self) -> Path:
        if self.folder is None:
            raise FileNotFoundError("this agent was not loaded from a run folder")
        return self.folder


def load(path: str | PathLike[str], which: Literal["last", "best"] = "last", allow: str | Iterable[str] = ()) -> Agent:
    """Load a policy from a run folder or a checkpoint; no environment is made for it.

    A checkpoint names the classes of its network and, as "module:Name-v0", the module of its
    environment. Nothing is imported for it but this project, modules below the current folder, and what
    `allow` says.

    Args:
        path: a run folder, or a checkpoint file, on this machine.
        which: the checkpoint of a run folder: the last one, or the best one evaluated.
        allow: other modules and packages that the checkpoint may name, such as ["my_networks"].

    Raises:
        FileNotFoundError: there is nothing there.
        CheckpointError: the file is no checkpoint of this project, it names what is not allowed, or
            its network cannot be built.
        ValueError: `allow` holds what is no module or package.
    """
    allow = checked_prefixes(allow)
    if "://" in os.fspath(path):
        raise CheckpointError(f"{path}: is an address, must be a run folder or a checkpoint on this machine")
    path = Path(path)
    file = path / "checkpoints" / f"{which}.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such checkpoint")
    described, weights = read_checkpoint(file)
    try:
        network = build(described["network"], ActorCritic, allow)
        _normalisation(described).attach(network)
        network.load_state_dict(weights)
        env = build(described["env"], EnvSpec)
        _check_env_module(env, allow)
        if described["env_statistics"] is not None:
            env = env.sharing(RunStatistics.from_state(described["env_statistics"]))
        discount, reward_scale = described["settings"]["discount"], _units(described)
    except (KeyError, TypeError, ValueError, AttributeError, ImportError, RuntimeError) as error:
        raise CheckpointError(f"{file}: cannot be rebuilt here: {error}") from error
    network.eval()
    folder = file.parent.parent
    run_folder = folder if (folder / "metrics.csv").exists() else None
    return Agent(network, env, run_folder, file, discount, reward_scale)


def _units(described: dict[str, Any]) -> float | None:
    """Return the factor between rewards and values; None where the estimator's targets have units of their own."""
    return None if described["target_units"] == "own" else float(described["settings"]["reward_scale"])


def _normalisation(described: dict[str, Any]) -> Normalisation:
    """Return what the network normalises; older checkpoints know nothing of it."""
    clip = described["settings"].get("clip_observations")
    return Normalisation(bool(described.get("normalise_observations")), clip, bool(described.get("popart")))


def _check_env_module(env: EnvSpec, allow: tuple[str, ...]) -> None:
    """Refuse an environment for which modules would be imported once it is made, unless they are trusted."""
    module = env.module
    if module and not (lies_under(module, allow) or own_module(module)):
        raise ImportError(
            f"env: got {env.id!r}, which imports {module}; must be an id alone, or of a module below the current "
            f"folder, {or_trusted(module)}"
        )
    for path, _ in env.wrappers:
        if not (lies_under(path, (*WRAPPERS, *allow)) or own_class(path)):
            raise ImportError(
                f"wrappers: got {path!r}, must be a wrapper of {', '.join(WRAPPERS)} or a module below the current "
                f"folder, {or_trusted(path)}"
            )
