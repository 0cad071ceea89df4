"""A trained policy outside of training: load it, act, evaluate, look at its run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from a3c.envs.layouts import observation_layout
from a3c.envs.packages import WRAPPERS
from a3c.envs.random_states import random_states_kept
from a3c.envs.shared_statistics import RunStatistics
from a3c.envs.spec import EnvSpec
from a3c.evaluation.evaluator import Evaluation, Evaluator
from a3c.evaluation.given import give_actions, read_observations
from a3c.networks import ActorCritic
from a3c.networks.actor_critic import evaluating
from a3c.networks.normalisation import Normalisation
from a3c.networks.policy import Policy
from a3c.runs.allowlist import checked_prefixes, lies_under, or_trusted, own_class, own_module
from a3c.runs.checkpoints import CheckpointError, read_checkpoint
from a3c.runs.descriptions import build

if TYPE_CHECKING:
    from a3c.evaluation.video import Recording


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
        self._state: Tensor | None = None  # what a network with memory remembers in `act`, [B, *state_shape]

    @torch.inference_mode()
    def act(self, observation: Any, greedy: bool = True) -> Any:
        """Choose an action; a network with memory remembers what it has seen since the last `reset`.

        Args:
            observation: one observation, [*shape], or several, [..., *shape]; of a Dict a mapping and of a Tuple a
                sequence of its parts, which all have the same axes in front. With a memory several are those of B
                environments side by side, [B, *shape]. An "action_mask" among them is heeded.
            greedy: take the most probable action; False samples, with torch's global generator.

        Returns:
            The action as the environment takes it: an int for a Discrete, else an array, of a Dict a dict and of a
            Tuple a tuple of its parts. For several observations arrays with the same axes in front.

        Raises:
            ValueError: the observation is not of the observation space's form, a number is not finite, or the
                memory is of another number of environments.
        """
        network = self.network
        observations, lead = read_observations(observation_layout(network.observation_space), observation)
        policy = Policy(network, greedy)
        policy.begin_episodes(len(observations))
        if policy.state is not None:
            policy.state = self._remembered(policy.state, lead)
        with evaluating(network):
            actions = policy.act(observations)
        self._state = policy.state
        return give_actions(network.action_space, actions, lead)

    def _remembered(self, first: Tensor, lead: tuple[int, ...]) -> Tensor:
        """Return the memory of environments side by side, which begins as `first`."""
        if len(lead) > 1:
            raise ValueError(f"observation: got axes {lead} in front, must be one at most for a network with memory")
        if self._state is None:
            return first
        if len(self._state) != len(first):
            raise ValueError(
                f"observation: got {len(first)} of them, must be {len(self._state)} as before; reset() begins anew"
            )
        return self._state

    def reset(self, columns: ArrayLike | None = None) -> None:
        """Begin new episodes: a network with memory forgets what it has seen, before it is shown their first states.

        Args:
            columns: which of the B environments that `act` sees have ended an episode, bools [B]; None for all.

        Raises:
            ValueError: these are no bools, or of another number of environments.
        """
        if columns is None:
            self._state = None
            return
        ended = np.atleast_1d(np.asarray(columns))
        known = ended.shape if self._state is None else (len(self._state),)
        if ended.dtype != np.bool_ or ended.shape != known:
            raise ValueError(f"columns: got {ended.dtype} {ended.shape}, must be bool {known}")
        policy = Policy(self.network)
        policy.state = self._state
        policy.restart(ended)
        self._state = policy.state

    def export(self, path: str | PathLike[str]) -> None:
        """Write the greedy policy as an ONNX graph, for programs without torch; needs `pip install 'a3c[onnx]'`.

        Its inputs are the parts of the observation by their paths ("camera", "a.b"), or "observation", of the
        space's shapes and dtypes with a batch axis in front; and "state" of a network with memory, which begins with
        `network.initial_state`. Its outputs are the parts of the action, or "action", as environments take them;
        "action_parameters", of its distribution; and "next_state". What the environment's wrappers make of
        observations is not part of it.

        Args:
            path: the file, in a folder that exists.

        Raises:
            ExportError: what is needed is not installed, or the network does what ONNX has no operators for.
            OSError: the file cannot be written.
        """
        from a3c.evaluation.export import export_policy

        export_policy(self.network, Path(path))

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
        title = (
            f"{self.env.name} · {how} · seed {seed} · return {beliefs.episode_return:.6g} · {end} after {steps} steps"
        )
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

        return learning_curve(self._run_folder() / "metrics.csv", self.env.name, self.env.reward_threshold)

    def _run_folder(self) -> Path:
        if self.folder is None:
            raise FileNotFoundError("this agent was not loaded from a run folder")
        return self.folder


def load(
    path: str | PathLike[str],
    which: Literal["last", "best"] = "last",
    allow: str | Iterable[str] = (),
    env: str | Callable[..., Any] | None = None,
) -> Agent:
    """Load a policy from a run folder or a checkpoint; no environment is made for it.

    A checkpoint names the classes of its network and, as "module:Name-v0" or by its import path, its
    environment. Nothing is imported for it but this project, modules below the current folder, and what
    `allow` says. An environment that was made in a script or notebook cannot be imported, and must be given.

    Args:
        path: a run folder, or a checkpoint file, on this machine.
        which: the checkpoint of a run folder: the last one, or the best one evaluated.
        allow: other modules and packages that the checkpoint may name, such as ["my_networks"].
        env: the environment instead of the one that the checkpoint names: an id, an import path, or a
            class or function that makes one; arguments, time limit and wrappers stay the checkpoint's.

    Raises:
        FileNotFoundError: there is nothing there.
        CheckpointError: the file is no checkpoint of this project, it names what is not allowed, or
            its network cannot be built.
        EnvError: `env` is nothing that makes an environment.
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
        spec = build(described["env"], EnvSpec)
        if env is None:
            _check_env_module(spec, allow)
        _check_wrappers(spec, allow)
        if described["env_statistics"] is not None:
            spec = spec.sharing(RunStatistics.from_state(described["env_statistics"]))
        discount, reward_scale = described["settings"]["discount"], _units(described)
    except (KeyError, TypeError, ValueError, AttributeError, ImportError, RuntimeError) as error:
        raise CheckpointError(f"{file}: cannot be rebuilt here: {error}") from error
    if env is not None:
        spec = EnvSpec(env, spec.kwargs, spec.max_episode_steps, spec.wrappers).sharing(spec.statistics)
    network.eval()
    folder = file.parent.parent
    run_folder = folder if (folder / "metrics.csv").exists() else None
    return Agent(network, spec, run_folder, file, discount, reward_scale)


