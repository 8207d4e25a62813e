"""Files that are whole or not there, in a folder or behind a URL."""

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from armillary.errors import ArmillaryError, InvalidValue

Place = Any
"""A folder or file: a `pathlib.Path`, or its like behind a URL (`upath.UPath`)."""


class StoreError(ArmillaryError):
    """A results folder that cannot be written or read."""


def place(where: str | Path | Place) -> Place:
    """A folder by its path, or by a URL that fsspec knows (`s3://bucket/results`, `gs://`, `memory://`).

    Raises `InvalidValue` for a protocol that is not known or whose library is not installed.

    >>> place("results") / "run.json"
    PosixPath('results/run.json')
    """
    text = str(where)
    if "://" not in text or isinstance(where, Path):
        return where if hasattr(where, "parts") else Path(text)
    from upath import UPath

    logging.getLogger(f"{text.split('://')[0].replace('gs', 'gcs')}fs").setLevel(
        logging.CRITICAL
    )  # we say it in a line
    try:
        found = UPath(text)
        _ = found.fs
    except ImportError as error:
        raise InvalidValue(f"{text} needs a library: {error}; pip install 'armillary[cloud]'") from None
    except ValueError as error:
        raise InvalidValue(f"{text} is no folder: {error}") from None
    except Exception as error:  # a service's own errors: no credentials, no network
        raise StoreError(f"cannot reach {text}: {_reason(error)}") from None
    return found


def is_local(path: Place) -> bool:
    """Whether a file is on this machine."""
    return isinstance(path, Path)


def make_folder(folder: Place) -> Place:
    """The folder, made if need be; raises `StoreError` where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_local(folder):
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe."):
                pass
    except FileExistsError:
        raise StoreError(
            f"cannot write to {folder}: a file of that name is there; choose another folder (--out)"
        ) from None
    except Exception as error:
        raise StoreError(f"cannot write to {folder}: {_reason(error)}; choose another folder (--out)") from None
    return folder


def write_whole(path: Place, write: Callable[[Path], Any]) -> Place:
    """Let `write` fill a hidden file beside `path`, flush it to the disk and rename it into place.

    A reader sees the old file, the new one or none, never a part. Behind a URL the file is filled here and put there
    at once, which such services do whole or not at all. Raises `StoreError` on a full disk and the like, leaving what
    was there.
    """
    if not is_local(path):
        return _put_whole(path, write)
    hidden = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp{path.suffix}")
    try:
        write(hidden)
        _flush(hidden)
        os.replace(hidden, path)
        _flush(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {_reason(error)}") from None
    except RuntimeError as error:  # what the netCDF library says of a full disk
        raise StoreError(f"cannot write {path}: {_reason(error)}; is the disk full?") from None
    finally:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
    return path


def _put_whole(path: Place, write: Callable[[Path], Any]) -> Place:
    with tempfile.TemporaryDirectory() as folder:
        hidden = Path(folder) / path.name
        write(hidden)
        try:
            path.fs.put_file(str(hidden), path.path)
        except Exception as error:
            raise StoreError(f"cannot write {path}: {_reason(error)}") from None
    return path


def write_text(path: Place, text: str) -> Place:
    """A text file, whole."""
    return write_whole(path, lambda hidden: hidden.write_text(text, encoding="utf-8"))


def read_text(path: Place) -> str:
    """A text file; raises `StoreError` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except Exception as error:
        raise StoreError(f"cannot read {path}: {_reason(error)}") from None


@contextmanager
def local_copy(path: Place) -> Iterator[Path]:
    """The file on this machine, for libraries that read no others; raises `StoreError` where it cannot be had."""
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        try:
            path.fs.get_file(path.path, str(copy))
        except Exception as error:
            raise StoreError(f"cannot read {path}: {_reason(error)}") from None
        yield copy


def names_in(folder: Place, ending: str) -> list[str]:
    """Names of the finished files of a folder that end so, in order; none where there is no folder.

    Hidden files are others' unfinished work.
    """
    return [name for name in children(folder) if name.endswith(ending) and not name.startswith(".")]


def children(folder: Place) -> list[str]:
    """Names of what is in a folder, in order; none where there is no folder. Raises `StoreError` if it cannot be read."""
    try:
        if is_local(folder):
            return sorted(child.name for child in folder.iterdir())
        folder.fs.invalidate_cache(folder.path)  # others may have put something there
        # Not `iterdir`: that takes a service that does not answer for a folder that is not there.
        found = folder.fs.ls(folder.path, detail=False)
        return sorted(Path(path).name for path in found if path.strip("/") != folder.path.strip("/"))
    except (FileNotFoundError, NotADirectoryError):  # behind a URL a folder without files is none
        return []
    except Exception as error:
        raise StoreError(f"cannot read {folder}: {_reason(error)}") from None


def remove_debris(folder: Place, *, older: float = 86_400.0) -> None:
    """Remove the hidden files of writers that were killed more than so many seconds ago; a living one's are younger."""
    if not is_local(folder):
        return  # nothing hidden is put behind a URL
    for path in folder.glob(".*.tmp*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > older:
                path.unlink()


def remove_folder(folder: Place) -> None:
    """Remove a folder: gone at once for readers, then piece by piece. Raises `StoreError`."""
    try:
        if is_local(folder):
            hidden = folder.with_name(f".removed-{folder.name}")
            shutil.rmtree(hidden, ignore_errors=True)
            folder.rename(hidden)
            shutil.rmtree(hidden)
        elif folder.exists():
            folder.fs.rm(folder.path, recursive=True)
    except Exception as error:
        raise StoreError(f"cannot remove {folder}: {_reason(error)}") from None


def _flush(path: Path) -> None:
    """To the disk, so that a power cut loses nothing that was reported as done."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0]
