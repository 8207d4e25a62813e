"""Wide and deep classifiers: kernels of any depth against plain recursions, psi, the taxonomy, votes, tasks, refusals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import dirichlet

import armillary as arm
from armillary.errors import InvalidValue, ProbeError
from armillary.models import MLP, Polynomial
from armillary.models.activations import Hermite
from armillary.models.radial_kernel import NODES, RadialKernel, distance_kernel
from armillary.models.tangent_kernel import LinearKernel
from armillary.prediction import refusals
from armillary.probes import EmpiricalTangentKernel, NetworkOutputs
from armillary.probes.agreement import Agreement, TestFit
from armillary.rules import Descent
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.rules.votes import BayesClassifier, KernelVote
from armillary.tasks import Data, GivenSamples, LinearTeacher, Samples
from armillary.tasks.sphere import ArcRegions, DirichletClasses
from armillary.theory.kernels import dual, kernel
from armillary.theory.kernels.depth import DeepKernel, dual_at, logarithms
from armillary.theory.kernels.taxonomies import (
    koenigs,
    koenigs_kernel,
    limit_kernel,
    log_koenigs,
    optimal_activation,
    singular_order,
    taxonomy,
)
from armillary.theory.wide_deep import WideDeepLimit, activation_of, shape_distance

PLANE = optimal_activation(2)
MAJORITY = Hermite((0.1**0.5, 0.3**0.5, 0.0, 0.6**0.5))
NEAREST = Hermite((0.0, 0.0, 1.0))
XI = np.array([0.3, 0.8, 0.99, -0.4])
NAME = "wide and deep classifiers"
UNSET: Any = None
SUM: Any = "sum"


def circle(xi):
    return np.array([[1.0, 0.0]]), np.stack([xi, np.sqrt(1 - xi**2)], axis=1)


def recursion(g, slope, xi, depth):
    """S and K, as the definitions have them."""
    s = k = xi
    for _ in range(depth):
        s, k = g(s), g(s) + k * slope(s)
    return s, k


@pytest.mark.parametrize("phi", [NEAREST, MAJORITY, PLANE, optimal_activation(4)], ids=["h2", "majority", "D=2", "D=4"])
@pytest.mark.parametrize("depth", [0, 1, 5, 40])
def test_deep_kernels_equal_the_plain_recursion(phi, depth):
    g = np.polynomial.Polynomial(np.square(phi.coefficients))
    wanted = recursion(g, g.deriv(), XI, depth)
    if phi is NEAREST and depth == 40:
        wanted = recursion(g, g.deriv(), XI, depth := 6)  # beyond, the plain one underflows
    for tangent, expected in zip((0.0, 1.0), wanted, strict=True):
        size, sign = logarithms(DeepKernel(phi, depth, tangent), *circle(XI))
        np.testing.assert_allclose((sign * np.exp(size))[0], expected, rtol=1e-11)


def test_named_activations_have_their_closed_duals():
    found = logarithms(DeepKernel("erf", 7, 0.0), *circle(XI))
    g = lambda xi: np.arcsin(2 * xi / 3) / np.arcsin(2 / 3)
    slope = lambda xi: 2 / 3 / np.sqrt(1 - 4 * xi**2 / 9) / np.arcsin(2 / 3)
    s, k = recursion(g, slope, XI, 7)
    np.testing.assert_allclose((found[1] * np.exp(found[0]))[0], s, rtol=1e-10)
    size, sign = logarithms(DeepKernel("erf", 7), *circle(XI))
    np.testing.assert_allclose((sign * np.exp(size))[0], k, rtol=1e-10)


def test_depth_never_underflows_and_equal_inputs_are_exact():
    size, _ = logarithms(DeepKernel(NEAREST, 60, 0.0), *circle(np.array([0.95])))
    assert np.isclose(size[0, 0], 2.0**60 * np.log(0.95), rtol=1e-9)
    x = np.random.default_rng(0).dirichlet((1.0, 2.0, 3.0), 5)
    own = np.diag(logarithms(DeepKernel(PLANE, 400), x, x)[0])
    np.testing.assert_allclose(own, np.log(2.0) * 401 + np.log1p(-(2.0**-401)), rtol=1e-12)
    with jax.enable_x64(True):
        rows = np.asarray(DeepKernel(PLANE, 400, scaled=True)(jnp.asarray(x), jnp.asarray(x)))
    np.testing.assert_allclose(np.diag(rows), 1.0)


def test_the_kernel_of_a_model_is_that_of_its_depth():
    points = np.random.default_rng(0).dirichlet((1.0, 2.0, 3.0), 4)
    points *= np.sqrt(3) / np.linalg.norm(points, axis=1, keepdims=True)
    for hidden in (1, 3):
        model = MLP(8, hidden + 1, MAJORITY, "ntk", bias=False, gain=1.0)
        size, sign = logarithms(DeepKernel(MAJORITY, hidden), points, points)
        np.testing.assert_allclose(kernel(model).ntk(points), sign * np.exp(size), rtol=1e-9)


def test_networks_of_finite_width_have_it_on_average():
    points = np.array([[1.0, 1.0], [1.4, 0.2], [0.2, 1.4]])
    task = GivenSamples(points, np.zeros(3))
    phi = Hermite((0.0, 0.6, 0.8))
    model = MLP(256, 2, phi, "ntk", bias=False, gain=1.0)
    experiment = arm.Experiment(task, model, Descent(steps=0), [EmpiricalTangentKernel(3)], arm.At((0,)))
    found = arm.simulate(experiment, seeds=60).tangent_kernel.isel(time=0)
    size, sign = logarithms(DeepKernel(phi, 1), points, points)
    lengths = np.linalg.norm(points, axis=1) / np.sqrt(2)
    wanted = kernel(model).ntk(points)
    assert np.abs((found.mean("seed") - wanted) / (found.std("seed") / 60**0.5)).max() < 4
    unit = points / lengths[:, None]
    np.testing.assert_allclose(kernel(model).ntk(unit), sign * np.exp(size), rtol=1e-9)


def test_hermite_lists_have_exact_duals_at_any_variance():
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    phi = Hermite((0.2, 0.3, 0.5, 0.0, 0.4))
    slope = jax.vmap(jax.grad(phi))
    q, p, c = 1.3, 0.7, 0.5
    u = q**0.5 * z[:, None] + 0 * z
    v = c / q**0.5 * z[:, None] + (p - c**2 / q) ** 0.5 * z
    with jax.enable_x64(True):
        at = lambda f, a: np.asarray(f(jnp.asarray(a.ravel()))).reshape(a.shape)
        wanted = [np.einsum("i,j,ij", w, w, at(f, u) * at(f, v)) for f in (phi, slope)]
        found = dual(phi).pair(*map(jnp.asarray, (q, p, c)))
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
        same = [w @ at(f, q**0.5 * z) ** 2 for f in (phi, slope)]
        np.testing.assert_allclose(dual(phi).same(jnp.asarray(q)), same, rtol=1e-10)
        np.testing.assert_allclose(Hermite((0.0, 0.0, 2**0.5))(jnp.asarray(z)), Polynomial((-1.0, 0.0, 1.0))(jnp.asarray(z)), rtol=1e-12, atol=1e-12)  # fmt: skip


@pytest.mark.parametrize(
    "phi", [optimal_activation(1), PLANE, optimal_activation(4), "erf"], ids=["1", "2", "4", "erf"]
)
def test_psi_solves_koenigs_equation_and_is_the_limit_of_the_covariance(phi):
    linear = taxonomy(phi).linear
    g = np.exp(logarithms(DeepKernel(phi, 1, 0.0), *circle(XI[:3]))[0][0])
    np.testing.assert_allclose(koenigs(phi, g), linear * koenigs(phi, XI[:3]), rtol=1e-8)
    assert np.isclose(koenigs(phi, 1e-5), 1e-5, rtol=1e-4) and koenigs(phi, 1.0) == np.inf
    deep = logarithms(DeepKernel(phi, 300, 0.0), *circle(XI))
    np.testing.assert_allclose((deep[1] * np.exp(deep[0] - 300 * np.log(linear)))[0], koenigs(phi, XI), rtol=1e-8)


def test_psi_is_as_singular_as_its_order_says():
    known = {1: (0.507951, 1.530722), 2: (0.713599, 5.591164), 4: (2.529927, 128.4959)}
    for dimension, values in known.items():
        phi = optimal_activation(dimension)
        np.testing.assert_allclose(koenigs(phi, [0.5, 0.9]), values, rtol=1e-5)
        # The power law is modulated by some 1e-4 with the period log g'(1): measured over whole periods.
        ratio = taxonomy(phi).slope ** 5
        low, high = log_koenigs(phi, [1e-25, ratio * 1e-25])[0]
        assert np.isclose(2 * (low - high) / np.log(ratio), dimension, rtol=1e-6)
        assert np.isclose(taxonomy(phi).order, dimension)
    np.testing.assert_allclose(koenigs("erf", [0.5, 0.9]), [0.568697, 1.887974], rtol=1e-5)
    assert np.isclose(singular_order(0.25, 1.75), 2 * np.log(4) / np.log(1.75))


def test_the_table_is_psi():
    size, sign = logarithms(koenigs_kernel(PLANE), *circle(XI))
    np.testing.assert_allclose((sign * np.exp(size))[0], koenigs(PLANE, XI), rtol=1e-3)


def test_the_taxonomy_knows_its_classes():
    kinds = {NEAREST: "nearest neighbour", MAJORITY: "majority", PLANE: "singular kernel", "relu": "slow majority",
             "cos": "none", "linear": "none", "sin": "singular kernel", "gelu": "majority"}  # fmt: skip
    assert {phi: taxonomy(phi).kind for phi in kinds} == kinds
    root = np.roots([0.6, 0.0, -0.7, 0.1])
    assert np.isclose(taxonomy(MAJORITY).fixed_point, min(root[root > 0]), atol=1e-9)
    assert np.isclose(taxonomy("erf").order, 0.888, atol=1e-3) and np.isclose(taxonomy("sin").order, 1.19, atol=5e-3)
    doubled = Hermite(tuple(2 * a for a in PLANE.coefficients))
    assert np.isclose(taxonomy(doubled).order, 2.0)  # the root mean square is divided out


def test_cos_is_no_majority_though_its_mean_is_not_zero():
    data = DirichletClasses(samples=60, test_samples=100).draw(jax.random.key(0))
    with jax.enable_x64(True):
        fit = lambda data: KernelRidge().fit(DirichletClasses(), data, DeepKernel("cos", 60), jax.random.key(0))
        decide = eqx.filter_jit(lambda data: jax.vmap(fit(data))(data.test.inputs))
        said = np.asarray(decide(_in_float64(data)))[:, 0]
    assert np.mean(np.sign(said) == np.sign(float(data.train.targets.sum()))) < 0.9
    with pytest.raises(InvalidValue, match=r"outside the taxonomy: g'\(1\) is 0.762"):
        limit_kernel("cos")


def _in_float64(data):
    return jax.tree.map(lambda a: jnp.asarray(a, float), data)


def test_votes_are_the_classical_classifiers():
    data = ArcRegions(samples=60, test_samples=40).draw(jax.random.key(1))
    x, y, test = (np.asarray(a, float) for a in (data.train.inputs, data.train.targets, data.test.inputs))
    apart = np.linalg.norm(test[:, None] - x, axis=-1)
    vote = lambda order: np.asarray(
        jax.jit(jax.vmap(KernelVote().fit(ArcRegions(), data, distance_kernel(order), jax.random.key(0))))(
            data.test.inputs
        )
    )
    with jax.enable_x64(True):
        np.testing.assert_allclose(vote(0.0), y.mean(), rtol=1e-5)
        np.testing.assert_allclose(vote(1.0)[:, 0], (1 / apart) @ y[:, 0] / (1 / apart).sum(axis=1), atol=1e-2)
        assert (np.sign(vote(np.inf)[:, 0]) == y[apart.argmin(axis=1), 0]).mean() > 0.97


def test_equal_inputs_outvote_all_others():
    x = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    data = Data(Samples(x, jnp.array([[1.0], [-1.0], [1.0], [-1.0]])))
    network = KernelVote().fit(ArcRegions(), data, distance_kernel(2.0), jax.random.key(0))
    np.testing.assert_allclose(network(jnp.array([2.0, 0.0])), [1 / 3], rtol=1e-5)


def test_antipodal_samples_vote_with_the_opposite_sign():
    data = Data(Samples(jnp.array([[1.0, 0.0]]), jnp.array([[1.0]])))
    network = KernelVote().fit(ArcRegions(), data, koenigs_kernel(PLANE), jax.random.key(0))
    assert network(jnp.array([-0.8, 0.6])) < 0 < network(jnp.array([0.8, 0.6]))


def test_dirichlet_classes_know_their_bayes_classifier():
    task = DirichletClasses(samples=4000, prior=0.4)
    train = task.draw(jax.random.key(0)).train
    x, y = np.asarray(train.inputs, float), np.asarray(train.targets)[:, 0]
    simplex = x / x.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(simplex[y < 0].mean(axis=0), np.array([2, 1, 1.5]) / 4.5, atol=0.02)
    np.testing.assert_allclose(simplex[y > 0].mean(axis=0), np.array([1, 2, 1.5]) / 4.5, atol=0.02)
    assert abs((y < 0).mean() - 0.4) < 0.03
    few = simplex[:50] / simplex[:50].sum(axis=1, keepdims=True)
    ratio = [0.6 * dirichlet.pdf(s, (1, 2, 1.5)) - 0.4 * dirichlet.pdf(s, (2, 1, 1.5)) for s in few]
    np.testing.assert_array_equal(np.asarray(task.bayes(train.inputs[:50])), np.sign(ratio))
    both = DirichletClasses(samples=7, targets="product").draw(jax.random.key(0)).train
    np.testing.assert_allclose(both.targets[:, 0], 4 * both.inputs[:, 0] * both.inputs[:, 1] - 1, rtol=1e-5)
    np.testing.assert_array_equal(both.targets[:, 1], np.sign(both.targets[:, 0]))


def test_the_arc_has_its_regions_and_its_wrong_labels():
    task = ArcRegions(samples=4000, test_samples=1200)
    data = task.draw(jax.random.key(0))
    angle = np.arctan2(data.test.inputs[:, 1], data.test.inputs[:, 0])
    np.testing.assert_array_equal(data.test.targets[:, 0], np.where((12 * angle / np.pi) % 1 < 0.25, -1, 1))
    assert np.isclose(float((data.test.targets < 0).mean()), 0.25, atol=1e-3)
    wrong = np.asarray(task.bayes(data.train.inputs) != data.train.targets[:, 0]).mean()
    assert abs(wrong - 0.2) < 0.02


def deep(phi=PLANE, depth=20, tangent=0.0, solver=None, samples=30, reference=None):
    task = DirichletClasses(samples=samples, test_samples=50)
    probes = [Agreement(KernelVote(), {"limit": koenigs_kernel(PLANE) if reference is None else reference})]
    model = DeepKernel(phi, depth, tangent, scaled=True) if phi else LinearKernel()
    return arm.Experiment(task, model, Solved(solver or KernelRidge()), probes, arm.At((0,)), precision="float64")


def test_prediction_and_measurement_agree_where_all_assumptions_hold():
    experiment = deep()
    said = arm.predict(experiment)
    assert said.limit_agreement.item() == 1.0
    seen = arm.simulate(experiment, seeds=3)
    assert float(seen.limit_agreement.mean()) > 0.97
    assert float(seen.limit_balanced_agreement.mean()) > 0.95
    assert isinstance(WideDeepLimit(), arm.theory.Theory)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"depth": 3}, "depth at which the kernel has the shape"),
        ({"tangent": 1.0, "depth": 20}, "depth at which the kernel has the shape"),
        ({"samples": 3000, "depth": 14}, "nearly diagonal Gram matrix"),
        ({"phi": "cos", "depth": 30}, "its class is 'none': g'(1) is 0.762"),
        ({"phi": None}, "a kernel of deep networks; this is LinearKernel"),
        ({"reference": distance_kernel(1.0)}, "an Agreement with the limit's classifier"),
        ({"solver": BayesClassifier()}, "interpolation or a vote; this is BayesClassifier"),
    ],
)
def test_each_assumption_is_refused_by_a_near_miss(changed, words):
    said = arm.predict(deep(**changed))
    assert not len(said) and words in " ".join(refusals(said)[NAME])


def test_shapes_near_their_limits():
    assert shape_distance(DeepKernel(PLANE, 40, 0.0))[0] < 1e-3  # the table's interpolation
    assert shape_distance(DeepKernel(MAJORITY, 40))[0] < 1e-6
    assert shape_distance(DeepKernel(NEAREST, 12))[0] < 1e-6
    assert taxonomy(activation_of(DeepKernel(MAJORITY, 3))).kind == "majority"


def test_references_of_one_kind_share_a_program_and_change_nothing(unchecked):
    task = DirichletClasses(samples=30, test_samples=50)
    data = task.draw(jax.random.key(0))
    kernels = {"nearest": distance_kernel(np.inf), "majority": distance_kernel(0.0), "Hilbert": distance_kernel(1.0)}
    network = KernelRidge().fit(task, data, DeepKernel(PLANE, 3), jax.random.key(0))
    look = lambda models: arm.probe(network, [Agreement(KernelVote(), models)], data=data)
    together = look(kernels)
    assert len({together[f"{name}_agreement"].item() for name in kernels}) == 3
    for name, reference in kernels.items():
        alone = look({name: reference})
        for quantity in (f"{name}_agreement", f"{name}_balanced_agreement"):
            assert together[quantity].item() == alone[quantity].item()
    mixed = look({"deep": DeepKernel(MAJORITY, 10, scaled=True), "majority": kernels["majority"]})
    assert mixed.majority_agreement.item() == together.majority_agreement.item()


def test_duals_are_numbers_also_where_something_is_traced():
    seen = []

    def asked(x):
        seen.append((dual_at("erf", np.array([0.5]))[0], taxonomy("relu").slope, DeepKernel("gelu", 3.0).depth))
        return x

    jax.jit(jax.vmap(asked))(jnp.ones(2))
    [(value, slope, _)] = seen
    np.testing.assert_allclose(value, np.arcsin(1 / 3) / np.arcsin(2 / 3), rtol=1e-12)
    assert slope == pytest.approx(1.0, abs=1e-12)


def test_agreement_counts_decisions():
    task = ArcRegions(samples=50, share=0.3, test_samples=100)
    probes = [Agreement(BayesClassifier(), {"bayes": None}), Agreement(KernelVote(), {"majority": distance_kernel(0.0)}), TestFit(), NetworkOutputs(100)]  # fmt: skip
    experiment = arm.Experiment(task, koenigs_kernel(optimal_activation(1)), Solved(KernelVote()), probes, arm.At((0,)))
    seen = arm.simulate(experiment, seeds=2).isel(time=0)
    said = np.where(seen.test_outputs.isel(output=0) < 0, -1, 1)
    bayes = np.asarray(task.bayes(task.draw(jax.random.key(0)).test.inputs))
    np.testing.assert_allclose(seen.bayes_agreement, (said == bayes).mean(axis=1), rtol=1e-6)
    balanced = [(said == bayes)[:, bayes == side].mean(axis=1) for side in (-1, 1)]
    np.testing.assert_allclose(seen.bayes_balanced_agreement, np.mean(balanced, axis=0), rtol=1e-6)
    np.testing.assert_allclose(seen.sign_accuracy.isel(output=0), seen.bayes_agreement, rtol=1e-6)
    wrong = ((seen.test_outputs.isel(output=0).values - bayes) ** 2).mean(axis=1)
    np.testing.assert_allclose(seen.r_squared.isel(output=0), 1 - wrong / bayes.var(), rtol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Hermite(()), "the number of coefficients is 0"),
        (lambda: DeepKernel(Hermite((0.0, 0.0)), 2), "all Hermite coefficients are 0"),
        (lambda: DeepKernel(PLANE, -1), "the depth is -1"),
        (lambda: DeepKernel(PLANE, 2000), "the depth is 2000, but must be at least 0 and at most 1009"),
        (lambda: DeepKernel("sign", 2), "jumps"),
        (lambda: taxonomy("rellu"), "unknown activation"),
        (lambda: log_koenigs(MAJORITY, 0.5), "has no Koenigs function: it is of the class 'majority'"),
        (lambda: log_koenigs(PLANE, 3.0), "the gap 1 - xi is 3"),
        (lambda: optimal_activation(0), "the dimension is 0"),
        (lambda: distance_kernel(-1.0), "the order is -1"),
        (lambda: RadialKernel(np.zeros(3), np.ones(NODES)), "sizes has shape"),
        (lambda: DirichletClasses((1.0, 2.0), (1.0, 2.0, 3.0)), "2 and 3 parameters"),
        (lambda: DirichletClasses(targets=SUM), "unknown targets 'sum'"),
        (lambda: ArcRegions(flip=0.7), "flip"),
        (lambda: Agreement("nothing", {"x": None}), "must have fit"),
        (lambda: Agreement(BayesClassifier(), {}), "must be {name: model}, of one model at least"),
        (lambda: BayesClassifier().fit(LinearTeacher(2, samples=2), UNSET, None, UNSET), "does not know its Bayes classifier"),
        (lambda: KernelVote().fit(LinearTeacher(2, samples=2), UNSET, LinearKernel(), UNSET), "not a LinearKernel"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_clear_line(wrong, words, unchecked):
    with pytest.raises(ValueError, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_probes_refuse_what_has_no_test_samples():
    network = MLP(4)(jax.random.key(0), 2, 1)
    for probe in (TestFit(), Agreement(BayesClassifier(), {"bayes": None})):
        with pytest.raises(ProbeError, match="looks at test samples"):
            arm.probe(network, [probe], data=(jnp.ones((3, 2)), jnp.ones((3, 1))))