def _units(described: dict[str, Any]) -> float | None:
    """Return the factor between rewards and values; None where the estimator's targets have units of their own."""
    return None if described["target_units"] == "own" else float(described["settings"]["reward_scale"])


def _normalisation(described: dict[str, Any]) -> Normalisation:
    """Return what the network normalises; older checkpoints know nothing of it."""
    clip = described["settings"].get("clip_observations")
    return Normalisation(bool(described.get("normalise_observations")), clip, bool(described.get("popart")))


def _check_env_module(env: EnvSpec, allow: tuple[str, ...]) -> None:
    """Refuse an environment for which modules would be imported once it is made, unless they are trusted."""
    module, path = env.module, str(env.id)
    # Of a path something is called, which in a file that somebody else wrote must be no more than an environment.
    if module and not (lies_under(module, allow) or (own_class(path) if env.is_import_path else own_module(module))):
        kind = "a class" if env.is_import_path else "an id alone, or"
        raise ImportError(
            f"env: got {path!r}, which imports {module}; must be {kind} of a module below the current folder, "
            f"{or_trusted(module)}"
        )


def _check_wrappers(env: EnvSpec, allow: tuple[str, ...]) -> None:
    """Refuse wrappers for which modules would be imported once they are put on, unless they are trusted."""
    wrappers = ("a3c", *WRAPPERS)
    for path, _ in env.wrappers:
        if not (lies_under(path, (*wrappers, *allow)) or own_class(path)):
            raise ImportError(
                f"wrappers: got {path!r}, must be a wrapper of {', '.join(wrappers)} or a module below the current "
                f"folder, {or_trusted(path)}"
            )
