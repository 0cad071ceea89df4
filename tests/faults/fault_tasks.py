"""Tasks that end in the middle of something; imported in workers, so nothing heavy."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a3c.rollouts.workers.process import CollectTask


@dataclass(frozen=True)
class HalfAMessage:
    """Worker 0 announces a message of 1000 bytes, sends 10 of them, and sends itself a signal; once."""

    spec: Any
    signal: int
    marker: str

    def __call__(self, context):
        marker = Path(self.marker)
        if context.life.worker == 0 and not marker.exists():
            context.ready()
            context.next_slot()
            marker.touch()
            os.write(context._connection.fileno(), struct.pack("!i", 1000) + b"x" * 10)
            os.kill(os.getpid(), self.signal)
        CollectTask(self.spec)(context)
