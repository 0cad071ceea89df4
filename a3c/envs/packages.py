"""What is known of packages that bring environments and wrappers: what they are for, and how they are installed."""

from __future__ import annotations

OF_A_PACKAGE = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}  # how ids begin that it registers
INSTALL = {
    "minigrid": "pip install minigrid",
    "box2d": "pip install 'a3c[box2d]'",
    "mujoco": "pip install 'a3c[mujoco]'",
}
WRAPPERS = ("gymnasium.wrappers", "minigrid.wrappers")  # which a config and a checkpoint may name without leave
