"""Malformed input of every kind: one clear line, never a traceback, a hang, or a write outside the results folder.

300 cases in all by default; ARMILLARY_FUZZ=5000 for a night.
"""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import armillary as arm
from armillary.cli import main
from armillary.errors import ArmillaryError
from armillary.serialise import experiment_from_json, experiment_to_json
from armillary.store.blocks import read_block
from armillary.sweeps.grid import Grid, parse_axis, read_grid
from armillary.tasks.files import read_cifar10, read_idx

CASES = int(os.environ.get("ARMILLARY_FUZZ", "300"))
ALLOWED = settings(
    deadline=5000, max_examples=max(CASES // 6, 1), suppress_health_check=list(HealthCheck), derandomize=CASES <= 300
)

names = st.sampled_from(
    ["small", "depth", "learning_rate", "rule.optimiser.learning_rate", "nothing", "..", "../../x", "a/b", ""]
)
texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "log:1e-3:1:4",
            "log:0:1:2",
            "lin:1:2:1e9",
            "nan",
            "1,2",
            "1,,2",
            "[[1,2],[3]]",
            "[" * 2000,
            "inf",
            "true",
            "9" * 5000,
        ]
    ),
    st.lists(st.floats(), max_size=4).map(lambda values: ",".join(map(str, values))),
)


def is_one_line(error: BaseException) -> bool:
    return "\n" not in str(error).strip() and 0 < len(str(error)) < 2000


def refused_or(call, *kinds):
    """What `call` returns, of one of these kinds, or its refusal in one line; anything else raised fails the test."""
    try:
        found = call()
    except ArmillaryError as error:
        assert is_one_line(error)
        return None
    assert isinstance(found, kinds)
    return found


@ALLOWED
@given(st.one_of(st.tuples(names, texts).map("=".join), st.text(max_size=60)))
def test_axes(text):
    refused_or(lambda: parse_axis(text), tuple)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
lines = st.sampled_from([
    'study = "deep-linear"', 'study = "../../etc"', "study = 3", "seeds = 0", "seeds = true", "seeds = 99999999999", "size = 'huge'",
    "[over]", "small = [0.1, 0.2]", "depth = {log = [1, 8, 3]}", "depth = {log = [], lin = 1}", "rule.x = [1]", "[fields]", "modes = [[1]]",
    "experiments = ['random']", "experiments = 'x'", "key = 1e3", "= 3", "[[over]]", "x = nan", "x = 1979-05-27", "\x00",
])  # fmt: skip


@ALLOWED
@given(st.one_of(st.lists(lines, max_size=8).map("\n".join).map(str.encode), st.binary(max_size=80)))
def test_toml_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)
    refused_or(lambda: read_grid(path), Grid)


WRITTEN = experiment_to_json(
    arm.Experiment(
        arm.tasks.LinearTeacher(dimension=4, samples=8),
        arm.models.DeepLinear(depth=2),
        arm.rules.Descent(steps=3),
        [arm.probes.Losses()],
    )
)


@st.composite
def damaged(draw, text=WRITTEN):
    """The experiment's JSON with some of its parts exchanged for anything."""
    tree = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        node, steps = tree, draw(st.lists(st.integers(0, 20), min_size=1, max_size=4))
        for step in steps:
            keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
            if not keys:
                break
            chosen = keys[step % len(keys)]
            if step == steps[-1]:
                node[chosen] = draw(plain)
                break
            node = node[chosen]
    return json.dumps(tree)


@ALLOWED
@given(st.one_of(damaged(), plain.map(json.dumps), st.text(max_size=60)))
def test_experiments_as_json(unchecked_once, text):
    refused_or(lambda: experiment_from_json(text), object)


@pytest.fixture(scope="module")
def unchecked_once():
    import jaxtyping

    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


headers = st.sampled_from(
    [
        b"\0\0\x08\x01\0\0\0\x03abc",
        b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\1",
        b"\x1f\x8b\x08",
        b"CDF",
        b"\x89HDF\r\n\x1a\n",
    ]
)


@ALLOWED
@given(headers, st.binary(max_size=60), st.sampled_from([read_idx, read_cifar10, read_block]))
def test_data_files(tmp_path_factory, header, rest, read):
    path = tmp_path_factory.getbasetemp() / "fuzz.bin"
    path.write_bytes(header + rest)
    refused_or(lambda: read(path), object)


words = st.one_of(
    st.sampled_from([
        "sweep", "results", "list", "show", "rm", "export", "verify", "run", "deep-linear", "--over", "small=0.1,0.2", "small=-1", "--seeds",
        "2", "-1", "--size", "smoke", "--to", "x.nc", "/etc/passwd.csv", "../../x", "--experiment", "random", "--key", "--json", "--cluster",
        "local:0", "nowhere", "--retry", "--modes", "", "--", "x.toml", "x.py",
    ]),
    st.text(max_size=12),
)  # fmt: skip


@ALLOWED
@given(st.lists(words, max_size=7))
def test_the_command_line(tmp_path_factory, capsys, arguments):
    root: Path = tmp_path_factory.getbasetemp() / "fuzz"
    (root / "in").mkdir(parents=True, exist_ok=True)
    os.chdir(root / "in")
    wanted = [word for word in arguments if word not in ("run", "-h", "--help") and "\0" not in word]
    if wanted[:1] == ["sweep"]:
        wanted.append("--dry-run")
    try:
        status = main(wanted)
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr().err
    assert status in (0, 1, 2, None) and "Traceback" not in said and said.count("\n") <= 2
    assert {path.name for path in root.iterdir()} == {"in"} and not list((root / "in").iterdir())
