"""Training of infinitely wide networks, in function space: at every time, mean and covariance over all initial weights.

Under the squared error outputs follow df/dt = -K (f - y), K the tangent kernel, and each of its eigenvectors relaxes alone.
The network at the start is a Gaussian process with the NNGP kernel; what training makes of it is linear in it, and again
Gaussian. Sources: Jacot, Gabriel & Hongler (2018); Lee et al. (2019). Momentum by its two-term recursion, derived here.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from armillary.errors import InvalidValue, require_between
from armillary.theory.kernels.gram import Kernel

Rule = Literal["flow", "descent", "momentum"]
Trained = Literal["all", "readout"]

SINGULAR = 1e-12
"""Eigenvalues below this share of the largest one are directions that the kernel does not see."""


class Relaxation(NamedTuple):
    """Of kernel eigenvalues at times, float[time, mode]: what is left of a residual, and (1 - that)/eigenvalue."""

    left: Float[np.ndarray, "time mode"]
    gain: Float[np.ndarray, "time mode"]


def relaxation(
    eigenvalues: Float[np.ndarray, " mode"], times: Sequence[float] | np.ndarray, rule: Rule = "flow",
    learning_rate: float = 1.0, momentum: float = 0.0,
) -> Relaxation:  # fmt: skip
    """How far each mode has relaxed: exp(-rate lambda t) in a flow, (1 - rate lambda)^t in descent by steps, and with heavy-ball
    momentum b the recursion r_{t+1} = (1 + b - rate lambda) r_t - b r_{t-1}.

    Times are flow times (inf for the end) or whole steps. Raises `InvalidValue` for unknown rules, negative times and
    fractions of steps.

    >>> print(relaxation(np.array([0.0, 0.5]), [2.0], "descent").left)
    [[1.   0.25]]
    """
    times, values = np.asarray(times, float), np.clip(np.asarray(eigenvalues, float), 0.0, None)
    require_between("the earliest time", float(times.min()), 0.0)
    require_between("learning_rate", learning_rate, 0.0)
    require_between("momentum", momentum, 0.0, 1.0)
    if rule not in ("flow", "descent", "momentum"):
        raise InvalidValue(f"rule is {rule!r}, but must be 'flow', 'descent' or 'momentum'")
    if rule == "flow":
        with np.errstate(invalid="ignore"):
            exponent = np.where(values > 0, learning_rate * values * times[:, None], 0.0)
        left, lost = np.exp(-exponent), -np.expm1(-exponent)
        early = learning_rate * times[:, None] * np.ones_like(values)
    else:
        if np.any(times != np.round(times)) or not np.all(np.isfinite(times)):
            raise InvalidValue("times are steps of descent, and must be whole numbers; use rule='flow' for others")
        left = _steps(learning_rate * values, times.astype(int), momentum if rule == "momentum" else 0.0)
        lost = 1 - left
        # Of a mode with eigenvalue 0, that limit: what a constant slope adds up to.
        tiny = 1e-9
        early = (1 - _steps(np.full(1, tiny), times.astype(int), momentum if rule == "momentum" else 0.0)) / tiny
        early = learning_rate * early * np.ones_like(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = np.where(values > 0, lost / np.where(values > 0, values, 1.0), early)
    return Relaxation(left, gain)


def _steps(rates: np.ndarray, steps: np.ndarray, momentum: float) -> np.ndarray:
    """What is left of a residual after so many steps, float[time, mode]: a power of the recursion's matrix."""
    if not momentum:
        return (1 - rates) ** steps[:, None]
    matrix = np.zeros((len(rates), 2, 2))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0] = 1 + momentum - rates, -momentum, 1.0
    rows = []
    for step in steps:  # r_1 = (1 - rate) r_0, as if r_{-1} were r_0
        power = np.linalg.matrix_power(matrix, int(step))
        rows.append(power[:, 0, 0] + power[:, 0, 1])
    return np.array(rows)


def largest_stable_rate(eigenvalues: Float[np.ndarray, " mode"], momentum: float = 0.0) -> float:
    """The learning rate above which descent diverges: 2 (1 + momentum)/(largest eigenvalue).

    >>> largest_stable_rate(np.array([4.0, 1.0]))
    0.5
    """
    return float(2 * (1 + momentum) / np.max(eigenvalues))


