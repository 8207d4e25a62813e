"""What a sweep's folder says of itself: `run.json`, and which blocks are done or failed.

RUN/run.json               what was asked for, by which versions, and the plan: written before the first block
RUN/blocks/PART-FIRST.nc   finished blocks
RUN/failed/PART-FIRST.json errors, removed when a retry succeeds
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from armillary.programs import Layout
from armillary.store.files import Place, StoreError, make_folder, names_in, read_text, remove_debris, write_text
from armillary.store.fingerprint import source
from armillary.store.keeper import Kept
from armillary.sweeps.plan import Part


class Job(NamedTuple):
    """One block of one part: what a worker does at once."""

    part: str
    first: int

    @property
    def name(self) -> str:
        """As its files are called."""
        return f"{self.part}-{self.first}"


class Record(NamedTuple):
    """A sweep's folder, its parts and how each is cut into blocks."""

    folder: Place
    parts: dict[str, Part]
    layouts: dict[str, Layout]

    @property
    def jobs(self) -> list[Job]:
        """All blocks."""
        return [
            Job(name, first)
            for name, part in self.parts.items()
            for first in range(0, part.program.members, self.layouts[name].size)
        ]

    def kept(self, part: str) -> Kept:
        """Where the blocks of a part are."""
        return Kept(self.folder / "blocks", part)

    def done(self) -> set[str]:
        """Names of the finished blocks."""
        return {name.removesuffix(".nc") for name in names_in(self.folder / "blocks", ".nc")}

    def failed(self) -> dict[str, str]:
        """Errors of the blocks that failed, by name."""
        found = {}
        for name in names_in(self.folder / "failed", ".json"):
            try:
                found[name.removesuffix(".json")] = str(json.loads(read_text(self.folder / "failed" / name))["error"])
            except (ValueError, KeyError, TypeError):
                found[name.removesuffix(".json")] = "unreadable record of an error"
        return found


def sweep_name(slug: str, asked: dict[str, Any]) -> str:
    """The name of a sweep's folder: the same sweep has the same name."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{slug[:50]}-sweep-{digest}"


def open_record(folder: Place, parts: Sequence[Part], asked: dict[str, Any], memory: int) -> Record:
    """The record in a folder, begun or gone on with. Raises `StoreError` where another version began it."""
    known = {part.name: part for part in parts}
    path = folder / "run.json"
    if not path.exists():
        for inside in (folder, folder / "blocks", folder / "failed"):
            make_folder(inside)
        layouts = {part.name: part.layout(memory) for part in parts}
        write_text(path, json.dumps(_described(parts, layouts, asked), indent=1, default=str))
        return Record(folder, known, layouts)
    said = read_record(folder)
    if said["source"] != source():
        now = importlib.metadata.version("armillary")
        raise StoreError(
            f"{folder} was begun by Armillary {said['armillary']} (state {said['source']}), this is {now} (state {source()}): "
            "their numbers may differ; choose another folder (--out), or remove it (armillary results rm)"
        )
    for inside in ("blocks", "failed", "blocks/checkpoints"):
        remove_debris(folder / inside)
    layouts = {one["name"]: Layout(one["size"], one["width"], one["each"]) for one in said["parts"]}
    if set(layouts) != set(known) or any(one["members"] != known[one["name"]].program.members for one in said["parts"]):
        raise StoreError(f"{folder} holds another sweep; choose another folder (--out)")
    return Record(folder, known, layouts)


def read_record(folder: Place) -> dict[str, Any]:
    """What `run.json` says. Raises `StoreError` where it is not that of a sweep."""
    try:
        said = json.loads(read_text(folder / "run.json"))
        layouts = [Layout(int(one["size"]), int(one["width"]), int(one["each"])) for one in said["parts"]]
        members = [int(one["members"]) for one in said["parts"]]
        sound = (
            said["kind"] == "sweep" and all(size > 0 for size, _, _ in layouts) and all(count > 0 for count in members)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
        said = {}
    if not sound:
        raise StoreError(f"cannot read {folder / 'run.json'}: it is no record of a sweep")
    return said


def _described(parts: Sequence[Part], layouts: dict[str, Layout], asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "sweep",
        **asked,
        "armillary": importlib.metadata.version("armillary"),
        "jax": importlib.metadata.version("jax"),
        "source": source(),
        "parts": [
            {
                "name": part.name,
                "experiment": part.experiment,
                "entries": [_labels(entry.at) for entry in part.entries],
                "numeric": {path[-1]: list(values) for path, values in part.entries[0].numeric.items()},
                "discrete": bool(part.program.template.discrete),
                "members": part.program.members,
                **layouts[part.name]._asdict(),
            }
            for part in parts
        ],
    }


def _labels(at: dict[str, Any]) -> dict[str, Any]:
    from armillary.trajectory import label_of

    return {name: label_of(value) for name, value in at.items()}
