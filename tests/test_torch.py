"""Probes on PyTorch modules: the same numbers as on the same network in JAX, and nothing changed by looking."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import armillary as arm
from armillary.errors import ArmillaryError
from armillary.interop import torch as instruments
from armillary.models import MLP
from armillary.probes import (
    Accuracy,
    DenseSpectrum,
    DistanceFromInitialisation,
    ExtremeEigenvalues,
    GradientNoise,
    JacobianSpectrum,
    Losses,
    PreactivationChange,
    Preactivations,
    Sharpness,
    SingularValues,
    SpectralDensity,
    StableRank,
    Traces,
    UpdateCosine,
    WeightNorm,
)  # fmt: skip
from armillary.rules import Loss
from armillary.tasks import Samples

PROBES = [
    Sharpness(tolerance=1e-6), ExtremeEigenvalues(top=3, bottom=2, tolerance=1e-6), SpectralDensity(steps=8, draws=2),
    Traces(draws=4, low_rank=2), DenseSpectrum(), GradientNoise(draws=4), DenseSpectrum(matrix="gauss_newton"),
    DenseSpectrum(matrix="gradient_covariance"), Losses(), Accuracy(), WeightNorm(), SingularValues(), StableRank(),
]  # fmt: skip


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def twins(dtype=torch.float64, seed=0):
    """The same network and data in JAX and in PyTorch."""
    network = MLP(5, 3, "tanh")(jax.random.key(seed), 4, 3)
    layers = [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)]
    module = nn.Sequential(*layers).to(dtype)
    with torch.no_grad():
        for linear, dense in zip(layers[::2], network.layers, strict=True):
            linear.weight.copy_(torch.tensor(np.asarray(dense.weight)))
            linear.bias.zero_()
    rng = np.random.default_rng(0)
    inputs, classes = rng.normal(size=(23, 4)), rng.integers(0, 3, 23)
    samples = Samples(jnp.asarray(inputs), jnp.asarray(classes))
    return network, samples, module, (torch.tensor(inputs, dtype=dtype), torch.tensor(classes))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_module_and_its_twin_in_jax_look_alike(double, reduction):
    network, samples, module, data = twins()
    loss = nn.CrossEntropyLoss(reduction=reduction)
    probes = PROBES if reduction == "mean" else [Losses(), DenseSpectrum(), GradientNoise(draws=4)]
    seen = instruments.probe(module, loss, data, probes, test=data, initial=module)
    twin = arm.probe(network, probes, data=arm.tasks.Data(samples, samples), loss=Loss("cross_entropy", reduction))
    assert set(seen.data_vars) == set(twin.data_vars)
    for name in seen.data_vars:
        assert seen[name].dims == twin[name].dims and seen[name].attrs == twin[name].attrs
        if name not in ("hessian_products", "sharpness_products"):
            size = float(np.abs(twin[name]).max())
            np.testing.assert_allclose(seen[name], twin[name], rtol=1e-5, atol=1e-7 * size + 1e-12, err_msg=name)


def test_chunks_and_what_is_kept_change_nothing(double):
    _, _, module, data = twins()
    loss = nn.CrossEntropyLoss()
    probes = [DenseSpectrum(), DenseSpectrum(matrix="gauss_newton"), DenseSpectrum(matrix="gradient_covariance")]
    whole = instruments.probe(module, loss, data, probes)
    loader = DataLoader(TensorDataset(*data), batch_size=7, shuffle=True)
    for memory in (1.0, 3000.0, 1e9):
        small = [DenseSpectrum(matrix=p.matrix, memory=memory) for p in probes]
        seen = instruments.probe(module, loss, loader, small)
        for name in seen.data_vars:
            np.testing.assert_allclose(seen[name], whole[name], rtol=1e-9, atol=1e-12)


def test_parts_of_a_module_and_other_layers(double):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).double()
    data = torch.randn(10, 1, 4, 4, dtype=torch.float64), torch.randint(0, 2, (10,))
    last = DenseSpectrum(where=lambda m: m[3])
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def value(vector):
        parts = torch.split(vector, [p.numel() for p in module.parameters()])
        names = [name for name, _ in module.named_parameters()]
        own = {n: v.view_as(p) for n, v, p in zip(names, parts, module.parameters(), strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(module, own, data[0]), data[1])

    exact = torch.autograd.functional.hessian(value, flat)
    seen = instruments.probe(module, nn.CrossEntropyLoss(), data, [DenseSpectrum()])
    np.testing.assert_allclose(seen.hessian_spectrum, torch.linalg.eigvalsh(exact).flip(0), atol=1e-10)
    seen = instruments.probe(module, nn.CrossEntropyLoss(), data, [last])
    np.testing.assert_allclose(seen.hessian_spectrum, torch.linalg.eigvalsh(exact[-18:, -18:]).flip(0), atol=1e-10)


def test_looking_leaves_the_module_as_it_was():
    _, _, module, data = twins(torch.float32)
    module.append(nn.Dropout(0.5))
    module.eval()
    module[0].train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    instruments.probe(module, nn.CrossEntropyLoss(), data, [Sharpness(), Losses(), WeightNorm()])
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module[0].training and not module[2].training
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_the_initial_module_is_compared_with():
    _, _, module, data = twins(torch.float32)
    _, _, start, _ = twins(torch.float32)
    with torch.no_grad():
        module[0].weight.mul_(3.0)
    seen = instruments.probe(module, nn.CrossEntropyLoss(), data, [DistanceFromInitialisation()], initial=start)
    np.testing.assert_allclose(seen.distance_from_initialisation, [2.0, 0.0, 0.0], rtol=1e-6)


CHANGES = [UpdateCosine(), PreactivationChange(), Preactivations(), DistanceFromInitialisation()]


@pytest.mark.parametrize(
    "kept", [lambda m: m, lambda m: m.state_dict(), lambda m: copy.deepcopy(m).requires_grad_(False)]
)
def test_changes_since_the_last_update_and_the_start_are_those_of_the_twin(double, kept):
    networks, modules = zip(*[twins(seed=seed)[::2] for seed in range(3)], strict=True)
    _, samples, _, data = twins()
    loader = DataLoader(TensorDataset(*data), batch_size=7)
    states = {"previous": kept(modules[1]), "initial": kept(modules[2])}
    seen = instruments.probe(modules[0], nn.CrossEntropyLoss(), loader, CHANGES, **states)
    before = {"previous": networks[1], "initial": networks[2]}
    twin = arm.probe(networks[0], CHANGES, data=samples, loss=Loss("cross_entropy"), **before)
    assert set(seen.data_vars) == set(twin.data_vars) and "preactivation_drift" in seen
    for name in seen.data_vars:
        assert seen[name].dims == twin[name].dims and seen[name].attrs == twin[name].attrs
        np.testing.assert_allclose(seen[name], twin[name], rtol=1e-9, atol=1e-12, err_msg=name)
    now, last, first = (torch.cat([p.detach().reshape(-1) for p in m.parameters()]) for m in modules)
    cosine = nn.functional.cosine_similarity(now - last, last - first, dim=0)
    np.testing.assert_allclose(seen.global_update_cosine, cosine, rtol=1e-9)
    here, there = (m[:3](data[0]).detach() for m in modules[:2])
    expected = torch.linalg.norm(here - there) / torch.linalg.norm(there)
    np.testing.assert_allclose(seen.preactivation_change[1], expected, rtol=1e-9)


def test_a_change_is_of_trained_weights_alone_and_needs_one():
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    before = copy.deepcopy(module)
    module[1].running_mean += 1.0
    states = {"previous": before, "initial": before.state_dict()}
    data = torch.randn(6, 4), torch.zeros(6, dtype=torch.long)
    seen = instruments.probe(module, nn.CrossEntropyLoss(), data, CHANGES[:2], **states)
    assert np.isnan(seen.preactivation_change).all() and np.isnan(seen.global_update_cosine)
    np.testing.assert_array_equal(seen.preactivation_drift, [0.0, 0.0])
    with torch.no_grad():
        module[2].weight.mul_(3.0)
    seen = instruments.probe(module, nn.CrossEntropyLoss(), data, CHANGES[:2], **states)
    assert seen.preactivation_change[0] == 0.0 and seen.preactivation_change[1] > 0.1


class Frozen(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)
        self.requires_grad_(False)


def bad(**changes):
    _, _, module, data = twins(torch.float32)
    asked = {"module": module, "loss": nn.CrossEntropyLoss(), "data": data, "probes": [Sharpness()]} | changes
    return lambda: instruments.probe(**asked)


def nan_weights():
    _, _, module, _ = twins(torch.float32)
    module[0].weight.data[0, 0] = torch.nan
    return module


class Restless:
    def __iter__(self):
        return iter([(torch.randn(5, 4), torch.zeros(5, dtype=torch.long))])


DATA = (torch.ones(5, 4), torch.zeros(5, dtype=torch.long))
IGNORED = (torch.ones(5, 4), torch.tensor([0, 1, -100, 2, 0]))
CONVOLUTION = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten())
IMAGES = (torch.ones(5, 1, 2, 2), torch.zeros(5, dtype=torch.long))
TWICE = nn.Linear(4, 4)
REUSED = nn.Sequential(TWICE, nn.Tanh(), TWICE, nn.Linear(4, 3))
SQUARE = (torch.ones(5, 4), torch.zeros(5, dtype=torch.long))
DROPPING = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (bad(module=Frozen()), "no trainable weights"),
        (bad(module=nan_weights()), "nan or infinite"),
        (bad(module=DROPPING), r"1 \(Dropout\) is in train mode.*eval"),
        (bad(module=nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))), r"BatchNorm1d.*train mode"),
        (bad(loss=nn.CrossEntropyLoss(reduction="none")), "'none'.*must be 'mean' or 'sum'"),
        (bad(loss=lambda f, y: f), r"\(23, 3\), but must be a scalar"),
        (bad(loss=nn.CrossEntropyLoss(weight=torch.ones(3))), "class weights"),
        (bad(data=IGNORED), "targets to ignore"),
        (bad(data=[]), "loader is empty"),
        (bad(data=iter([DATA])), "only once"),
        (bad(data=Restless()), "same at each pass"),
        (bad(data=[DATA[0]]), "pairs"),
        (bad(data=(DATA[0], DATA[1][:3])), "5 inputs and 3 targets"),
        (bad(data=3), "DataLoader"),
        (bad(probes=[ExtremeEigenvalues(top=1000)]), "1000 eigenvalues.*trainable weights"),
        (bad(probes=[JacobianSpectrum()]), "JacobianSpectrum cannot look at a PyTorch module"),
        (bad(probes=[DistanceFromInitialisation()]), "before training"),
        (bad(probes=[UpdateCosine()]), r"previous=\.\.\. and initial=\.\.\."),
        (bad(probes=[PreactivationChange()]), r"previous=\.\.\."),
        (bad(previous=nn.Linear(4, 3)), "previous has no weights '0.weight'"),
        (
            bad(initial={**twins(torch.float32)[2].state_dict(), "0.bias": torch.zeros(2)}),
            r"'0.bias' of \(2,\), but.*\(5,\)",
        ),
        (bad(previous=nan_weights()), "previous has weights '0.weight' that are nan"),
        (bad(module=CONVOLUTION, data=IMAGES, probes=[Preactivations()]), r"linear layers \(nn.Linear\)"),
        (bad(module=REUSED, data=SQUARE, probes=[Preactivations()]), "2 layers were used 3 times"),
        (bad(probes=[Sharpness(where=lambda m: "a")]), "must select a module"),
        (bad(probes=[Sharpness(where=lambda m: m[1])]), "selected part.*no trainable"),
    ],
)
def test_bad_input_is_one_clear_line(call, said):
    with pytest.raises(ArmillaryError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_is_no_module_is_refused(unchecked):
    with pytest.raises(ArmillaryError, match="initial is a list; give a copy of the module"):
        bad(initial=[1.0])()


def test_a_monitored_loop_is_remembered_and_left_in_train_mode():
    _, _, module, data = twins(torch.float32)
    module.append(nn.Dropout(0.1))
    loss = nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    monitor = instruments.Monitor([Sharpness(), Losses(), *CHANGES], loss, data, budget=1.0)
    monitor._started -= 1e6  # a long run: every look is affordable
    flats = []
    for step in range(12):
        monitor(step, module)
        flats.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]))
        optimiser.zero_grad()
        loss(module(data[0]), data[1]).backward()
        optimiser.step()
    assert module.training and module[-1].training
    seen = monitor.trajectory
    assert seen.time.values.tolist() == list(range(12))
    assert seen.sharpness_products[1:].mean() < seen.sharpness_products[0]
    assert (seen.look_seconds > 0).all() and seen.train_loss.dims == ("time",)
    assert np.isnan(seen.preactivation_change[0]).all() and np.isfinite(seen.preactivation_change[1:]).all()
    expected = nn.functional.cosine_similarity(flats[9] - flats[8], flats[8] - flats[0], dim=0)
    np.testing.assert_allclose(seen.global_update_cosine[9], expected, rtol=1e-3)
    assert seen.parameter_distance[0] == 0.0 < seen.parameter_distance[-1]
