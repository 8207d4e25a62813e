"""Tasks, models, parametrisations and probes against dense computations on tiny networks."""

import gzip
import itertools
import struct

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import armillary as arm
from armillary import models, probes, tasks
from armillary.measures import crossing_time, power_law, rank_correlation
from armillary.models import MLP, Decoupled, DeepLinear, GreedyAutoencoder, Orthogonal
from armillary.rules import SGD, Adam, Descent, GradientFlow, Loss
from armillary.serialise import experiment_from_json, experiment_to_json
from reference import mlp

PROBES = [
    probes.Accuracy(), probes.Balancedness(), probes.DistanceFromInitialisation(), probes.FrozenSubspace(),
    probes.JacobianSpectrum(), probes.Losses(), probes.SingularValues(), probes.UpdateCosine(), probes.WeightNorm(),
    probes.ModeStrength(jnp.eye(3, 5)), probes.RegressionErrors(), probes.StableRank(), probes.Sharpness(),
    probes.Traces(draws=2), probes.GradientNorm(), probes.Preactivations(), probes.PreactivationChange(),
    probes.EmpiricalTangentKernel(2), probes.InputSensitivity(),
]  # fmt: skip
MODELS = [MLP(4, 3, "tanh"), DeepLinear(depth=3, width=5), lambda key: eqx.nn.MLP(5, 3, 4, 2, key=key)]


@pytest.mark.parametrize("model", MODELS, ids=["mlp", "deep linear", "equinox"])
def test_every_probe_sees_every_model_in_the_loop_and_alone(model):
    task = tasks.LinearTeacher(5, samples=20, outputs=3, test_samples=10)
    experiment = arm.Experiment(task, model, Descent(SGD(0.01), steps=3), PROBES, arm.Evenly(4))
    seen = arm.simulate(experiment, seeds=2)
    finite = seen.isel(time=slice(2, None)).drop_vars(
        ["diverged_at", "singular_values", "jacobian_singular_values", "singular_ratio"]
    )
    assert all(np.isfinite(v.values).all() for v in finite.data_vars.values())
    process = experiment.draw(jax.random.key(0))
    alone = [p for p in PROBES if not p.needs_update and not isinstance(p, probes.RegressionErrors)]
    found = arm.probe(process.initial, alone, data=process.data, initial=process.initial)
    assert set(found.data_vars) <= set(seen.data_vars) and found.weight_norm.attrs["long_name"]


def test_probes_equal_dense_computations(key):
    network = MLP(4, 2)(key, 5, 3)
    w1, w2 = (np.array(layer.weight) for layer in network.layers)
    moved = jax.tree.map(lambda w: 1.1 * w if eqx.is_inexact_array(w) else w, network)
    seen = arm.probe(
        moved, [probes.WeightNorm(), probes.SingularValues(), probes.DistanceFromInitialisation()], initial=network
    )
    np.testing.assert_allclose(seen.weight_norm, [1.1 * np.linalg.norm(w) for w in (w1, w2)], rtol=1e-5)
    np.testing.assert_allclose(seen.singular_values[0, :4], 1.1 * np.linalg.svd(w1, compute_uv=False), rtol=1e-5)
    np.testing.assert_allclose(seen.distance_from_initialisation, [0.1, 0.1], rtol=1e-4)
    assert np.isnan(seen.singular_values[1, 3])


def test_accuracy_counts_classes_signs_and_one_hot_vectors():
    x = jnp.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    for targets in (jnp.array([0, 1, 1]), jax.nn.one_hot(jnp.array([0, 1, 1]), 2)):
        assert np.isclose(arm.probe(eqx.nn.Identity(), [probes.Accuracy()], data=(x, targets)).train_accuracy, 2 / 3)
    sign = arm.probe(eqx.nn.Lambda(lambda x: x[:1] - 1.5), [probes.Accuracy()], data=(x, jnp.array([1.0, -1.0, 1.0])))
    assert np.isclose(sign.train_accuracy, 2 / 3)


