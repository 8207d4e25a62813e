"""The type checker of the tests: beartype, as jaxtyping's import hook wants it."""

import functools
from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype
from numpy.typing import ArrayLike

# `Self` has no meaning in a function by itself, which is what the hook decorates; numpy's `ArrayLike` leaves out tuples
# when it is asked at run time. Whole numbers are floats (PEP 484).
_UNASKED = FrozenDict({Self: Any, ArrayLike: Any})

_beartyped = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=_UNASKED))

_known: dict[Any, Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function without a body, which jaxtyping makes for each one that it decorates, that checks its arguments.

    It is made when it is first called, and once for functions within functions, which are decorated again and again: a
    study's run decorates 3,382 times and calls 524 of them.
    """
    code = function.__code__
    key = (function.__module__, function.__qualname__, code, len(function.__defaults__ or ()))
    key += (tuple(function.__annotations__.items()), tuple(function.__kwdefaults__ or ()))

    @functools.wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        made = _known.get(key)
        if made is None:
            made = _known[key] = _beartyped(function)
        return made(*args, **kwargs)

    return check
