"""Stands in for scripts/train.py: leaves a made-up run folder, or fails, or waits until it is told to stop."""

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
if behaviour == "wait":

    def stop(number, frame):
        folder.mkdir(parents=True)
        (folder / "stopped").write_text(str(number))
        os._exit(128 + number)

    signal.signal(signal.SIGINT, stop)
    Path(f"{folder}.ready").touch()
    time.sleep(60)
make_run(folder, label, flags["mode"], seed, flags["data.env"], int(flags["data.max_env_steps"]), 100.0 * seed)
