"""Trains Sample Factory's APPO with two rollout workers; prints one JSON line.

The settings are the flags of its own examples: those of CartPole in train_gym_env.py, which LunarLander gets as well,
and those of train_atari.py for Pong, PongNoFrameskip-v4 there. It needs gymnasium below 1, whose LunarLander-v2 is the
task that later versions call v3. The clock starts when workers are told to make their environments.
"""

from __future__ import annotations

import tempfile
from typing import Any

import gymnasium
from run_record import Run, arguments
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.algo.utils.misc import EPISODIC, LEARNER_ENV_STEPS, ExperimentStatus
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner
from sf_examples.atari.atari_params import atari_override_defaults
from sf_examples.atari.atari_utils import make_atari_env
from signal_slot.signal_slot import EventLoopObject

THEIR_ID = {"LunarLander-v3": "LunarLander-v2", "ALE/Pong-v5": "atari_pong"}
GYM = [
    *("--use_rnn=False", "--num_envs_per_worker=20", "--policy_workers_per_policy=2", "--recurrence=1"),
    *("--with_vtrace=False", "--batch_size=512", "--reward_scale=0.1"),
]
# As async in the throughput settings of its documentation, and env steps counted as decisions, not as frames.
ATARI = ["--async_rl=True", "--num_envs_per_worker=8", "--worker_num_splits=2", "--summaries_use_frameskip=False"]
HERE = ["--num_workers=2", "--device=cpu", "--save_every_sec=100000", "--decorrelate_experience_max_seconds=0"]
BUDGET = 10_000_000


class ClockStart(EventLoopObject):
    """Starts the clock of a run when Sample Factory's inference workers are ready."""

    def __init__(self, runner: Runner, run: Run) -> None:
        super().__init__(runner.event_loop, "clock_start")
        self._run = run

    def start(self) -> None:
        """Start it; with several inference workers the last one does."""
        self._run.start()


class RunObserver(AlgoObserver):
    """Hands finished episodes to a run, and ends the training with it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._clock_start: ClockStart | None = None

    def on_connect_components(self, runner: Runner) -> None:
        """Ask for the episodes, and for the moment at which workers start."""
        self._clock_start = ClockStart(runner, self._run)
        runner.sampler.initialized.connect(self._clock_start.start)
        runner.register_episodic_stats_handler(self._add_episodes)
        runner.policy_msg_handlers[LEARNER_ENV_STEPS].append(self._look)

    def _add_episodes(self, runner: Runner, message: dict[str, Any], policy_id: int) -> None:
        self._run.add_episode(message[EPISODIC]["reward"])  # as the environment gave it, not scaled

    def _look(self, runner: Runner, message: dict[str, Any], policy_id: int) -> None:
        """Look after an update whether the run is over; then the training ends by its own rule, after the next."""
        if message[LEARNER_ENV_STEPS] and self._run.is_over(message[LEARNER_ENV_STEPS]):
            runner.cfg.train_for_env_steps = -1


def make_env(env_id: str, cfg: Any = None, env_config: Any = None, render_mode: str | None = None) -> Any:
    """Build one environment of gymnasium."""
    return gymnasium.make(env_id, render_mode=render_mode)


def make_pong(env_id: str, cfg: Any = None, env_config: Any = None, render_mode: str | None = None) -> Any:
    """Build one environment of Pong, with Sample Factory's own preprocessing."""
    import ale_py  # noqa: F401 (registers the games)

    return make_atari_env(env_id, cfg, env_config, render_mode)


def main() -> None:
    """Train once and print the record."""
    options = arguments(__doc__).parse_args()
    env_id = THEIR_ID.get(options.env, options.env)
    is_atari = env_id.startswith("atari_")
    flags = ATARI if is_atari else GYM
    run = Run.of(options, f"its own example ({env_id}): {' '.join(flags + HERE)}", options.max_env_steps or BUDGET)
    register_env(env_id, make_pong if is_atari else make_env)
    with tempfile.TemporaryDirectory() as folder:
        place = [f"--env={env_id}", "--experiment=run", f"--train_dir={folder}", f"--seed={options.seed}"]
        argv = [*place, f"--train_for_env_steps={run.max_env_steps}", *flags, *HERE]
        parser, partial = parse_sf_args(argv=argv)
        if is_atari:
            atari_override_defaults(partial.env, parser)
        _, runner = make_runner(parse_full_cfg(parser, argv))
        runner.register_observer(RunObserver(run))
        runner.init()
        if runner.run() != ExperimentStatus.SUCCESS:
            raise RuntimeError("Sample Factory did not end as it should: see its log above")
    run.write("sample-factory", "gymnasium", "torch")


if __name__ == "__main__":
    main()
