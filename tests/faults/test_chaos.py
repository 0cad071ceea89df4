"""Everything at once, for a while: the invariants hold at the end.

A3C_CHAOS_SECONDS=60 makes it longer, A3C_FAULT_SEED=N repeats the faults of the run that printed N.
"""

import os
import random
import signal
import time
from contextlib import suppress

import pytest
import torch
from harness import SLACK, running
from processes import workers_of
from test_processes import SEED, check_counters

SECONDS = float(os.environ.get("A3C_CHAOS_SECONDS", "10"))
PROVEN = 3.0  # seconds that a worker has lived before it is killed: a crash loop would end the run, rightly
RUN = [
    *("--data.env", "chaos_env:Chaos-v0", "--data.workers", "3", "--data.max_env_steps", "1000000000000"),
    *("--data.worker_timeout", "3", "--data.max_restarts", "100000", "--data.on_bad_values", "discard"),
]  # fmt: skip


class Chaos:
    """Kills and stops workers, and halts the learner, at random moments."""

    def __init__(self, run, choice):
        self.run, self.choice = run, choice
        self.seen = {}
        self.done = []

    def go_on(self, seconds):
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            assert self.run.process.poll() is None, f"ended with {self.run.process.poll()}:\n{self.run.errors}"
            pids = [process.pid for process in workers_of(self.run.mark)]
            self.seen = {pid: self.seen.get(pid, now) for pid in pids}
            proven = [pid for pid in pids if now - self.seen[pid] > PROVEN]
            act = self.choice.choice([self.kill, self.stop, self.halt_learner, self.wait, self.wait])
            if proven and "SIGKILL" not in self.done:
                act = self.kill  # one at least, however the dice fall
            with suppress(ProcessLookupError):  # it has just died by itself
                act(proven)
            time.sleep(self.choice.uniform(0.05, 0.5))

    def kill(self, pids):
        if pids:
            self.signal(self.choice.choice(pids), signal.SIGKILL)

    def stop(self, pids):
        if pids:
            pid = self.choice.choice(pids)
            self.signal(pid, signal.SIGSTOP)
            if self.choice.random() < 0.5:  # it wakes up before the deadline, or must not any more
                time.sleep(self.choice.uniform(0, 0.5))
                self.signal(pid, signal.SIGCONT)

    def halt_learner(self, pids):
        self.signal(self.run.process.pid, signal.SIGSTOP)
        time.sleep(self.choice.uniform(0, 1.5))
        self.signal(self.run.process.pid, signal.SIGCONT)

    def wait(self, pids):
        pass

    def signal(self, pid, number):
        os.kill(pid, number)
        self.done.append(number.name)


@pytest.mark.timeout(SECONDS + 110)
@pytest.mark.parametrize("mode", ["async", "hogwild"])
def test_row_48_the_invariants_hold_after_chaos(tmp_path, mode):
    print(f"A3C_FAULT_SEED={SEED}")
    seed = ["--seed_everything", SEED]
    with running(tmp_path, "--mode", mode, *RUN, *seed, timeout=SECONDS + 100) as run:
        run.wait_for_updates(20)
        chaos = Chaos(run, random.Random(f"{SEED} {mode}"))
        chaos.go_on(SECONDS)
        before = run.updates()
        run.wait_until(lambda: run.updates() > before, 15, "an update after the chaos")
        run.send(signal.SIGINT)
        assert run.wait(5 + SLACK) == 128 + signal.SIGINT, run.errors
        summary = run.summary()
        print(f"{mode}: {len(chaos.done)} faults from outside, {summary['worker_deaths']} deaths,", end=" ")
        print(f"{summary['env_steps']} env steps, dropped {summary['dropped_by_reason']}")
        check_counters(summary)
        assert summary["worker_deaths"] == summary["worker_restarts"] > 0
        assert summary["updates"] >= before
        checkpoint = torch.load(run.run_folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert all(torch.isfinite(tensor).all() for tensor in checkpoint["state_dict"].values())
