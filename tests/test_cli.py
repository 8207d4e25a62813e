"""The command line: answers at once, says in one line what is wrong, and how it ended by its exit status."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from armillary.cli import main

TINY = '''
"""A study of one's own."""
from dataclasses import dataclass
from typing import ClassVar
from armillary.experiment import Experiment
from armillary.fields import at_least
from armillary.models import DeepLinear
from armillary.probes import Losses
from armillary.report.figure import Figure
from armillary.rules import SGD, Descent
from armillary.study import Claim, Paper, Study
from armillary.tasks import LinearTeacher

@dataclass(frozen=True, kw_only=True)
class Mine(Study):
    """Loss falls."""
    paper: ClassVar = Paper("Mine", authors="A. Example", year=2020)
    dimension: int = at_least(2, default=4, paper=40)
    """Number of inputs."""
    fast: bool = False

    def experiments(self):
        task = LinearTeacher(self.dimension, samples=10)
        return {"one": Experiment(task, DeepLinear(depth=1), Descent(SGD(1.0 if self.fast else 0.1), steps=5), [Losses()])}

    def claims(self, measured, theory):
        loss = measured["one"].train_loss
        yield Claim("C1", "it falls", measured=(loss.isel(time=-1) / loss.isel(time=0)).max(), at_most=0.999)
        yield Claim("C2", "it grows", measured=(loss.isel(time=-1) / loss.isel(time=0)).max(), at_least=1.0)

    def figures(self, measured, theory):
        yield Figure("loss", "Loss.", lambda axes: axes[0][0].plot(measured["one"].time, measured["one"].train_loss[0]))
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "my_study.py"
    path.write_text(TINY)
    return str(path)


def test_help_is_there_before_jax(tmp_path):
    code = "import sys, armillary.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nprint('jax' in sys.modules, 'xarray' in sys.modules)"
    begun = time.process_time()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("False False") and "run" in out and time.process_time() - begun < 60


def test_a_study_file_of_ones_own_runs(mine, tmp_path, capsys):
    assert main(["run", mine, "--dimension", "6", "--seeds", "3", "--json", "--out", str(tmp_path / "r")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [c["verdict"] for c in result["claims"]] == ["holds", "fails"]
    assert set(result) == {"slug", "size", "seconds", "claims", "trajectory", "report"}
    assert {"id", "statement", "verdict", "measured", "expected", "tolerance"} <= set(result["claims"][0])
    page = Path(result["report"]).read_text()
    assert "--dimension 6 --seeds 3" in page


def test_strict_fails_where_a_claim_does(mine, tmp_path, capsys):
    assert main(["run", mine, "--strict", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "C1\tholds" in printed and "C2\tfails" in printed


def test_list_and_show_name_the_studies(capsys, tmp_path):
    assert main(["list", "--out", str(tmp_path)]) == 0
    assert "deep-linear" in capsys.readouterr().out
    assert main(["list", "--json", "--out", str(tmp_path)]) == 0
    assert {"slug", "family", "title", "last"} <= set(json.loads(capsys.readouterr().out)["studies"][0])
    assert main(["show", "deep-linear", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Saxe" in shown and "C4c" in shown and "--gaussian-steps" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "deep-liner"], "armillary: unknown study 'deep-liner'; nearest: deep-linear"),
        (["rnu"], "armillary: unknown command 'rnu'; nearest: run"),
        (["run"], "armillary: run what? name a study"),
        (["run", "nowhere.py"], "armillary: there is no file nowhere.py"),
        (["run", "deep-linear", "--detph", "3"], "armillary: unknown flag '--detph'; nearest: --depths"),
        (["run", "deep-linear", "--size", "huge"], "armillary: unknown size 'huge'"),
        (["run", "deep-linear", "--seeds", "0", "--size", "smoke"], "armillary: seeds is 0, but must be at least 1 (--seeds)"),
        (["run", "deep-linear", "--inputs", "2"], "inputs is 2, but must be at least 4 (--inputs)"),
        (["run", "deep-linear", "--inputs", "many"], "many"),
        (["run", "deep-linear", "--out", "/proc/nowhere", "--size", "smoke"], "cannot write to /proc/nowhere"),
        (["show", "ntk2"], "armillary: unknown study 'ntk2'"),
        (["list", "--every"], "armillary: unknown argument '--every' for list"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_two(arguments, says, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_broken_study_file_is_one_line(tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text("import no_such_module")
    assert main(["run", str(path)]) == 2
    assert "No module named 'no_such_module'" in capsys.readouterr().err
