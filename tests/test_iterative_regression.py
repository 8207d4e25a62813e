"""Kernel regression by conjugate gradients against the direct solution."""

import numpy as np
import pytest

from armillary.errors import InvalidValue
from armillary.theory.kernels import Activation, Dense, Kernel, iterative, ridge_regression
from armillary.theory.kernels.iterative import GramProduct, iterative_regression

KERNEL = Kernel(Dense(2.0, 0.1), Activation("relu"), Dense(2.0, 0.1))
X = np.random.default_rng(0).normal(size=(90, 5))
Y = np.stack([np.sign(X[:, 0] * X[:, 1]), X[:, 2]], axis=1)


@pytest.mark.parametrize("which", ["ntk", "nngp"])
def test_it_is_the_direct_fit(which):
    fit = iterative_regression(KERNEL, X, Y, 0.1, which=which, tolerance=1e-10)
    gram = KERNEL(X)._asdict()[which]
    np.testing.assert_allclose(fit.dual, ridge_regression(gram, Y, 0.1).dual, rtol=1e-6, atol=1e-8)
    new = np.random.default_rng(1).normal(size=(7, 5))
    np.testing.assert_allclose(fit(new), KERNEL(new, X)._asdict()[which] @ fit.dual, rtol=1e-10)
    left = np.linalg.norm(Y - gram @ fit.dual - 0.1 * fit.dual, axis=0) / np.linalg.norm(Y, axis=0)
    np.testing.assert_allclose(fit.residual[-1], left, rtol=1e-3, atol=1e-14)


@pytest.mark.parametrize("memory", [1e6, 1e9])
def test_products_are_those_of_the_whole_matrix_kept_or_not(memory, monkeypatch):
    monkeypatch.setattr(iterative, "SLAB", 32)
    vectors, told = np.random.default_rng(2).normal(size=(90, 3)), []
    product = GramProduct(KERNEL, X, "ntk", memory)
    if memory < 1e7:
        product._room = 40 * 90 * 8  # one slab and no more
    for _ in range(2):
        np.testing.assert_allclose(product(vectors, told.append), KERNEL.ntk(X) @ vectors, rtol=1e-9, atol=1e-9)
    assert sum(told) == pytest.approx(2.0) and len(product._kept) == (
        2 if memory < 1e7 else 3
    )  # of the three the last is small


def test_columns_of_the_matrix_save_products():
    few = iterative_regression(KERNEL, X, Y, 0.01, rank=60)
    none = iterative_regression(KERNEL, X, Y, 0.01, rank=0)
    assert len(few.residual) < 0.5 * len(none.residual)
    exact = iterative_regression(KERNEL, X, Y, 0.01, rank=90)  # the preconditioner is then the inverse itself
    assert len(exact.residual) <= 5


def test_single_precision_reaches_what_it_says():
    fit = iterative_regression(KERNEL, X.astype(np.float32), Y, 0.1, tolerance=1e-6)
    gram = KERNEL.ntk(X.astype(np.float32)).astype(float)
    left = np.linalg.norm(Y - gram @ fit.dual - 0.1 * fit.dual, axis=0) / np.linalg.norm(Y, axis=0)
    assert left.max() <= 2e-6


def test_targets_of_zero_are_fitted_by_zero():
    fit = iterative_regression(KERNEL, X, np.zeros(90), 0.1)
    assert not fit.dual.any() and not fit.residual.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": 0.0}, "ridge is 0.0, but must be above 0"),
        ({"targets": Y[:5]}, r"90 inputs and targets of shape \(5, 2\) do not fit"),
        ({"targets": np.where(np.arange(90) == 3, np.nan, 1.0)}, "not finite at sample 3"),
        ({"products": 2, "rank": 0, "ridge": 1e-6}, "after 2 products the residual is .* of the targets, asked 0.0001"),
        ({"rank": 91}, "rank"),
    ],
)
def test_bad_input_gets_one_line(change, message):
    given = {"kernel": KERNEL, "inputs": X, "targets": Y, "ridge": 0.1} | change
    with pytest.raises(InvalidValue, match=message) as error:
        iterative_regression(**given)
    assert "\n" not in str(error.value)
