"""Every registered study, at smoke size, through the door that users take."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
import xarray as xr

from armillary.cli import main
from armillary.errors import ArmillaryError
from armillary.fields import SIZES
from armillary.register import claims_in, entries, study_class
from armillary.store import read_trajectories

SLUGS = list(entries())


@pytest.mark.parametrize("slug", SLUGS)
def test_every_study_runs_at_smoke_size(slug, tmp_path, capsys, unchecked):
    assert main(["run", slug, "--size", "smoke", "--json", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["slug"] == slug and result["size"] == "smoke" and result["seconds"] < 120
    stated = dict(claims_in(Path(sys.modules[study_class(slug).__module__].__file__)))
    assert result["claims"] and len({c["id"] for c in result["claims"]}) == len(result["claims"])
    assert len(stated) > 0
    for claim in result["claims"]:
        assert claim["verdict"] in ("holds", "fails", "undecided") and claim["statement"]
    folder = Path(result["report"]).parent
    page = (folder / "report.html").read_text()
    assert not re.search(r'(src|@import|url\()\s*=?\s*["\']?https?:', page)  # nothing is fetched when it is opened
    figures = list((folder / "figures").glob("*.svg"))
    assert figures and page.count("<svg") == len(figures)
    assert len(list((folder / "figures").glob("*.png"))) == len(figures)
    stored = read_trajectories(result["trajectory"])
    assert all(isinstance(data, xr.Dataset) for data in stored["measured"].values())


@pytest.mark.parametrize("slug", SLUGS)
def test_every_study_can_be_made_at_every_size(slug):
    kind = study_class(slug)
    for size in SIZES:
        study = kind.at_size(size)
        assert dataclasses.replace(study) == study
    assert kind.paper.title and kind.__doc__ and set(kind.seeds) == set(SIZES)


@pytest.mark.desk
@pytest.mark.parametrize("slug", SLUGS)
def test_desk_claims_are_what_they_were(slug, tmp_path, capsys):
    """At desk size no claim changes its verdict without somebody noticing."""
    main(["run", slug, "--json", "--out", str(tmp_path)])
    verdicts = {c["id"]: c["verdict"] for c in json.loads(capsys.readouterr().out)["claims"]}
    known = json.loads((Path(__file__).parent / "desk_verdicts.json").read_text())
    assert verdicts == known[slug]


def test_settings_without_a_theory_say_which_assumption_fails():
    kind = study_class("linear-init-bias")
    study = kind.at_size("smoke", samples=50, inputs=20)
    with pytest.raises(ArmillaryError, match=r"no theory applies to the experiment 'wide'.* needs ") as caught:
        study.theory()["wide"]
    assert "\n" not in str(caught.value)
