"""Kernel ridge regression: fits, leave-one-out errors, and how the error falls with the number of samples.

Learning curves follow from the kernel's eigenvalues and the target's coefficients alone, in the limit of many samples and
modes. Sources: Bordelon, Canatar & Pehlevan (2020); Canatar, Bordelon & Pehlevan (2021); Simon et al. (2021).
"""

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import InvalidValue, require_between
from armillary.theory.assumptions import Check
from armillary.theory.deterministic_equivalents import Spectrum, effective_ridge
from armillary.theory.kernels.gram import Kernel

APART = 0.15
"""Relative distance of a learning curve from fits, beyond two of their standard errors, up to which it holds."""

FITTED, FITS = 512, 8
"""Samples up to which a learning curve is checked by fits, and how many fits of each number."""

RESOLVED = 0.5
"""Share of the data that may be training samples: the Gram matrix of all of them must resolve what so many learn."""


class RidgeFit(NamedTuple):
    """A kernel ridge regression: dual weights [sample, output], its residuals, and those of leaving each sample out."""

    dual: Float[np.ndarray, "sample output"]
    residuals: Float[np.ndarray, "sample output"]
    left_out: Float[np.ndarray, "sample output"]


def ridge_regression(gram: Float[np.ndarray, "sample sample"], targets: Any, ridge: float = 0.0) -> RidgeFit:
    """f(x) = K(x, X) (K + ridge)⁻¹ y, and the error on each sample of the fit to all others, (K + ridge)⁻¹y over the inverse's
    diagonal (exact, without fitting again).

    Raises `InvalidValue` for a Gram matrix that is singular without ridge, naming the two samples nearest to each other.

    >>> fit = ridge_regression(np.eye(2) + 1.0, [1.0, 0.0])
    >>> print(fit.left_out.ravel().round(3))  # each is predicted from the other by K_12/K_22
    [ 1.  -0.5]
    """
    gram, y = np.asarray(gram, float), np.asarray(targets, float).reshape(len(gram), -1)
    require_between("ridge", ridge, 0.0)
    values, vectors = np.linalg.eigh(gram)
    shifted = values + ridge
    if shifted[0] <= 1e-13 * len(gram) * shifted[-1]:
        size = np.sqrt(np.diag(gram))
        likeness = np.abs(gram) / np.outer(size, size) - np.eye(len(gram))
        i, j = np.unravel_index(np.argmax(likeness), gram.shape)
        raise InvalidValue(
            f"the Gram matrix is singular (samples {i} and {j} have correlation {gram[i, j] / size[i] / size[j]:.6g}); "
            "give a ridge above 0, or leave one of them out"
        )
    dual = vectors @ ((vectors.T @ y) / shifted[:, None])
    inverse = (vectors**2 / shifted).sum(axis=1)
    return RidgeFit(dual, ridge * dual, dual / inverse[:, None])


class Modes(NamedTuple):
    """A kernel's eigenvalues on data, the largest first, and the squared coefficients of the targets along its modes: their
    sum is the targets' mean square."""

    eigenvalues: Float[np.ndarray, " mode"]
    power: Float[np.ndarray, " mode"]


def kernel_modes(gram: Float[np.ndarray, "sample sample"], targets: Any) -> Modes:
    """The modes of a kernel under the law of the data, estimated by samples of it: eigenvalues of the Gram matrix over their
    number. Targets are [sample] or [sample, output].

    >>> print(kernel_modes(np.diag([4.0, 2.0]), [1.0, 1.0]).eigenvalues)
    [2. 1.]
    """
    gram = np.asarray(gram, float)
    y = np.asarray(targets, float).reshape(len(gram), -1)
    values, vectors = np.linalg.eigh(gram)
    values = np.where(values > np.finfo(float).eps * len(gram) * values[-1], values, 0.0)  # the rest is rounding
    return Modes(values[::-1] / len(gram), ((vectors.T @ y) ** 2).sum(axis=1)[::-1] / len(gram))


def _kappa(modes: Modes, samples: float, ridge: float) -> float:
    """The eigenvalue at which modes begin not to be learned."""
    return effective_ridge(Spectrum(modes.eigenvalues, np.ones(len(modes.eigenvalues))), samples, ridge)


def predicted_error(modes: Modes, samples: float, ridge: float = 0.0, noise: float = 0.0) -> tuple[float, float]:
    """Mean test and training error (mean squares, the noise of test targets included) of a fit to that many samples.

    With kappa the `effective_ridge` of the spectrum and L_i = lambda_i/(lambda_i + kappa), the test error is (sum of (1 - L_i)² v_i + noise²)/(1 - sum L_i²/samples), and the
    training error that times (ridge/(kappa samples))². `noise` is the standard deviation of independent noise on targets
    beyond what `modes` contain. inf where as many modes are learned exactly as there are samples.
    """
    kappa = _kappa(modes, samples, ridge)
    learned = np.divide(
        modes.eigenvalues, modes.eigenvalues + kappa, where=modes.eigenvalues > 0, out=np.zeros_like(modes.eigenvalues)
    )
    left = 1 - (learned**2).sum() / samples
    if left <= 1e-12:
        return np.inf, 0.0
    test = (((1 - learned) ** 2 * modes.power).sum() + noise**2) / left
    share = ridge / (kappa * samples) if kappa > 0 else max(1 - len(modes.eigenvalues) / samples, 0.0)
    return float(test), float(test * share**2)