def stable_modes(
    gram: Float[np.ndarray, "sample sample"], rule: Rule, learning_rate: float, momentum: float, slower: int = 1
) -> tuple[Float[np.ndarray, " mode"], Float[np.ndarray, "sample mode"]]:
    """A Gram matrix's eigenvalues, the smallest first and 0 where they are rounding, and its eigenvectors.

    Raises `InvalidValue` for a rate, divided by `slower`, at which descent along them diverges.
    """
    values, vectors = np.linalg.eigh(np.asarray(gram, float))
    values = np.where(values > SINGULAR * values[-1], values, 0.0)
    most = largest_stable_rate(values, momentum if rule == "momentum" else 0.0) * slower
    if rule != "flow" and learning_rate >= most:
        raise InvalidValue(f"learning_rate is {learning_rate:g}, but descent diverges from {most:.4g} on; take less")
    return values, vectors


def trained_ensemble(
    kernel: Kernel,
    inputs: Any,
    targets: Any,
    test_inputs: Any,
    times: Sequence[float] | np.ndarray,
    *,
    rule: Rule = "flow",
    learning_rate: float = 1.0,
    momentum: float = 0.0,
    trained: Trained = "all",
    centred: bool = False,
    per_sample: bool = False,
    covariance: bool = False,
    memory: float = 1e9,
) -> xr.Dataset:
    """All networks of a kernel's architecture, trained on the squared error ½ sum (f - y)² of all samples, at `times`.

    - `inputs` [sample, ...], `targets` [sample] or [sample, output], `test_inputs` [test_sample, ...].
    - `rule`: "flow" (times are flow times; inf for the end), "descent" or "momentum" (times are steps), at `learning_rate`.
    - `per_sample`: the loss is the mean over samples, so that all is slower by their number.
    - `trained`: "readout" trains the last layer only; its end is the NNGP's Bayesian posterior (the tangent kernel's is
      not a posterior).
    - `centred`: each network's own output at the start is subtracted from it; then there is no variance.
    - `covariance`: also between all pairs of test inputs.

    Returns `train_mean`, `train_variance` [time, sample(, output)], `test_mean`, `test_variance` [time, test_sample(,
    output)], `test_covariance` [time, test_sample, other] and the kernel's `eigenvalues` [mode], in float64. Outputs are
    independent and have one variance. Cost: samples³ once and samples² test samples a time.

    Raises `InvalidValue` for shapes that do not fit, no samples, a rate above `largest_stable_rate`, and for times inf
    where samples that the kernel cannot tell apart have different targets.

    >>> from armillary.theory.kernels import Dense
    >>> said = trained_ensemble(Kernel(Dense()), np.eye(2), [1.0, -1.0], np.eye(2), [0.0, np.inf])
    >>> print(said.test_mean.values.round(6).tolist())
    [[0.0, 0.0], [1.0, -1.0]]
    """
    x, tests = np.asarray(inputs, float), np.asarray(test_inputs, float)
    y = np.asarray(targets, float)
    if not len(x) or len(y) != len(x) or y.ndim not in (1, 2):
        raise InvalidValue(
            f"there are {len(x)} inputs and targets of shape {y.shape}; give one target for each, and one or more"
        )
    if trained not in ("all", "readout"):
        raise InvalidValue(f"trained is {trained!r}, but must be 'all' or 'readout'")
    gram, cross = kernel(x, memory=memory), kernel(tests, x, memory=memory)
    moving = (gram.nngp, cross.nngp) if trained == "readout" else (gram.ntk, cross.ntk)
    slower = len(x) if per_sample else 1
    values, vectors = stable_modes(moving[0], rule, learning_rate, momentum, slower)
    rate = learning_rate / slower
    along = vectors.T @ y.reshape(len(y), -1)  # [mode, output]
    if np.isinf(times).any() and np.abs(along[values == 0]).max(initial=0.0) > 1e-6 * np.abs(y).max():
        raise InvalidValue(
            f"the kernel does not see {int((values == 0).sum())} directions in which the targets differ (equal samples with "
            "different targets?): training never ends there; give finite times or a kernel of full rank"
        )
    course = relaxation(values, times, rule, rate, momentum)
    seen_test = moving[1] @ vectors  # [test_sample, mode]
    seen_train = vectors * values
    one = "output" if y.ndim == 2 else None
    tests_own = kernel.nngp(tests, memory=memory) if covariance else kernel.diagonal(tests, memory).nngp
    starts = [
        (gram.nngp, np.diag(gram.nngp), seen_train, "sample", "train"),
        (cross.nngp, tests_own, seen_test, "test_sample", "test"),
    ]
    found: dict[str, Any] = {"eigenvalues": (("mode",), values[::-1], _labels("eigenvalues of the training kernel"))}
    rotated = vectors.T @ gram.nngp @ vectors
    for start, own, seen, dim, name in starts:
        means = np.stack([seen @ (gain[:, None] * along) for gain in course.gain])
        dims = ("time", dim, "output") if one else ("time", dim)
        where = "training" if name == "train" else "test"
        found[f"{name}_mean"] = (dims, means if one else means[..., 0], _labels(f"mean output on {where} inputs"))
        if not centred:
            wide = covariance and name == "test"
            spread = np.stack(
                [_covariance(start @ vectors, own, seen * gain, rotated, full=wide) for gain in course.gain]
            )
            if wide:
                found["test_covariance"] = (
                    ("time", dim, "other"),
                    spread,
                    _labels("covariance of outputs on test inputs"),
                )
                spread = np.diagonal(spread, axis1=1, axis2=2)
            spread = np.maximum(spread, 0.0)
            found[f"{name}_variance"] = (("time", dim), spread, _labels(f"variance of the output on {where} inputs"))
    return xr.Dataset(found, coords={"time": np.asarray(times, float)})