def test_the_update_cosine_is_one_when_steps_agree():
    task = tasks.Correlations(jnp.eye(2), jnp.eye(2))
    rule = Descent(SGD(1e-3), steps=20)
    seen = arm.simulate(arm.Experiment(task, DeepLinear(depth=1), rule, [probes.UpdateCosine()], arm.Evenly(21)))
    assert seen.global_update_cosine.isel(time=slice(0, 2)).isnull().all()
    assert (seen.global_update_cosine.isel(time=slice(2, None)) > 0.999).all()


def test_probes_say_what_they_miss(key):
    network = MLP(4, 2)(key, 5, 3)
    for wanting in (
        probes.Losses(),
        probes.DistanceFromInitialisation(),
        probes.UpdateCosine(),
        probes.FrozenSubspace(),
    ):
        with pytest.raises(arm.ArmillaryError, match=type(wanting).__name__):
            arm.probe(network, [wanting])
    with pytest.raises(arm.ArmillaryError, match="this network has none"):
        arm.probe(eqx.nn.LayerNorm(3), [probes.WeightNorm()])


@pytest.mark.parametrize("model", MODELS[:2], ids=["mlp", "deep linear"])
def test_networks_drawn_alone_are_those_of_a_program(model, key):
    alone, within = model(key, inputs=5, outputs=3), eqx.filter_jit(lambda key: model(key, 5, 3))(key)
    assert jax.tree.structure(alone) == jax.tree.structure(within)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(within), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_model_may_take_more_by_name(key):
    class Shifted(models.Model):
        def __call__(self, key, inputs, outputs, *, shift=0.0):
            return eqx.nn.Lambda(lambda x: x + shift)

    assert Shifted()(key, 2, outputs=2, shift=3.0)(1.0) == 4.0 and Shifted()(key, 2, 2)(1.0) == 1.0


def test_an_mlp_computes_what_numpy_does(key):
    network = MLP(6, 4)(key, 5, 3)
    x = np.random.default_rng(0).normal(size=5)
    layers = [(np.array(layer.weight), np.array(layer.bias)) for layer in network.layers]
    np.testing.assert_allclose(network(jnp.array(x)), mlp(layers, x), rtol=1e-5)


def test_a_deep_network_written_as_a_loop_is_the_same(key):
    deep = MLP(5, 14, "tanh", bias=True)(key, 4, 3)
    x = h = jnp.arange(4.0) / 4
    for layer in deep.layers[:-1]:
        h = jnp.tanh(layer(h))
    np.testing.assert_allclose(deep(x), deep.layers[-1](h), rtol=1e-5)
    chain = DeepLinear(depth=14, width=5)(key, 4, 3)
    np.testing.assert_allclose(
        chain(x), np.linalg.multi_dot([np.array(w) for w in chain.weights[::-1]]) @ np.array(x), rtol=1e-4
    )


@given(rows=st.integers(1, 8), columns=st.integers(1, 8), seed=st.integers(0, 99))
def test_orthogonal_matrices_have_orthonormal_rows_or_columns(rows, columns, seed):
    q = models.haar_orthogonal(jax.random.key(seed), rows, columns)
    gram = q.T @ q if rows >= columns else q @ q.T
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-5)


def test_the_product_of_orthogonal_weights_has_all_singular_values_equal(key):
    chain = DeepLinear(depth=12, width=6, initialisation=Orthogonal(0.9))(key, 6, 6)
    np.testing.assert_allclose(np.linalg.svd(chain.matrix, compute_uv=False), 0.9**12, rtol=1e-4)


def test_decoupled_weights_are_diagonal_in_the_targets_frame(key):
    target = jax.random.normal(key, (3, 5))
    chain = DeepLinear(depth=4, width=6, initialisation=Decoupled(target, 0.01, 2.0))(key, 5, 3)
    u, _, vt = np.linalg.svd(target, full_matrices=False)
    np.testing.assert_allclose(u.T @ np.array(chain.matrix) @ vt.T, 0.01 * np.eye(3), atol=1e-6)