def _on_others(modes: Modes, samples: int, count: int, ridge: float, noise: float) -> tuple[float, float]:
    """Test and training error where samples are some of the `count` from which the modes are known, tested on others.

    The theory draws from these with repetition, and tests on all. So many draws hit `samples` of them:
    -count log(1 - samples/count). Of a sample that was trained on, the error against new noise is the training error
    and 2 noise² times what is learned of single samples. Derived here.
    """
    share = samples / count
    draws = -count * np.log1p(-share)
    everywhere, train = predicted_error(modes, draws, ridge, noise)
    kappa = _kappa(modes, draws, ridge)
    learned = 1 - (ridge / (kappa * draws) if kappa > 0 else 0.0)
    return (everywhere - share * (train + 2 * noise**2 * learned)) / (1 - share), train


def learning_curve(
    kernel: "Kernel | Float[np.ndarray, 'sample sample']",
    inputs: Any,
    targets: Any,
    samples: Sequence[int] | None = None,
    *,
    ridge: float = 0.0,
    noise: float = 0.0,
    which: Literal["ntk", "nngp"] = "ntk",
) -> xr.Dataset:
    """How well kernel regression does on data of yours, against the number of training samples: no training is done.

    The kernel's eigenvalues and the targets' coefficients are estimated on all `inputs` [sample, ...], `targets` [sample(,
    output)]. `kernel` is a `Kernel` (`which` of its two is taken: "ntk", or "nngp") or a Gram matrix of the inputs. `samples`
    are numbers of training samples (None: powers of 2 up to half of all).

    Assumes training samples drawn from the data's law, few beside those given (at most half), and errors along the modes that
    behave as if they were independent: good where many modes count and inputs have many dimensions. That is checked by a few fits
    to random parts of the data, of up to 512 samples: where they are more than 15 % away, the attribute `refusals` says so
    (`armillary.prediction.refusals`). Targets that the Gram matrix does not see count as noise that is never learned. Returns `test_error` and `train_error` [samples], mean squares of one sample over outputs
    summed, and `kappa` [samples], the eigenvalue at which modes begin not to be learned. Raises `InvalidValue` for more
    samples than half of the data, or shapes that do not fit.

    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> print(learning_curve(x @ x.T, x, x[:, 0], [1, 2, 3, 4]).test_error.values.round(2)[-1])
    0.0
    """
    x, y = np.asarray(inputs), np.asarray(targets, float)
    gram = kernel(x, kind=which)._asdict()[which] if isinstance(kernel, Kernel) else np.asarray(kernel, float)
    if gram.shape != (len(x), len(x)) or len(y) != len(x):
        raise InvalidValue(f"{len(x)} inputs, targets of shape {y.shape} and a Gram matrix of {gram.shape} do not fit")
    most = int(RESOLVED * len(x))
    chosen = [2**k for k in range(int(np.log2(max(most, 1))) + 1)] if samples is None else list(samples)
    require_between("the number of samples", min(chosen), 1)
    if max(chosen) > most:
        raise InvalidValue(
            f"samples are up to {max(chosen)}, but {len(x)} inputs resolve the curve up to {most} (half of them); give more "
            "inputs or ask for fewer samples"
        )
    modes = kernel_modes(gram, y)
    errors = np.array([_on_others(modes, n, len(x), ridge, noise) for n in chosen])
    labels = lambda name: {"units": "1", "long_name": name}
    found = {
        "test_error": ("samples", errors[:, 0], labels("mean squared test error")),
        "train_error": ("samples", errors[:, 1], labels("mean squared training error")),
        "kappa": (
            "samples",
            [_kappa(modes, n, ridge) for n in chosen],
            labels("effective regularisation"),
        ),
    }
    fits = {n: error for n, error in zip(chosen, errors[:, 0], strict=True) if n <= FITTED}
    check = _independent(gram, y.reshape(len(y), -1), fits, ridge, noise)
    refused = {} if check.holds else {"kernel regression": [str(check)]}
    return xr.Dataset(found, coords={"samples": chosen}, attrs={"refusals": json.dumps(refused)})


def _independent(gram: np.ndarray, y: np.ndarray, said: dict[int, float], ridge: float, noise: float) -> Check:
    """That fits to random parts of the data have the errors that were said, at each number of samples."""
    draws, worst = np.random.default_rng(0), (0.0, "there is none to be checked")
    for n, expected in said.items():
        errors = []
        for _ in range(FITS):
            order, noisy = draws.permutation(len(y)), y + noise * draws.normal(size=y.shape)
            mine, rest = order[:n], order[n:]
            values, vectors = np.linalg.eigh(gram[np.ix_(mine, mine)])
            small = values + ridge <= 1e-13 * n * (values[-1] + ridge)
            dual = vectors @ (
                np.where(small, 0.0, 1 / np.where(small, 1.0, values + ridge))[:, None] * (vectors.T @ noisy[mine])
            )
            errors.append(((gram[np.ix_(rest, mine)] @ dual - noisy[rest]) ** 2).sum(axis=1).mean())
        found, scatter = float(np.mean(errors)), float(np.std(errors, ddof=1) / FITS**0.5)
        apart = max(abs(expected - found) - 2 * scatter, 0.0) / max(found, 1e-12)
        words = f"at {n} samples fits have the error {found:.3g} ± {scatter:.2g}, the theory {expected:.3g} (more than {APART:.0%} apart)"
        worst = max(worst, (apart, words))
    return Check(worst[0] <= APART, "modes that behave as if independent, and inputs that resolve them", worst[1])
