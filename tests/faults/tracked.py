"""A program that logs to W&B and prints, as JSON, how long it waited: as many rows as a line of `orders` says."""

import atexit
import json
import os
import sys
import time
from pathlib import Path


@atexit.register  # before any other, so that it is called last
def say_when_all_hooks_are_done():
    print(
        json.dumps({"slowest": slowest, "finish": finished - before, "exit": time.monotonic() - finished}), flush=True
    )


from a3c.runs import wandb_logger
from a3c.runs.metrics_file import MetricsFile

if "TEST_START" in os.environ:  # seconds in which it may start, where that is not what is tested
    wandb_logger.START = float(os.environ["TEST_START"])
    wait = wandb_logger.Patience.wait
    wandb_logger.Patience.wait = lambda _, *args: wait(wandb_logger.Patience(wandb_logger.START), *args)
orders = Path(sys.argv[1], "orders").open()  # before anything is said: whoever gives them may then be gone
before = time.monotonic()
arguments = {"env": "Env-v0", "estimator": "GAE", "mode": "sync", "seed": 1, "config": {"budget": 1}}
tracker = wandb_logger.make_wandb_logger(Path(sys.argv[1]), **arguments)
if "TEST_START" in os.environ:
    wandb_logger.Patience.wait = wait
metrics = MetricsFile(Path(sys.argv[1], "metrics.csv"))
print(json.dumps({"start": time.monotonic() - before, "id": tracker.run_id}), flush=True)
rows, slowest = 0, 0.0
for line in orders:
    for _ in range(int(line)):
        rows += 1
        before = time.monotonic()
        tracker.log_metrics({"env_steps": rows, "lag/histogram": {0: 1, 2: rows}}, rows)
        slowest = max(slowest, time.monotonic() - before)
        metrics.log_metrics({"env_steps": rows})
    print(json.dumps({"rows": rows}), flush=True)
before = time.monotonic()
tracker.finish(0, {"updates": rows})
finished = time.monotonic()