def test_greedy_pretraining_is_where_a_trained_autoencoder_ends():
    draw = np.random.default_rng(0)
    basis = np.linalg.qr(draw.normal(size=(5, 5)))[0]
    covariance = basis * np.array([3.0, 2.0, 0.5, 0.2, 0.1]) @ basis.T
    task = tasks.Correlations(jnp.asarray(covariance), jnp.asarray(covariance))  # targets are the inputs
    small = models.Gaussian(0.01)
    flow = GradientFlow(40.0)
    autoencoder = arm.Experiment(task, DeepLinear(width=2, initialisation=small), flow, [_FirstLayer()])
    encoder = arm.simulate(autoencoder).first_layer.isel(seed=0, time=-1).values
    ideal = GreedyAutoencoder(covariance)(jax.random.key(1), (5, 2, 1))[0][0]
    # The same row space, orthonormal rows: equal up to a rotation.
    np.testing.assert_allclose(encoder.T @ encoder, np.array(ideal.T @ ideal), atol=2e-3)


class _FirstLayer(probes.Probe):
    def __call__(self, now):
        return {"first_layer": arm.Quantity(now.network.weights[0], ("unit", "input"))}


@pytest.mark.parametrize("name", models.PARAMETRISATIONS)
def test_outputs_stay_of_order_one_as_networks_widen(name):
    sizes = []
    for width in (64, 512):
        make = MLP(width, 3, parametrisation=name, growth=0.0)
        output = lambda k, make=make: make(k, 16, 1)(jnp.ones(16))
        sizes.append(float(jnp.std(jax.jit(jax.vmap(output))(jax.random.split(jax.random.key(0), 50)))))
    falls = 1.0 if name in ("standard", "ntk") else 8**0.5  # others' outputs shrink as 1/sqrt(width) at the start
    assert 0.6 < sizes[0] / sizes[1] / falls < 1.6


@pytest.mark.parametrize(("name", "adaptive"), [("mup", False), ("mup", True), ("mean_field", False), ("ntk", False)])
def test_one_step_moves_features_as_the_parametrisation_promises(name, adaptive):
    """Hidden pre-activations move by the same amount at any width under muP; as 1/sqrt(width) under NTK scaling."""
    task = tasks.NetworkTeacher(8, samples=16, teacher=MLP(4), test_samples=0)
    moved = []
    depth = 2 if name == "mean_field" else 3
    for width in (64, 1024):
        rule = Descent(Adam(0.01) if adaptive else SGD(0.05), steps=1)
        model = MLP(width, depth, "tanh", parametrisation=name, bias=False)
        seen = arm.simulate(arm.Experiment(task, model, rule, [_Features()], arm.Evenly(2)), seeds=8).features
        change = seen.sel(time=1) - seen.sel(time=0)
        moved.append(float(np.sqrt((change**2).mean())))
    ratio = moved[0] / moved[1]
    assert (2.5 < ratio < 6.0) if name == "ntk" else (0.5 < ratio < 2.0)


class _Features(probes.Probe):
    def __call__(self, now):
        layers = now.network.layers[:-1]

        def features(x):
            for layer in layers[:-1]:
                x = jnp.tanh(layer(x))
            return layers[-1](x)

        return {"features": arm.Quantity(jax.vmap(features)(now.data.train.inputs)[:, :32], ("sample", "unit"))}


def test_hidden_layers_of_flow_conserve_the_imbalance():
    task = tasks.Correlations(jnp.eye(4), jax.random.normal(jax.random.key(0), (4, 4)))
    experiment = arm.Experiment(
        task, DeepLinear(depth=3), GradientFlow(3.0, tolerance=1e-9), [_Conserved()], precision="float64"
    )
    seen = arm.simulate(experiment, seeds=2).conserved
    np.testing.assert_allclose(seen, seen.isel(time=[0]).values + 0 * seen.values, atol=1e-6)


