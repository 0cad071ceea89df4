"""What Gymnasium's `check_env` finds in an environment, in words; nothing that it finds ends a run."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
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


def findings(env: gymnasium.Env[Any, Any], said: Callable[[str], AbstractContextManager[None]]) -> list[str]:
    """Return what `check_env` warns of or refuses, each once and in one line.

    Args:
        env: one environment, that is reset and stepped.
        said: around each of its calls, with what is called: says of an exception whose it is.

    Raises:
        Exception: what `said` makes of one that the environment itself raised.
    """
    raised: list[BaseException] = []

    def telling(call: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(own)  # whose signature is looked at
        def telling_call(*args: Any, **kwargs: Any) -> Any:
            try:
                with said(f"{own.__name__} under Gymnasium's check_env (check_env false leaves it out)"):
                    return call(*args, **kwargs)
            except Exception as error:
                raised.append(error)
                raise

        return telling_call

    reset, step = env.reset, env.step
    Attendant()(env)  # of what it casts is told already, and the check would look no further
    # On the object, since it would find that wrappers are not the environment.
    env.reset, env.step = telling(env.reset, reset), telling(env.step, step)  # type: ignore[method-assign]
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env, skip_render_check=True, skip_close_check=True)  # the second would open another
        except HangError:
            raise
        except Exception as error:
            if error in raised:
                raise
            found.append(str(error) or type(error).__name__)
    told = [match["text"] for each in caught if (match := WARNING.fullmatch(str(each.message)))]
    return list(dict.fromkeys(" ".join(text.split()) for text in [*told, *found] if not GROUNDLESS.match(text)))
