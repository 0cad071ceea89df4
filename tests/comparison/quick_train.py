"""Stands in for scripts/train.py: leaves a made-up run folder, or fails, or waits until it is told to stop.

What it does beside the first is asked for in QUICK_TRAIN; "wait once" waits until the file `released` is there.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from made_up import make_run

flags = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
folder, seed = Path(flags["run_dir"]), int(flags["seed_everything"])
label = flags["model.returns"]
behaviour = os.environ.get("QUICK_TRAIN", "")
with Path(os.environ["QUICK_TRAIN_LOG"]).open("a") as log:
    names = ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_TAGS")
    log.write(json.dumps({"words": sys.argv[1:], **{name: os.environ.get(name) for name in names}}) + "\n")
if behaviour == "refuse":
    print("train.py: error: model.discount: got 7, must be from 0 to 1")
    sys.exit(2)
if behaviour == "fail" and seed == 2:
    print("Traceback\nValueError: it went wrong\nerror: failed after 5 env steps; there is no checkpoint")
    sys.exit(1)
if behaviour == "fail on Acrobot" and (label, flags["data.env"]) == ("GAE", "Acrobot-v1"):
    print("ValueError: it went wrong")
    sys.exit(1)
if behaviour == "fail and lose" and seed == 2:
    print("ValueError: it went wrong")
    sys.exit(1)
if behaviour == "fail and lose" and seed == 3:
    supervisor = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
    os.kill(int(supervisor[1]), signal.SIGKILL)  # the actor
    time.sleep(60)
ready = Path(f"{folder}.ready")
if behaviour == "wait once" and not ready.exists():

    def save(number, frame):
        time.sleep(1)  # in which it is on its old node, and must not be on a new one
        Path(f"{folder}.saved").touch()
        os._exit(128 + number)

    signal.signal(signal.SIGINT, save)
    ready.touch()
    while not Path("released").exists():
        time.sleep(0.05)
elif behaviour == "wait once":
    assert Path(f"{folder}.saved").exists(), "it still runs"
if behaviour == "stay" and seed == 2:
    signal.signal(signal.SIGINT, lambda number, frame: Path(f"{folder}.told").touch())
    ready.touch()
    while True:
        time.sleep(60)
if behaviour in ("wait", "stay"):

    def stop(number, frame):
        folder.mkdir(parents=True)
        (folder / "stopped").write_text(str(number))
        os._exit(128 + number)

    signal.signal(signal.SIGINT, stop)
    ready.touch()
    time.sleep(60)
make_run(folder, label, flags["mode"], seed, flags["data.env"], int(flags["data.max_env_steps"]), 100.0 * seed)