class _Conserved(probes.Probe):
    def __call__(self, now):
        w = now.network.weights
        gaps = [b.T @ b - a @ a.T for a, b in itertools.pairwise(w)]
        return {"conserved": arm.Quantity(jnp.stack(gaps), ("gap", "row", "column"))}


@given(seed=st.integers(0, 50))
def test_rotating_inputs_changes_nothing_but_the_frame(seed):
    """A linear network from rotated weights on rotated inputs has the same loss at every step."""
    rotation = models.haar_orthogonal(jax.random.key(seed), 4, 4)
    covariance = jnp.diag(jnp.array([1.0, 2.0, 3.0, 4.0]))
    target = jax.random.normal(jax.random.key(seed + 100), (2, 4))
    plain = tasks.Correlations(covariance, target)
    turned = tasks.Correlations(rotation @ covariance @ rotation.T, target @ rotation.T)
    loss = Loss()
    w = jax.random.normal(jax.random.key(seed + 200), (2, 4))
    first = loss(lambda x: w @ x, plain.draw(jax.random.key(0)).train)
    second = loss(lambda x: (w @ rotation.T) @ x, turned.draw(jax.random.key(0)).train)
    np.testing.assert_allclose(first, second, rtol=2e-3)


def test_correlations_draw_samples_that_have_them(key):
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    cross = np.array([[1.0, -1.0]])
    data = tasks.Correlations(covariance, cross).draw(key).train
    np.testing.assert_allclose(data.inputs.T @ data.inputs / data.count, covariance, atol=1e-5)
    np.testing.assert_allclose(data.targets.T @ data.inputs / data.count, cross, atol=1e-5)
    with pytest.raises(arm.ArmillaryError, match="smallest eigenvalue is"):
        tasks.Correlations(np.diag([1.0, 0.0]), cross)


def test_a_linear_network_trains_the_same_on_data_and_on_their_correlations(key):
    data = tasks.LinearTeacher(4, samples=50, outputs=2, noise=0.5).draw(key).train
    w = jnp.ones((2, 4))
    gradient = lambda samples: jax.grad(lambda w: Loss()(lambda x: w @ x, samples))(w)
    compressed = tasks.Correlations.of(data).draw(key).train
    np.testing.assert_allclose(gradient(data), gradient(compressed), atol=1e-4)


def test_label_noise_flips_its_share_and_no_test_label(key):
    clean, noisy = (tasks.Digits(1500, label_noise=p).draw(key) for p in (0.0, 0.5))
    assert abs(float((clean.train.targets != noisy.train.targets).mean()) - 0.45) < 0.04
    assert (clean.test.targets == noisy.test.targets).all()
    parity = tasks.Digits(1500, "parity").draw(key)
    assert (parity.train.targets[:, 0] == 1 - 2 * (clean.train.targets % 2)).all()


def _idx(path, array, compress=False):
    raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if compress else raw)