def _labels(name: str) -> dict[str, str]:
    return {"units": "1", "long_name": name}


def _covariance(
    start: np.ndarray, own: np.ndarray, moved: np.ndarray, rotated: np.ndarray, *, full: bool
) -> np.ndarray:
    """K + M K M' - M K' - K M' in the kernel's eigenbasis: `start` [point, mode], `moved` M [point, mode]."""
    if full:
        crossed = moved @ start.T
        return own + moved @ rotated @ moved.T - crossed - crossed.T
    return own + np.einsum("pm,pm->p", moved @ rotated, moved) - 2 * np.einsum("pm,pm->p", moved, start)


def softmax_training(
    gram: Float[np.ndarray, "sample sample"],
    labels: Any,
    cross: Float[np.ndarray, "test_sample sample"],
    times: Sequence[float] | np.ndarray,
    *,
    outputs: int | None = None,
    start: Any = None,
    tolerance: float = 1e-8,
) -> xr.Dataset:
    """Outputs of a lazy network under the cross-entropy: df/dt = -K (softmax(f) - onehot), integrated by diffrax.

    `gram` and `cross` are tangent kernels [sample, sample], [test_sample, sample]; `labels` class numbers [sample];
    `start` the outputs at the start, [sample + test_sample, output] (0 unless given). The loss is summed over samples.
    Returns `train_outputs` [time, sample, output], `test_outputs` and `train_loss` [time]. Raises `InvalidValue` for labels
    that are no class numbers and times that do not increase.

    >>> said = softmax_training(np.eye(2), [0, 1], np.eye(2), [0.0, 1e3])
    >>> print(said.train_loss.values.round(2))
    [1.39 0.  ]
    """
    import diffrax
    import jax
    import jax.numpy as jnp

    labels, times = np.asarray(labels), np.asarray(times, float)
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or len(labels) != len(gram):
        raise InvalidValue(
            f"labels are {labels.dtype}{list(labels.shape)}, but must be {len(gram)} class numbers from 0 up"
        )
    if np.any(np.diff(times) <= 0) or times[0] < 0:
        raise InvalidValue("times must increase, from 0 or later")
    count = int(labels.max()) + 1 if outputs is None else outputs
    rows = len(gram) + len(cross)
    begin = np.zeros((rows, count)) if start is None else np.asarray(start, float).reshape(rows, count)
    onehot = np.eye(count)[labels]
    with jax.enable_x64(True):
        kernel, first = jnp.asarray(gram), jnp.asarray(begin[: len(gram)])
        # The weights of the kernel's expansion are what moves: the test outputs then follow by one product.
        slope = lambda t, pull, args: onehot - jax.nn.softmax(first + kernel @ pull, axis=-1)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope), diffrax.Tsit5(), 0.0, max(float(times[-1]), 1e-12), None, jnp.zeros_like(first),
            saveat=diffrax.SaveAt(ts=jnp.asarray(times)), max_steps=1_000_000, adjoint=diffrax.ForwardMode(),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance * 1e-2),
        )  # fmt: skip
        assert solution.ys is not None
        pulls = np.asarray(solution.ys)
    train, test = (begin[a] + k @ pulls for a, k in ((slice(0, len(gram)), gram), (slice(len(gram), None), cross)))
    largest = train.max(axis=-1, keepdims=True)
    logits = train - largest - np.log(np.exp(train - largest).sum(axis=-1, keepdims=True))
    loss = -np.take_along_axis(logits, np.broadcast_to(labels[None, :, None], (*train.shape[:2], 1)), axis=-1).sum(
        (1, 2)
    )
    found = {
        "train_outputs": (("time", "sample", "output"), train, _labels("output on training inputs")),
        "test_outputs": (("time", "test_sample", "output"), test, _labels("output on test inputs")),
        "train_loss": ("time", loss, _labels("training loss")),
    }
    return xr.Dataset(found, coords={"time": times})
