"""Claims come out as their numbers say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from armillary.errors import ArmillaryError
from armillary.verdict import Claim, Paper, Verdict


@pytest.mark.parametrize(
    ("criterion", "value", "verdict"),
    [
        ({"expected": 2.0, "tolerance": 0.1}, 2.05, Verdict.HOLDS),
        ({"expected": 2.0, "tolerance": 0.1}, 2.2, Verdict.FAILS),
        ({"expected": 2.0, "tolerance": 0.1, "relative": True}, 2.15, Verdict.HOLDS),
        ({"at_least": 1.0}, 0.9, Verdict.FAILS),
        ({"at_most": 1.0}, 0.9, Verdict.HOLDS),
        ({"between": (0.0, 1.0)}, -0.1, Verdict.FAILS),
        ({"at_most": 1.0}, np.nan, Verdict.UNDECIDED),
        ({"at_most": 1.0}, [np.nan, 0.5], Verdict.HOLDS),
        ({"at_most": 1.0}, [0.5, 1.3, 0.2], Verdict.UNDECIDED),
        ({"expected": np.nan, "tolerance": 0.1}, 1.0, Verdict.UNDECIDED),
    ],
)
def test_the_number_decides(criterion, value, verdict):
    assert Claim("C", "so", measured=value, **criterion).verdict is verdict


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=10), st.floats(-1e3, 1e3))
def test_a_claim_and_its_opposite_never_both_hold(values, threshold):
    low = Claim("C", "", measured=values, at_least=threshold).verdict
    high = Claim("C", "", measured=values, at_most=np.nextafter(threshold, -np.inf)).verdict
    assert not (low is Verdict.HOLDS and high is Verdict.HOLDS)


def test_missing_members_are_counted():
    claim = Claim("C", "", measured=[1.0, np.nan, 3.0], at_least=0.0)
    assert claim.missing == 1 and claim.mean == 2.0 and "1 of 3 missing" in claim.found


@pytest.mark.parametrize(
    "criteria", [{}, {"at_least": 1.0, "at_most": 2.0}, {"expected": 1.0}, {"tolerance": 1.0, "at_most": 1.0}]
)
def test_a_claim_has_exactly_one_criterion(criteria):
    with pytest.raises(ArmillaryError, match="needs one criterion"):
        Claim("C", "", measured=1.0, **criteria)


def test_a_paper_knows_its_page():
    assert Paper("T", authors="A", year=1, arxiv="1.2").url.endswith("1.2") and "arXiv:1.2" in str(
        Paper("T", "A", 1, "1.2")
    )
