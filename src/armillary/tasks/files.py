"""MNIST, Fashion-MNIST and CIFAR-10 from a local folder, in the formats that they are published in."""

import gzip
import struct
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from armillary.errors import MissingData, require_between, unknown
from armillary.settings import derived
from armillary.tasks.data import Data, Samples, Task

IDX_FILES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
CIFAR_RECORD = 1 + 3 * 32 * 32
IDX_UNSIGNED_BYTE = 8


def _find(folder: Path, name: str) -> Path:
    """The file `name` (or `name`.gz) in `folder` or one level below it."""
    dotted = name.replace("-idx", ".idx")  # some mirrors write a dot
    candidates = [folder / n for n in (name, f"{name}.gz", dotted, f"{dotted}.gz")]
    if folder.is_dir():
        candidates += [p for sub in sorted(folder.iterdir()) if sub.is_dir() for p in (sub / name, sub / f"{name}.gz")]
    for path in candidates:
        if path.is_file():
            return path
    raise MissingData(
        f"looked for {name} or {name}.gz in {folder} and the folders in it, and found neither; "
        "put the published files there or give another folder"
    )


def _bytes(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, ValueError) as error:
        raise MissingData(f"{path} cannot be read: {error}; fetch it again") from None


def read_idx(path: str | Path) -> np.ndarray:
    """The array in an IDX file of unsigned bytes (LeCun's format), plain or gzipped.

    Raises `MissingData` if the file is not IDX, holds another type, or is cut short.
    """
    path = Path(path)
    raw = _bytes(path)
    if len(raw) < 4 or raw[0] or raw[1] or raw[2] != IDX_UNSIGNED_BYTE or not 1 <= raw[3] <= 4:
        raise MissingData(f"{path} is not an IDX file of unsigned bytes (first bytes {raw[:4].hex() or 'none'})")
    header = 4 + 4 * raw[3]
    if len(raw) < header:
        raise MissingData(f"{path} is cut short: {len(raw)} bytes, its header alone has {header}; fetch it again")
    shape = struct.unpack(f">{raw[3]}I", raw[4:header])
    expected = header + int(np.prod([int(n) for n in shape], dtype=object))
    if len(raw) != expected:
        raise MissingData(f"{path} has {len(raw)} bytes, but its header promises {expected}; fetch it again")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def read_cifar10(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8[sample, 3, 32, 32] and labels uint8[sample] of one CIFAR-10 binary batch.

    Raises `MissingData` if its size is no whole number of records or a label is above 9.
    """
    raw = np.frombuffer(_bytes(Path(path)), np.uint8)
    if raw.size == 0 or raw.size % CIFAR_RECORD:
        raise MissingData(f"{path} has {raw.size} bytes, but CIFAR-10 records are {CIFAR_RECORD} each; fetch it again")
    records = raw.reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise MissingData(f"{path} is no CIFAR-10 batch: a label is {records[:, 0].max()}, but must be 0 to 9")
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


class ImageFiles(Task):
    """MNIST or Fashion-MNIST (`kind="idx"`) or CIFAR-10 (`kind="cifar10"`) read from `folder`.

    Pixels are scaled to [0, 1] and standardised by the training set's mean and deviation; `flat` gives
    vectors, else channels x height x width. `samples` keeps the first so many training images.

    Raises `MissingData` where a file is absent (and says what was looked for where), is not in its
    format or is cut short, and `InvalidValue` for more samples than the files hold.
    """

    folder: str = eqx.field(static=True)
    kind: Literal["idx", "cifar10"] = eqx.field(static=True)
    samples: int | None = eqx.field(static=True)
    flat: bool = eqx.field(static=True)
    train: Samples = derived()
    test: Samples = derived()

    def __init__(
        self, folder: str, kind: Literal["idx", "cifar10"] = "idx", samples: int | None = None, flat: bool = True
    ):
        self.folder, self.kind, self.samples, self.flat = str(folder), kind, samples, flat
        if kind not in ("idx", "cifar10"):
            raise unknown("kind of files", kind, ("idx", "cifar10"))
        where = Path(folder).expanduser()
        read = self._read_idx if kind == "idx" else self._read_cifar10
        (images, labels), (test_images, test_labels) = read(where)
        if len(images) != len(labels) or len(test_images) != len(test_labels):
            raise MissingData(f"{where} holds {len(images)} training images but {len(labels)} labels; fetch again")
        require_between(
            "the number of samples", 1 if samples is None else samples, 1, len(labels), note=f"what {where} holds"
        )
        images, labels = images[:samples], labels[:samples]
        mean, deviation = images.mean() / 255.0, max(images.std() / 255.0, 1e-6)
        self.train = self._samples(images, labels, mean, deviation)
        self.test = self._samples(test_images, test_labels, mean, deviation)

    @staticmethod
    def _read_idx(folder: Path):
        arrays = {part: read_idx(_find(folder, name)) for part, name in IDX_FILES.items()}
        for part, array in arrays.items():
            if array.ndim != (3 if "images" in part else 1):
                raise MissingData(f"{IDX_FILES[part]} in {folder} has {array.ndim} dimensions; it is not {part}")
        return [(arrays[f"{part} images"][:, None], arrays[f"{part} labels"]) for part in ("train", "test")]

    @staticmethod
    def _read_cifar10(folder: Path):
        batches = [read_cifar10(_find(folder, f"data_batch_{i}.bin")) for i in range(1, 6)]
        train = tuple(np.concatenate(part) for part in zip(*batches, strict=True))
        return train, read_cifar10(_find(folder, "test_batch.bin"))

    def _samples(self, images: np.ndarray, labels: np.ndarray, mean: float, deviation: float) -> Samples:
        scaled = ((images / 255.0 - mean) / deviation).astype(np.float32)
        scaled = scaled.reshape(len(scaled), -1) if self.flat else scaled
        return Samples(jnp.asarray(scaled), jnp.asarray(labels.astype(np.int32)))

    @property
    def inputs(self) -> int:
        return int(np.prod(self.train.inputs.shape[1:]))

    @property
    def outputs(self) -> int:
        return 10

    def draw(self, key: PRNGKeyArray) -> Data:
        return Data(self.train, self.test)
