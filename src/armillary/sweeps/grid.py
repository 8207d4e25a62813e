"""What a sweep goes over, as people write it: `learning_rate=log:1e-3:1e-1:16`, `depth=2,3,4`, or a TOML file."""

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from armillary.errors import InvalidValue, unknown
from armillary.fields import SIZES, Size

MOST = 1_000_000
"""Values that an axis may have."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class Grid:
    """A sweep as it was asked for: a study (or a file with one), axes, and how it is run."""

    study: str
    over: Mapping[str, tuple]
    fields: Mapping[str, Any] = field(default_factory=dict)
    experiments: tuple[str, ...] = ()
    size: Size = "desk"
    seeds: int | None = None
    key: int = 0


def parse_axis(text: str) -> tuple[str, tuple]:
    """An axis's name and values, of `NAME=VALUES`.

    VALUES are numbers or words with commas between, `log:LOW:HIGH:COUNT`, `lin:LOW:HIGH:COUNT`, or a JSON list (for
    values that are lists themselves). Raises `InvalidValue` for anything else.

    >>> parse_axis("depth=2,3,4"), parse_axis("learning_rate=log:1e-3:1e-1:3")
    (('depth', (2, 3, 4)), ('learning_rate', (0.001, 0.01, 0.1)))
    """
    name, sign, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not sign or not values.strip():
        raise InvalidValue(
            f"an axis is {_short(text)}, but must be NAME=VALUES, as in depth=2,3,4 or rate=log:1e-3:1e-1:16"
        )
    return checked_name(name), parse_values(name, values.strip())


def checked_name(name: str) -> str:
    """The name of a field; raises `InvalidValue` for one that no field can have."""
    if not NAME.fullmatch(name) or len(name) > 200:
        raise InvalidValue(f"an axis is called {_short(name)}, but must be a field's name, with dots for nested ones")
    return name


def parse_values(name: str, values: Any) -> tuple:
    """The values of an axis, from text or from what TOML or Python gave. Raises `InvalidValue`."""
    if isinstance(values, str):
        kind, *rest = values.split(":")
        if kind in ("log", "lin") and rest:
            return _spaced(name, kind, rest)
        if values.startswith("["):
            try:
                return parse_values(name, json.loads(values))
            except (json.JSONDecodeError, RecursionError):
                raise InvalidValue(f"{name}'s values are {_short(values)}, which is no JSON list") from None
        values = [_word(name, part.strip()) for part in values.split(",")]
    if isinstance(values, Mapping):
        if len(values) != 1 or not {"log", "lin"} & set(values):
            raise InvalidValue(
                f"{name}'s values are {_short(values)}; a table must be {{log = [low, high, count]}} or lin"
            )
        [(kind, rest)] = values.items()
        return _spaced(name, kind, rest if isinstance(rest, list | tuple) else [rest])
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise InvalidValue(f"{name}'s values are {_short(values)}, but must be a list")
    found = tuple(_value(name, value) for value in values)
    if not found or len(found) > MOST:
        raise InvalidValue(f"{name} has {len(found)} values, but must have 1 to {MOST:,}")
    if len(set(found)) != len(found):
        raise InvalidValue(f"{name} has a value twice in {_short(list(found))}; each may be there once")
    return found


def read_grid(path: Path) -> Grid:
    """The sweep that a TOML file describes: `study`, a table `over`, and if wanted `size`, `seeds`, `key`, `experiments`
    and a table `fields` of the study's own. Raises `InvalidValue`."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidValue(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(f"{path} is no TOML file: {_short(str(error))}") from None
    allowed = {"study": str, "over": dict, "fields": dict, "experiments": list, "size": str, "seeds": int, "key": int}
    for name, value in found.items():
        if name not in allowed:
            raise unknown("entry", name, allowed)
        if not isinstance(value, allowed[name]) or isinstance(value, bool):
            raise InvalidValue(f"{name} is {_short(value)} in {path}, but must be of type {allowed[name].__name__}")
    if "study" not in found or not found.get("over"):
        raise InvalidValue(f'{path} must name a study (study = "deep-linear") and have axes (a table [over])')
    over = {checked_name(name): parse_values(name, values) for name, values in _flat(found["over"]).items()}
    fields = {checked_name(name): _value(name, value) for name, value in found.get("fields", {}).items()}
    names = tuple(str(name) for name in found.get("experiments", ()))
    if (size := found.get("size", "desk")) not in SIZES:
        raise unknown("size", size, SIZES)
    if not 0 < found.get("seeds", 1) <= MOST:
        raise InvalidValue(f"seeds is {found['seeds']}, but must be 1 to {MOST:,}")
    return Grid(found["study"], over, fields, names, size, found.get("seeds"), found.get("key", 0))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables (`[over] rule.rate = ...` is one in TOML) as names with dots."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping) and not {"log", "lin"} & set(value):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _spaced(name: str, kind: str, rest: Sequence[Any]) -> tuple:
    try:
        low, high, count = float(rest[0]), float(rest[1]), int(rest[2])
        if len(rest) != 3 or not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError
    except (ValueError, IndexError, TypeError, OverflowError):
        raise InvalidValue(
            f"{name}'s values are {kind}:{_short(':'.join(map(str, rest)))}, but must be {kind}:LOW:HIGH:COUNT"
        ) from None
    if not 1 <= count <= MOST:
        raise InvalidValue(f"{name} has {count} values, but must have 1 to {MOST:,}")
    if kind == "log" and (low <= 0 or high <= 0):
        raise InvalidValue(f"{name} goes from {low:g} to {high:g} in equal ratios, but both must be above 0")
    spaced = np.geomspace(low, high, count) if kind == "log" else np.linspace(low, high, count)
    # To twelve digits: the decimal numbers that people mean.
    return parse_values(name, [float(f"{value:.12g}") for value in spaced])


def _word(name: str, text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if not text:
        raise InvalidValue(f"{name} has an empty value; write values with commas between")
    return text


def _value(name: str, value: Any) -> Any:
    """A value that can be written down; lists become tuples. Raises `InvalidValue`."""
    if isinstance(value, list | tuple):
        return tuple(_value(name, part) for part in value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue(f"{name} is {value}, but must be a finite number")
    if isinstance(value, int) and abs(value) > 2**53:
        raise InvalidValue(f"{name} is {_short(value)}, but must be at most 2^53")
    if isinstance(value, bool | int | float | str):
        return value
    raise InvalidValue(f"{name} is {_short(value)}, but must be a number, a word, true, false or a list of them")


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits
        return "too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."
