"""Linear state-space layers with fixed poles: the data enter by sigma, eta and H alone (Smekal et al. 2024).

With x_n the response of pole n to the input (`responses`), sigma_n = mean y x_n and H_nm = mean x_n x_m over sequences
and times, half the mean squared error is ½ mean y² - sigma.w + ½ wᵀ H w in the end-to-end weights w_n = C_n B_n, and
gradient flow is dw_n/dt = sqrt(q_n² + 4 w_n²) (sigma - H w)_n with q_n = C_n² - B_n² conserved. Equal states of one
pole are a two-layer linear network, layers in series a deeper one.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from armillary.errors import InvalidValue, require_between
from armillary.theory.deep_linear import mode_sigmoid, mode_time, unbalanced_mode

Numbers = Any
Matrix = Float[np.ndarray, "response other_response"]


class Statistics(NamedTuple):
    """Means over sequences and times: `target` sigma [output, response], `response` H, `power` mean |y|²."""

    target: Float[np.ndarray, "output response"]
    response: Matrix
    power: float


def responses(
    inputs: Float[np.ndarray, "sequence time input"], poles: Float[np.ndarray, " pole"], *, periodic: bool = True
) -> Float[np.ndarray, "sequence time pole input"]:
    """x_t = a x_{t-1} + u_t for every pole and input, in the steady state of periodic input or from 0."""
    u, a = np.asarray(inputs, float), np.asarray(poles, float)[:, None]
    states = np.empty((u.shape[1], u.shape[0], len(a), u.shape[2]))
    state = np.zeros(states.shape[1:])
    for _ in range(2 if periodic else 1):
        for t in range(len(states)):
            states[t] = state = a * state + u[:, t, None]
        state = state / (1 - a ** len(states))  # at the end of a first pass: what repetitions would make of it
    return np.moveaxis(states, 0, 1)


def statistics(
    inputs: Float[np.ndarray, "sequence time input"], targets: Float[np.ndarray, "sequence time output"],
    poles: Float[np.ndarray, " pole"], *, periodic: bool = True, cascade: bool = False,
) -> Statistics:  # fmt: skip
    """sigma, H and the targets' power, in the time domain. Responses are ordered by pole, then by input.

    In a `cascade` the poles act one after another, and there is one response an input. `periodic` as the layer's.

    >>> u = np.array([[[1.0], [0.0], [0.0]]])
    >>> found = statistics(u, u, np.array([0.5]), periodic=False)
    >>> found.target.round(4).tolist(), found.response.round(4).tolist()
    ([[0.3333]], [[0.4375]])
    """
    x = np.asarray(inputs, float)
    if cascade:
        for pole in poles:
            x = responses(x, np.array([pole]), periodic=periodic)[:, :, 0]
    else:
        x = responses(x, poles, periodic=periodic)
    x, y = x.reshape(-1, x[0, 0].size), np.asarray(targets, float).reshape(-1, np.shape(targets)[-1])
    return Statistics(y.T @ x / len(x), x.T @ x / len(x), float((y**2).sum(axis=1).mean()))


def spectral_statistics(
    inputs: Float[np.ndarray, "sequence time"], targets: Float[np.ndarray, "sequence time"],
    poles: Float[np.ndarray, " pole"],
) -> Statistics:  # fmt: skip
    """The same for periodic sequences of one channel, as sums over frequencies: G_n(k) = 1/(1 - a_n e^(-2 pi i k/L)).

    sigma_n = Re sum conj(G_n U) Y / (P L²) and H_nm = Re sum conj(G_n) G_m |U|² / (P L²), over P sequences of length
    L: the input's phases enter neither but by the target. Source: Smekal et al. (2024), its normalisation derived here.
    """
    u, y = np.fft.fft(inputs, axis=1), np.fft.fft(targets, axis=1)
    sequences, length = u.shape
    gain = 1 / (1 - np.asarray(poles, float)[:, None] * np.exp(-2j * np.pi * np.arange(length) / length))
    scale = sequences * length**2
    sigma = (gain.conj() * (u.conj() * y).sum(axis=0)).sum(axis=1).real / scale
    response = ((gain.conj() * (np.abs(u) ** 2).sum(axis=0)) @ gain.T).real / scale
    return Statistics(sigma[None], response, float((np.abs(y) ** 2).sum() / scale))


def copies_weight(
    time: Numbers, sigma: float, eta: float, copies: int, read_in: float, read_out: float, *, tied: bool = False
) -> Numbers:
    """End-to-end weight W of `copies` states of one pole that all start at B = read_in and C = read_out.

    dW/dt = sqrt(Q² + 4 W²)(sigma - eta W) with Q = copies |read_out² - read_in²|: a two-layer linear network, logistic
    where Q = 0. Copies that are `tied`, sharing one B and one C, do the same `copies` times as fast. Derived here.

    >>> one = copies_weight(0.5, 3.0, 2.0, 1, 0.2, 0.2)
    >>> bool(np.isclose(copies_weight(0.125, 3.0, 2.0, 4, 0.1, 0.1, tied=True), one))  # W starts at 4 * 0.1² as well
    True
    """
    require_between("eta", eta, 0.0, open_low=True)
    clock = np.asarray(time, float) * eta * (copies if tied else 1)
    start, imbalance = copies * read_in * read_out, copies * abs(read_out**2 - read_in**2)
    if imbalance > 0:
        return unbalanced_mode(clock, sigma / eta, start, imbalance)
    return mode_sigmoid(clock, sigma / eta, start) if start else np.zeros_like(clock)


def copies_time(
    weight: float, sigma: float, eta: float, copies: int, read_in: float, read_out: float, *, tied: bool = False
) -> float:
    """The time at which `copies_weight` reaches `weight`, below its limit sigma/eta (both above 0).

    ln[W (sigma - eta W_0)/(W_0 (sigma - eta W))]/(2 sigma) from a balanced start, which grows as ln(1/copies); near
    1/(eta copies read_out²) from read_in 0. Raises `InvalidValue` for a weight that is not between start and limit.

    >>> [round(copies_time(0.75, 3.0, 2.0, n, 0.05, 0.05), 3) for n in (1, 16)]
    [1.066, 0.6]
    """
    start, imbalance = copies * read_in * read_out, copies * abs(read_out**2 - read_in**2)
    limit = sigma / eta
    if not start <= weight < limit:
        raise InvalidValue(f"the weight is {weight:g}, but must be at least {start:g}, the start, and below {limit:g}")
    clock = eta * (copies if tied else 1)
    if imbalance == 0:
        return float(mode_time(weight, limit, start)) / clock
    root = np.sqrt(4 * limit**2 + imbalance**2)
    high, low = (-imbalance + root) / (2 * limit), (-imbalance - root) / (2 * limit)
    passed = lambda w: np.log((t := np.tanh(np.arcsinh(2 * w / imbalance) / 2)) - low) - np.log(high - t)
    return float((passed(weight) - passed(start)) / (root * clock))


def weight_flow(
    time: Float[np.ndarray, " time"], start: Float[np.ndarray, " pole"], imbalance: Float[np.ndarray, " pole"],
    sigma: Float[np.ndarray, " pole"], response: Float[np.ndarray, "pole other"], speed: float = 1.0,
) -> Float[np.ndarray, "time pole"]:  # fmt: skip
    """End-to-end weights of a layer with one input and one output: dw/dt = speed sqrt(q² + 4 w²)(sigma - H w).

    `imbalance` is q = C² - B². A pole's equal copies count as one, with the sums of their w and q; where they are tied,
    `speed` is their number. Integrated. Derived here.

    >>> w = weight_flow(np.array([0.0, 0.5]), np.array([0.04]), np.array([0.0]), np.array([3.0]), np.array([[2.0]]))
    >>> bool(np.isclose(w[1, 0], copies_weight(0.5, 3.0, 2.0, 1, 0.2, 0.2)))
    True
    """
    h, q2 = np.asarray(response, float), np.asarray(imbalance, float) ** 2
    velocity = lambda t, w: speed * np.sqrt(q2 + 4 * w**2) * (sigma - h @ w)
    return _solved(velocity, time, np.asarray(start, float))


def factor_flow(
    time: Float[np.ndarray, " time"], read_in: Float[np.ndarray, "state input"],
    read_out: Float[np.ndarray, "output state"], found: Statistics,
) -> tuple[Float[np.ndarray, "time state input"], Float[np.ndarray, "time output state"]]:  # fmt: skip
    """B and C of a layer with any numbers of inputs and outputs, in flow time, from the statistics alone.

    `found` holds the responses of every state to every input, state by state: give `statistics` each state's pole, also
    where poles are equal. With W[o, (n, i)] = C[o, n] B[n, i] and R = sigma - W H: dB[n, i]/dt = sum_o C[o, n] R[o, (n,
    i)], dC[o, n]/dt = sum_i B[n, i] R[o, (n, i)]. Integrated. Derived here.
    """
    (states, inputs), outputs = np.shape(read_in), len(read_out)
    if found.target.shape != (outputs, states * inputs):
        raise InvalidValue(
            f"sigma is {found.target.shape}, but must be {(outputs, states * inputs)}: outputs, states times inputs"
        )

    def velocity(t: float, flat: np.ndarray) -> np.ndarray:
        b, c = flat[: states * inputs].reshape(states, inputs), flat[states * inputs :].reshape(outputs, states)
        wrong = (found.target - end_to_end_weights(b, c) @ found.response).reshape(outputs, states, inputs)
        return np.concatenate([np.einsum("on,oni->ni", c, wrong).ravel(), np.einsum("ni,oni->on", b, wrong).ravel()])

    solved = _solved(velocity, time, np.concatenate([np.ravel(read_in), np.ravel(read_out)]))
    b, c = solved[:, : states * inputs], solved[:, states * inputs :]
    return b.reshape(-1, states, inputs), c.reshape(-1, outputs, states)


def end_to_end_weights(
    read_in: Float[np.ndarray, "*time state input"], read_out: Float[np.ndarray, "*time output state"]
) -> Float[np.ndarray, "*time output response"]:
    """W[o, (n, i)] = C[o, n] B[n, i]: the map from every state's responses to the outputs."""
    every = read_out[..., None] * read_in[..., None, :, :]
    return every.reshape(*every.shape[:-2], -1)


