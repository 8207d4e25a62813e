"""Errors that say in one line what was given, what is allowed and what to do."""

import difflib
import math
from collections.abc import Iterable
from typing import Any


class ArmillaryError(ValueError):
    """Every error that Armillary raises on purpose; its text is one line meant for the user."""


class InvalidValue(ArmillaryError):
    """A value outside what is allowed."""


class UnknownName(ArmillaryError):
    """A name that is not there; the text gives the nearest ones."""


class MissingData(ArmillaryError):
    """A data file that is not where it was looked for, or not in its format."""


class ProbeError(ArmillaryError):
    """A probe asked of a network or snapshot that has no such quantity."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> UnknownName:
    """The error for a name that is not among the `allowed`, with the nearest three.

    >>> print(unknown("activation", "rellu", ["relu", "tanh"]))
    unknown activation 'rellu'; nearest: relu (all: relu, tanh)
    """
    names = sorted(allowed)
    nearest = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    everything = f" (all: {', '.join(names)})" if len(names) <= 30 else ""
    return UnknownName(f"unknown {kind} {str(name)!r}{hint}{everything}")


def is_traced(value: Any) -> bool:
    """Whether `value` is known only while a program is being compiled, so that it can't be checked."""
    import jax.core  # late: the command line shows errors before jax is there

    return isinstance(value, jax.core.Tracer)


def require_between(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    note: str = "",
) -> None:
    """Raise `InvalidValue` unless every entry of `value` lies in [low, high] (or (low, high]).

    Values that are being traced pass: they were checked when the experiment or sweep was built.

    >>> require_between("rank", 40, 1, 32, note="the dimension")
    Traceback (most recent call last):
    armillary.errors.InvalidValue: rank is 40, but must be at least 1 and at most 32 (the dimension)
    """
    if is_traced(value) or type(value) is object:
        return
    import numpy as np

    numbers = np.asarray(value, dtype=float)
    below = numbers <= low if open_low else numbers < low
    bad = below | (numbers > high) | np.isnan(numbers)
    if not bad.any():
        return
    limits = []
    if low != -math.inf:
        limits.append(f"{'above' if open_low else 'at least'} {low:g}")
    if high != math.inf:
        limits.append(f"at most {high:g}")
    allowed = " and ".join(limits) or "a number"
    given = f"{numbers[bad].flat[0]:g}"
    raise InvalidValue(f"{name} is {given}, but must be {allowed}{f' ({note})' if note else ''}")
