"""scikit-learn's handwritten digits, the first real data set."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from armillary.errors import InvalidValue, require_between, unknown
from armillary.settings import derived
from armillary.tasks.data import Data, Samples, Task

TARGETS = ("class", "onehot", "parity")
POOLED = (1, 2, 4)


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 images, in a fixed shuffled order (the file's order is by writer), and their labels.

    Read from scikit-learn's file itself: importing the package for it takes half a second.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.submodule_search_locations is not None  # a dependency of this package
    table = np.loadtxt(Path(package.submodule_search_locations[0]) / "datasets/data/digits.csv.gz", delimiter=",")
    order = np.random.default_rng(0).permutation(len(table))
    return (table[order, :-1] / 16.0).astype(np.float32), table[order, -1].astype(np.int32)


class Digits(Task):
    """1,797 images of 8 x 8 pixels in [0, 1], ten classes (scikit-learn, `load_digits`).

    - `samples`: how many to train on; the others are the test set.
    - `targets`: "class" numbers, "onehot" vectors, or "parity" (±1 for even or odd: one output).
    - `label_noise`: the share of training labels replaced by a uniformly drawn class (sign for parity);
      can be swept in one program. With None nothing is drawn: the same as 0, compiled faster.
    - `standardise`: subtract each pixel's mean over the training set and divide by the overall deviation.
    - `reshuffle`: draw the training subset anew for each seed instead of the same one for all.
    - `pooled`: side of the squares of pixels that are averaged into one: 1 (none), 2 (4 x 4 images) or 4 (2 x 2).
    - `classes`: the digits that there are, such as (0, 1); None is all ten. Classes keep their numbers.

    Raises `InvalidValue` for more samples than there are, a label noise outside [0, 1], another `pooled`, or classes that
    are no digits.

    >>> Digits(samples=1000).draw(jax.random.key(0)).test.count
    797
    """

    samples: int = eqx.field(static=True)
    targets: Literal["class", "onehot", "parity"] = eqx.field(static=True)
    label_noise: float | None
    standardise: bool = eqx.field(static=True)
    reshuffle: bool = eqx.field(static=True)
    pooled: int = eqx.field(static=True)
    classes: tuple[int, ...] | None = eqx.field(static=True)
    clean: Data = derived()

    def __init__(
        self,
        samples: int = 1500,
        targets: Literal["class", "onehot", "parity"] = "class",
        label_noise: float | None = None,
        standardise: bool = True,
        reshuffle: bool = False,
        pooled: int = 1,
        classes: tuple[int, ...] | None = None,
    ):
        self.classes = None if classes is None else tuple(classes)
        if self.classes is not None and (not self.classes or not set(self.classes) <= set(range(10))):
            raise InvalidValue(f"classes are {classes}, but must be one or more of the digits 0 to 9")
        images, labels = self._images()
        count = len(labels)
        require_between("the number of samples", samples, 1, count - 1, note=f"one of the {count} is left to test")
        require_between("label_noise", 0.0 if label_noise is None else label_noise, 0.0, 1.0)
        if targets not in TARGETS:
            raise unknown("targets", targets, TARGETS)
        if pooled not in POOLED:
            raise InvalidValue(f"pooled is {pooled}, but must be 1, 2 or 4 (the side of the squares of an 8 x 8 image)")
        self.samples, self.targets, self.label_noise = samples, targets, label_noise
        self.standardise, self.reshuffle = standardise, reshuffle
        self.pooled = pooled
        # Laid out once, so that the members of a run share one copy.
        images = self._scaled(images.astype(np.dtype(jnp.result_type(float))))
        self.clean = self._split(images, labels, jax.device_put)

    @property
    def inputs(self) -> int:
        return (8 // self.pooled) ** 2

    @property
    def outputs(self) -> int:
        return 1 if self.targets == "parity" else 10

    def draw(self, key: PRNGKeyArray) -> Data:
        key_order, key_flip, key_label = jax.random.split(key, 3)
        clean = self.clean
        if self.reshuffle:
            images, labels = self._images()
            order = jax.random.permutation(key_order, len(labels))
            images = self._scaled(jnp.asarray(images, jnp.result_type(float))[order])
            clean = self._split(images, jnp.asarray(labels)[order], lambda array: array)
        assert clean.test is not None
        labels = clean.train.targets
        if self.label_noise is None:
            labels = labels + 0  # each member's own, as with noise
        else:
            wrong = jax.random.uniform(key_flip, labels.shape) < self.label_noise
            labels = jnp.where(wrong, jax.random.randint(key_label, labels.shape, 0, 10), labels)
        train = Samples(clean.train.inputs, self._encode(labels))
        return Data(train, Samples(clean.test.inputs, self._encode(clean.test.targets)))

    def _images(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the classes."""
        images, labels = _digits()
        if self.classes is None:
            return images, labels
        chosen = np.isin(labels, self.classes)
        return images[chosen], labels[chosen]

    def _scaled(self, images: Any) -> Any:
        side = 8 // self.pooled
        if self.pooled > 1:
            images = images.reshape(-1, side, self.pooled, side, self.pooled).mean(axis=(2, 4)).reshape(-1, side**2)
        if not self.standardise:
            return images
        images = images - images[: self.samples].mean(axis=0)
        return images / (images[: self.samples] ** 2).mean() ** 0.5

    def _split(self, images: Any, labels: Any, laid_out: Callable[[Any], Array]) -> Data:
        first, others = ((images[at], labels[at]) for at in (slice(self.samples), slice(self.samples, None)))
        return Data(Samples(*map(laid_out, first)), Samples(*map(laid_out, others)))

    def _encode(self, labels: Array) -> Array:
        match self.targets:
            case "onehot":
                return jax.nn.one_hot(labels, 10)
            case "parity":
                return (1.0 - 2.0 * (labels % 2))[:, None]
            case _:
                return labels
