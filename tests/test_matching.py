"""`predict` finds the one theory of each family by itself, and a near miss is refused with its assumption and amount."""

from functools import partial

import jax.numpy as jnp
import pytest

import armillary as arm
from armillary.models import Decoupled, DeepLinear, DiagonalLinear, SymmetricFactors
from armillary.prediction import refusals
from armillary.rules import SGD, Descent, GradientFlow
from armillary.tasks import Correlations, MatrixSensing, QuadraticTeacher, SparseRegression

TARGET = jnp.diag(jnp.array([2.0, 1.0]))


def deep_linear(inputs=jnp.eye(2), rule=GradientFlow(1.0), strength=1e-3):  # noqa: B008
    return arm.Experiment(
        Correlations(inputs, TARGET), DeepLinear(depth=2, initialisation=Decoupled(TARGET, strength)), rule
    )


def quadratic(dimension=200, width=100, rule=GradientFlow(1.0)):  # noqa: B008
    return arm.Experiment(QuadraticTeacher(dimension, 50), SymmetricFactors(width, orthonormal=True), rule)


def sensing(measurements=None, width=3, rate=0.1, scale=0.1):
    rule = Descent(SGD(rate), steps=10)
    return arm.Experiment(MatrixSensing(20, (1.0, 0.7), measurements), SymmetricFactors(width, scale=scale), rule)


def diagonal(problem=0, rule=GradientFlow(1.0)):  # noqa: B008
    return arm.Experiment(SparseRegression(10, 4, 2, problem=problem), DiagonalLinear(), rule)


@pytest.mark.parametrize(
    ("experiment", "name"),
    [
        (deep_linear, "deep linear modes"),
        (quadratic, "high-dimensional quadratic networks"),
        (sensing, "matrix sensing, symmetric factors"),
        (diagonal, "diagonal mirror flow"),
    ],
)
def test_the_right_theory_speaks_and_no_other(experiment, name):
    said = arm.predict(experiment())
    assert said.attrs["theories"].startswith(f"{name} (") and ";" not in said.attrs["theories"]
    assert len(said) and name not in refusals(said)


large_step = Descent(SGD(0.4), steps=10)


@pytest.mark.parametrize(
    ("experiment", "name", "says"),
    [
        (partial(deep_linear, jnp.diag(jnp.array([1.0, 1.1]))), "deep linear modes",
         "needs white inputs; the covariance's condition number is 1.1 (allowed 1.01)"),
        (partial(deep_linear, rule=large_step), "deep linear modes", "(allowed"),
        (partial(quadratic, 60, 30), "high-dimensional quadratic networks", "needs many inputs; there are 60 (at least 100)"),
        (partial(quadratic, rule=large_step), "high-dimensional quadratic networks", "(allowed"),
        (partial(sensing, 30), "matrix sensing, symmetric factors", "there are 30"),
        (partial(sensing, rate=1.5), "matrix sensing, symmetric factors", "(allowed"),
        (partial(sensing, width=1), "matrix sensing, symmetric factors", "there are 1"),
        (partial(diagonal, None), "diagonal mirror flow", "problem is None"),
        (partial(diagonal, rule=large_step), "diagonal mirror flow", "(allowed"),
    ],
)  # fmt: skip
def test_a_near_miss_names_the_assumption_and_the_amount(experiment, name, says):
    said = arm.predict(experiment())
    assert not len(said) and any(says in line and line.startswith("needs ") for line in refusals(said)[name])