def quadratic_loss(weights: Float[np.ndarray, "time output response"], found: Statistics) -> Float[np.ndarray, " time"]:
    """½ mean |y|² - <sigma, W> + ½ <W, W H>: half the mean squared error of the end-to-end weights."""
    w = np.asarray(weights, float)
    return 0.5 * found.power - (w * found.target).sum((1, 2)) + 0.5 * (w * (w @ found.response)).sum((1, 2))


def of_copies(found: Statistics, states: int) -> Statistics:
    """The statistics of `states` states of one pole, from those of one of them: all respond alike."""
    return Statistics(np.tile(found.target, (1, states)), np.tile(found.response, (states, states)), found.power)


class LeadingMode(NamedTuple):
    """The strongest mode of sigma: what is learned first from small weights. See `leading_mode`."""

    left: Float[np.ndarray, " output"]
    right: Float[np.ndarray, " input"]
    sigma: float
    limit: float
    half_time: float


def leading_mode(
    found: Statistics, read_in: Float[np.ndarray, "state input"], read_out: Float[np.ndarray, "output state"]
) -> LeadingMode:
    """When a layer with one pole learns the strongest mode of its sigma, as if the mode were alone.

    `found` are the statistics of one state; `left` u and `right` v are sigma's first singular vectors, `limit` the
    strength at which the mode alone would end, sigma/eta with eta = vᵀ H v. The part of B and C in which the two agree
    grows as exp(sigma t), so that the mode starts at w_0 = |B v + Cᵀ u|²/4 and reaches half its limit at ln(limit/w_0 -
    1)/(2 sigma). Exact for balanced weights behind a whitened input; elsewhere an estimate. Derived here.
    """
    left, sigma, right = np.linalg.svd(found.target)
    u, v, strongest = left[:, 0], right[0], float(sigma[0])
    limit = strongest / float(v @ found.response @ v)
    begin = float(np.sum((read_in @ v + read_out.T @ u) ** 2)) / 4
    return LeadingMode(u, v, strongest, limit, float(np.log(limit / begin - 1)) / (2 * strongest))


def _solved(velocity: Any, time: np.ndarray, begin: np.ndarray) -> np.ndarray:
    from scipy.integrate import solve_ivp  # loads slowly

    time = np.asarray(time, float)
    return solve_ivp(velocity, (0.0, float(time[-1])), begin, "LSODA", time, rtol=1e-10, atol=1e-13).y.T
