"""What Gymnasium's `check_env` finds in an environment, in words; nothing that it finds ends a run."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as Registered
from gymnasium.utils.env_checker import check_env

from a3c.envs.single import Attendant
from a3c.envs.watchdog import HangError

CHECKED = ("gymnasium", "ale_py", "minigrid", "a3c")  # packages whose environments are known
WARNING = re.compile(r"(\x1b\[\d+m)?WARN: (?P<text>.*?)(\x1b\[0m)?", re.DOTALL)  # as Gymnasium colours it
GROUNDLESS = re.compile(
    "The environment is different from the unwrapped version"  # as meant by who put a wrapper on
    "|A Box observation space m.*infinity"  # as in most environments, Gymnasium's own included
    "|Environment truncates after 1 step"  # which it also says of a flag that is NumPy's
)


def comes_checked(spec: Registered) -> bool:
    """Return whether an environment need not be checked, or cannot: it has only a native version."""
    where = spec.entry_point if isinstance(spec.entry_point, str | None) else spec.entry_point.__module__
    return where is None or re.split("[.:]", where)[0] in CHECKED


def findings(spec: Registered, kwargs: Mapping[str, Any]) -> list[str]:
    """Return what `check_env` warns of or refuses in a new environment, each once and in one line.

    What the environment raises is found as well: it may be in a call that no run makes.

    Args:
        spec: what Gymnasium makes it from.
        kwargs: arguments of its constructor.

    Raises:
        HangError: it gave no sign of life.
    """
    bare = replace(spec, max_episode_steps=None, order_enforce=False, disable_env_checker=True)
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with closing(gymnasium.make(bare, **kwargs)) as env:
                reset: Any = env.reset
                Attendant()(env)  # of what it casts is told already, and the check would look no further
                env.reset.__wrapped__ = reset  # type: ignore[attr-defined]  # whose signature is looked at
                check_env(env, skip_render_check=True, skip_close_check=True)  # the second would open another
        except HangError:
            raise
        except AssertionError as error:
            found.append(str(error))
        except Exception as error:
            found.append(f"it raised {type(error).__name__}: {error}")
    told = [match["text"] for each in caught if (match := WARNING.fullmatch(str(each.message)))]
    return list(dict.fromkeys(" ".join(text.split()) for text in [*told, *found] if not GROUNDLESS.match(text)))
