"""The knobs of a study: dataclass fields with what is allowed and a value for each size.

Knows nothing of jax, so that the command line can show a study's flags at once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

from armillary.errors import InvalidValue, unknown

Size = Literal["smoke", "desk", "paper"]
SIZES: tuple[str, ...] = get_args(Size)

_NONE = object()


def setting(default: Any, *, smoke: Any = _NONE, paper: Any = _NONE, **allowed: Any) -> Any:
    """A field of any value; `default` is the desk size's, `smoke` and `paper` the others' where they differ."""
    sizes = {name: value for name, value in (("smoke", smoke), ("paper", paper)) if value is not _NONE}
    return dataclasses.field(default=default, metadata={"sizes": sizes, **allowed})


def at_least(low: float, *, default: Any, smoke: Any = _NONE, paper: Any = _NONE) -> Any:
    """A number, or a tuple of numbers, that must be at least `low`."""
    return setting(default, smoke=smoke, paper=paper, low=low)


def above(low: float, *, default: Any, smoke: Any = _NONE, paper: Any = _NONE) -> Any:
    """A number, or a tuple of numbers, that must be greater than `low`."""
    return setting(default, smoke=smoke, paper=paper, low=low, open_low=True)


def between(low: float, high: float, *, default: Any, smoke: Any = _NONE, paper: Any = _NONE) -> Any:
    """A number, or a tuple of numbers, in [low, high]."""
    return setting(default, smoke=smoke, paper=paper, low=low, high=high)


def check_fields(config: Any) -> None:
    """Raise `InvalidValue` for the first field of `config` outside what it allows."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            _check(field, number)
        if isinstance(value, tuple) and not value:
            raise InvalidValue(f"{field.name} is empty, but must have at least one value (--{flag(field.name)})")


def _check(field: dataclasses.Field, number: Any) -> None:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is None and high is None:
        return
    if isinstance(number, bool) or not isinstance(number, int | float) or number != number:
        raise InvalidValue(f"{field.name} is {number!r}, but must be a number (--{flag(field.name)})")
    open_low = field.metadata.get("open_low", False)
    limits = [] if low is None else [f"above {low:g}" if open_low else f"at least {low:g}"]
    limits += [] if high is None else [f"at most {high:g}"]
    too_low = low is not None and (number <= low if open_low else number < low)
    if too_low or (high is not None and number > high):
        raise InvalidValue(f"{field.name} is {number:g}, but must be {' and '.join(limits)} (--{flag(field.name)})")


def flag(name: str) -> str:
    """A field's name as the command line writes it."""
    return name.replace("_", "-")


def of_size(kind: type, size: str) -> dict[str, Any]:
    """The values that the fields of `kind` take at `size`. Raises `UnknownName` for another size."""
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    fields: Sequence[dataclasses.Field] = dataclasses.fields(kind)
    return {f.name: f.metadata["sizes"][size] for f in fields if size in f.metadata.get("sizes", {})}