@pytest.fixture
def mnist(tmp_path):
    draw = np.random.default_rng(0)
    for part, count in (("train", 6), ("t10k", 4)):
        _idx(tmp_path / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        _idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", draw.integers(0, 10, count, dtype=np.uint8), compress=True)
    return tmp_path


def test_mnist_files_are_read(mnist, key):
    data = tasks.ImageFiles(str(mnist), samples=5).draw(key)
    assert data.train.inputs.shape == (5, 784) and data.test.inputs.shape == (4, 784)
    assert abs(float(data.train.inputs.mean())) < 1e-5 and abs(float(data.train.inputs.std()) - 1) < 1e-3


def test_cifar_files_are_read(tmp_path, key):
    draw = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = draw.integers(0, 256, (2, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (tmp_path / name).write_bytes(records.tobytes())
    data = tasks.ImageFiles(str(tmp_path), "cifar10", flat=False).draw(key)
    assert data.train.inputs.shape == (10, 3, 32, 32) and data.test.count == 2


def test_missing_and_damaged_files_say_what_was_looked_for_where(mnist, tmp_path):
    with pytest.raises(arm.ArmillaryError, match=r"looked for train-images-idx3-ubyte.* in .*nowhere"):
        tasks.ImageFiles(str(tmp_path / "nowhere"))
    with pytest.raises(arm.ArmillaryError, match="samples is 7, but must be at least 1 and at most 6"):
        tasks.ImageFiles(str(mnist), samples=7)
    path = mnist / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(arm.ArmillaryError, match="its header promises"):
        tasks.ImageFiles(str(mnist))
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(arm.ArmillaryError, match="not an IDX file"):
        tasks.read_idx(path)
    (tmp_path / "b.bin").write_bytes(b"123")
    with pytest.raises(arm.ArmillaryError, match="CIFAR-10 records are 3073 each"):
        tasks.read_cifar10(tmp_path / "b.bin")


def test_experiments_are_rebuilt_from_their_trajectory():
    task = tasks.Correlations(jnp.eye(3), jnp.eye(3))
    experiment = arm.Experiment(task, DeepLinear(initialisation=Decoupled(jnp.eye(3), 0.01)), GradientFlow(2.0),
                                [probes.Losses(), probes.ModeStrength(jnp.eye(3))], arm.Evenly(4), "float64")  # fmt: skip
    measured = arm.simulate(experiment)
    again = arm.experiment_from(measured)
    assert experiment_to_json(again) == measured.attrs["experiment"] == experiment_to_json(experiment)
    np.testing.assert_array_equal(arm.simulate(again).train_loss, measured.train_loss)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("rows", [1, 700])
def test_arrays_of_an_experiment_come_back_bit_for_bit(dtype, rows):
    inputs = np.random.default_rng(0).normal(size=(rows, 3))
    inputs[0] = [np.nan, np.inf, -0.0] if dtype.startswith("float") else 0
    holder = probes.Agreement(arm.rules.BayesClassifier(), {"any": inputs.astype(dtype)})
    written = experiment_to_json(holder)
    read = np.asarray(experiment_from_json(written).models["any"])
    assert read.dtype == dtype and read.shape == (rows, 3)
    assert read.tobytes() == inputs.astype(dtype).tobytes()
    assert len(written) < 40 * rows * 3 + 300


@pytest.mark.parametrize("text", ["", "3", "{", "[]", '{"type": "os.system"}', '{"type": "Experiment"}', '{"type": "Experiment", "task": [1]}',
                                  '{"type": "DeepLinear", "depth": -1}', '{"type": "x", "y": {"array": "AAA", "shape": [1], "dtype": "bool"}}',
                                  '{"array": "AAAA", "shape": [7], "dtype": "int32", "type": ""}', '{"type": "Optax", "make": {"optax": "__builtins__"}}'])  # fmt: skip
def test_what_is_no_experiment_is_refused_in_one_line(text):
    with pytest.raises(arm.ArmillaryError) as caught:
        experiment_from_json(text)
    assert "\n" not in str(caught.value)


def test_a_users_function_is_told_to_be_unbuildable():
    experiment = arm.Experiment(tasks.Digits(), lambda key: eqx.nn.Linear(64, 10, key=key), Descent())
    with pytest.raises(arm.ArmillaryError, match="cannot be rebuilt"):
        experiment_from_json(experiment_to_json(experiment))


@given(exponent=st.floats(-3, 3), factor=st.floats(0.1, 10))
def test_power_laws_are_found(exponent, factor):
    x = np.geomspace(1, 100, 7)
    fit = power_law(x, factor * x**exponent)
    assert np.isclose(fit.exponent, exponent, atol=1e-6) and np.isclose(fit.factor, factor, rtol=1e-6)


def test_crossings_and_ranks():
    import xarray as xr

    values = xr.DataArray([[4.0, 2.0, 1.0], [4.0, 4.0, 4.0]], dims=("seed", "time"), coords={"time": [0.0, 1.0, 3.0]})
    found = crossing_time(values, 1.5, falling=True)
    assert found.values[0] == 2.0 and np.isnan(found.values[1])
    assert rank_correlation([1, 2, 3, np.nan], [2, 4, 9, 1]) == 1.0
