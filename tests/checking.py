"""The type checker of the tests: beartype, as jaxtyping's import hook wants it."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype
from numpy.typing import ArrayLike

# `Self` has no meaning in a function by itself, which is what the hook decorates; numpy's `ArrayLike` leaves out tuples
# when it is asked at run time. Whole numbers are floats (PEP 484).
_UNASKED = FrozenDict({Self: Any, ArrayLike: Any})

checked = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=_UNASKED))
