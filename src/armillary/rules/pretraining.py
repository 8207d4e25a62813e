"""Maximum likelihood on unlabelled data, and a small predictor on labelled ones: solvers for `Solved`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from armillary.errors import InvalidValue, require_between
from armillary.models.encoder import ClusterClassifier, EncoderHead
from armillary.rules.solvers import pseudo_inverse
from armillary.tasks.data import Data, Samples
from armillary.tasks.latent import Pairs, latent


def ridge_map(samples: Samples, penalty: Any = 0.0) -> Float[Array, "output input"]:
    """The W that minimises mean |y - W x|² + penalty |W|²; of least norm at penalty 0."""
    moments = samples.inputs.T @ samples.inputs / samples.count + penalty * jnp.eye(samples.inputs.shape[1])
    return samples.targets.T @ samples.inputs / samples.count @ pseudo_inverse(moments)


def with_head(encoder: Float[Array, "factor input"], samples: Samples) -> EncoderHead:
    """The encoder under the least-squares head on these labelled samples."""
    return EncoderHead(encoder, ridge_map(Samples(samples.inputs @ encoder.T, samples.targets)))


class LeastSquares(eqx.Module):
    """Linear ridge regression on the labelled samples alone: mean squared error plus penalty times squared norm.

    The fitted network is an `EncoderHead` whose encoder is the identity. `penalty` can be swept in one program.
    """

    penalty: float = 0.0

    def __check_init__(self):
        require_between("the penalty", self.penalty, 0.0)

    def fit(self, task: Any, data: Data, network: Any, key: PRNGKeyArray) -> EncoderHead:
        return EncoderHead(jnp.eye(task.inputs), ridge_map(data.train, self.penalty))


def principal_loadings(covariance: Float[Array, "input input"], factors: int) -> Float[Array, "input factor"]:
    """Maximum likelihood of B in x ~ N(0, I + B Bᵀ): leading eigenvectors times sqrt(max(eigenvalue - 1, 0)).

    Source: Tipping & Bishop (1999), with known noise
    """
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors[:, -factors:] * jnp.sqrt(jnp.maximum(values[-factors:] - 1, 0.0))


class PrincipalFactors(eqx.Module):
    """Probabilistic principal components of the unlabelled inputs, then least squares on the `factors` found.

    Features are the latent variables' posterior means, (I + BᵀB)⁻¹ Bᵀ x; factors without variance above the noise's are
    dropped. Raises `InvalidValue` for no factors and for data without unlabelled inputs.
    """

    factors: int = eqx.field(static=True)

    def __check_init__(self):
        require_between("the number of factors", self.factors, 1)

    def fit(self, task: Any, data: Data, network: Any, key: PRNGKeyArray) -> EncoderHead:
        seen = latent(data, "PrincipalFactors")
        inputs = seen.unlabelled
        loadings = principal_loadings(inputs.T @ inputs / len(inputs), self.factors)
        return with_head(loadings.T / (1 + jnp.sum(loadings**2, axis=0))[:, None], seen.labelled)


class ContrastiveLikelihood(eqx.Module):
    """Maximum likelihood of A in P(alike) = sigmoid(<A x, A x'>) on pairs, then least squares on A x.

    By optimistix's BFGS, from entries N(0, 1/inputs). Raises `InvalidValue` for no factors, and for data without pairs.
    """

    factors: int = eqx.field(static=True)
    steps: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        require_between("the number of factors", self.factors, 1)
        require_between("steps", self.steps, 1)

    def fit(self, task: Any, data: Data, network: Any, key: PRNGKeyArray) -> EncoderHead:
        seen = latent(data, "ContrastiveLikelihood")
        if not isinstance(seen.unlabelled, Pairs):
            raise InvalidValue("ContrastiveLikelihood needs pairs; use ContrastivePairs")
        start = jax.random.normal(key, (self.factors, task.inputs)) / jnp.sqrt(float(task.inputs))

        def loss(encoder: Array, pairs: Pairs) -> Array:
            odds = jnp.sum((pairs.left @ encoder.T) * (pairs.right @ encoder.T), axis=1)
            return pairs.weight @ (jax.nn.softplus(odds) - pairs.alike * odds) / jnp.sum(pairs.weight)

        return with_head(_minimised(loss, start, seen.unlabelled, self.steps), seen.labelled)


class MixtureEM(eqx.Module):
    """Maximum likelihood of the centres of `clusters` equally frequent N(centre, I) by expectation-maximisation, then the
    majority label of each cluster.

    The best of `restarts`, each from samples of its own, the first ones; a run ends when the mean log-likelihood rises
    by less than 1e-5 in a step. Clusters without a label, or with a tie, get 1. Raises `InvalidValue` for numbers
    below 1 and for data without unlabelled inputs. Source: Dempster et al. (1977)
    """

    clusters: int = eqx.field(static=True)
    restarts: int = eqx.field(static=True, default=3)
    steps: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        for name in ("clusters", "restarts", "steps"):
            require_between(f"the number of {name}", getattr(self, name), 1)

    def fit(self, task: Any, data: Data, network: Any, key: PRNGKeyArray) -> ClusterClassifier:
        seen = latent(data, "MixtureEM")
        inputs = seen.unlabelled

        def odds(centres: Array) -> Array:
            return inputs @ centres.T - jnp.sum(centres**2, axis=1) / 2

        def better(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            step, centres, before, _ = state
            raw = odds(centres)
            shares = jax.nn.softmax(raw, axis=1)
            weight = jnp.sum(shares, axis=0)[:, None]
            moved = jnp.where(weight > 1e-6, shares.T @ inputs / jnp.maximum(weight, 1e-6), centres)
            reached = jnp.mean(jax.nn.logsumexp(raw, axis=1))
            return step + 1, moved, reached, reached - before

        def run(start: Array) -> tuple[Array, Array]:
            low = jnp.asarray(-jnp.inf, inputs.dtype)
            going = lambda state: (state[0] < self.steps) & (state[3] > 1e-5)
            _, centres, reached, _ = lax.while_loop(going, better, (jnp.zeros((), int), start, low, -low))
            return centres, reached

        wanted = self.restarts * self.clusters
        require_between("the number of unlabelled samples", len(inputs), wanted, note="restarts times clusters")
        centres, reached = jax.vmap(run)(inputs[:wanted].reshape(self.restarts, self.clusters, -1))
        return labelled_clusters(centres[jnp.argmax(reached)], seen.labelled)


def labelled_clusters(centres: Float[Array, "cluster input"], samples: Samples) -> ClusterClassifier:
    """The centres with the majority label of the samples nearest to each; targets of 0 do not count.

    Without a majority a cluster gets 1. (Where half of the clusters have either label, the majority among the others'
    labels points the wrong way.)
    """
    distance = jnp.sum(centres**2, axis=1) / 2 - samples.inputs @ centres.T
    votes = jax.nn.one_hot(jnp.argmin(distance, axis=1), len(centres)).T @ samples.targets[:, 0]
    return ClusterClassifier(centres, jnp.where(votes == 0, 1.0, jnp.sign(votes)))


class LinearClassifier(eqx.Module):
    """x -> weight x + bias, whose sign is the class."""

    weight: Float[Array, " input"]
    bias: Float[Array, ""]

    def __call__(self, x: Float[Array, " input"]) -> Float[Array, " output"]:
        return (self.weight @ x + self.bias)[None]


class LogisticRegression(eqx.Module):
    """Logistic regression on the labelled samples (targets ±1; 0 does not count): mean loss plus penalty |weight|²/2.

    By optimistix's BFGS from 0. `penalty` can be swept in one program. Raises `InvalidValue` for no positive penalty:
    without it separable data have no solution.
    """

    penalty: float = 0.01
    steps: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        require_between("the penalty", self.penalty, 0.0, open_low=True)
        require_between("steps", self.steps, 1)

    def fit(self, task: Any, data: Data, network: Any, key: PRNGKeyArray) -> LinearClassifier:
        def loss(weights: Array, samples: Samples) -> Array:
            margins = samples.targets[:, 0] * (samples.inputs @ weights[:-1] + weights[-1])
            counts = jnp.abs(samples.targets[:, 0])
            misfit = jnp.sum(counts * jax.nn.softplus(-margins)) / jnp.sum(counts)
            return misfit + self.penalty * jnp.sum(weights[:-1] ** 2) / 2

        found = _minimised(loss, jnp.zeros(task.inputs + 1), data.train, self.steps)
        return LinearClassifier(found[:-1], found[-1])


def _minimised(loss: Any, start: Array, args: Any, steps: int) -> Array:
    """Where BFGS ends: at a relative and absolute change of 1e-6, or after so many steps."""
    import optimistix  # by few, and slow to import

    solver = optimistix.BFGS(rtol=1e-6, atol=1e-6)
    return optimistix.minimise(loss, solver, start, args, max_steps=steps, throw=False).value
