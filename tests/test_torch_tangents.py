"""Tangent kernels of PyTorch modules against their whole Jacobian, and against the same network in JAX."""

import copy

import jax
import numpy as np
import pytest
import torch
from tests.test_torch import twins
from torch import nn

import armillary as arm
from armillary.errors import ArmillaryError, InvalidValue
from armillary.interop import torch as instruments
from armillary.interop import torch_tangents as tangents
from armillary.probes import (
    EmpiricalTangentKernel,
    KernelDrift,
    KernelSpectrum,
    KernelTargetAlignment,
    LinearisationError,
    NetworkOutputs,
)
from armillary.rules import Loss
from armillary.tangents import empirical_kernel


class Twice(nn.Module):
    """A layer that is used twice, and one whose weights are used in another way as well."""

    def __init__(self, *, elsewhere: bool):
        super().__init__()
        self.layer, self.last, self.elsewhere = nn.Linear(4, 4), nn.Linear(4, 2), elsewhere

    def forward(self, x):
        h = self.last(torch.tanh(self.layer(torch.tanh(self.layer(x)))))
        return h + x @ self.layer.weight[:2].T if self.elsewhere else h


class Attention(nn.Module):
    """Linear layers inside are not called as layers by all of PyTorch's own modules."""

    def __init__(self):
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        h = x.reshape(len(x), 3, 4)
        return self.last(torch.relu(self.attention(h, h, h)[0])).mean(1)


def tied():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    module[2].weight = module[0].weight
    return module


def frozen():
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))
    module[0].weight.requires_grad_(False)
    module[2].requires_grad_(False)
    return module


MODULES = {
    "dense": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), (4,), ["0", "2"]),
    "single": (lambda: nn.Linear(4, 2), (4,), [""]),
    "frozen": (frozen, (4,), ["0", "4"]),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(3),
            nn.Conv2d(3, 4, (2, 1), dilation=(1, 2)), nn.Tanh(), nn.Flatten(), nn.Linear(36, 2)), (2, 8, 6), ["0", "3", "6", "rest"],
    ),
    "sequences": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=2, dilation=2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 2)), (2, 6), ["0", "3"]),
    "groups": (lambda: nn.Sequential(nn.Conv2d(2, 4, 2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)), (2, 3, 3), ["3", "rest"]),
    "normed": (lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2)), (4,), ["0", "3", "rest"]),
    "twice": (lambda: Twice(elsewhere=False), (4,), ["layer", "last"]),
    "elsewhere": (lambda: Twice(elsewhere=True), (4,), ["last", "rest"]),
    "tied": (tied, (4,), ["2", "4", "rest"]),  # of "2" the bias alone
    "attention": (Attention, (12,), ["last", "rest"]),
}  # fmt: skip


def drawn(name):
    torch.manual_seed(0)
    build, shape, parts = MODULES[name]
    module = build().double().eval()
    return module, torch.randn(7, *shape, dtype=torch.float64), torch.randn(4, *shape, dtype=torch.float64), parts


def dense_jacobian(module, x):
    weights = {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}
    found = torch.func.jacrev(lambda w: torch.func.functional_call(module, w, (x,)).reshape(len(x), -1))(weights)
    return torch.cat([part.flatten(2) for part in found.values()], dim=2).numpy()


@pytest.mark.parametrize("name", MODULES)
def test_the_kernel_is_that_of_the_whole_jacobian(name):
    module, x, y, parts = drawn(name)
    left, right = dense_jacobian(module, x), dense_jacobian(module, y)
    full = np.einsum("nkw,mlw->nkml", left, right)
    np.testing.assert_allclose(tangents.empirical_kernel(module, x, y, outputs="full"), full, rtol=1e-8, atol=1e-10)
    mean = np.einsum("nkmk->nm", np.einsum("nkw,mlw->nkml", left, left)) / 2
    np.testing.assert_allclose(tangents.empirical_kernel(module, x), mean, rtol=1e-8, atol=1e-10)
    assert tangents.layers_of(module, x) == parts
    by_layer = tangents.empirical_kernel(module, x, outputs="each", by_layer=True)
    assert by_layer.shape == (len(parts), 7, 7, 2)
    np.testing.assert_allclose(by_layer.sum(0).mean(-1), mean, rtol=1e-8, atol=1e-10)


def test_blocks_are_the_whole_and_the_module_stays_as_it_was(monkeypatch):
    module, x, y, _ = drawn("images")
    before = copy.deepcopy(module.state_dict())
    whole = tangents.empirical_kernel(module, x, y)
    monkeypatch.setattr("armillary.tangents.empirical.BLOCK", 3)
    np.testing.assert_allclose(tangents.empirical_kernel(module, x, y), whole, rtol=1e-10)
    np.testing.assert_allclose(
        tangents.empirical_kernel(module, x), tangents.empirical_kernel(module, x, x), rtol=1e-10
    )
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters()) and not module[0]._forward_hooks


def test_probes_see_the_same_in_a_module_and_its_twin():
    probes = [
        EmpiricalTangentKernel(6, outputs="full"), KernelDrift(9), KernelTargetAlignment(9), KernelSpectrum(9),
        LinearisationError(9), NetworkOutputs(9),
    ]  # fmt: skip
    with jax.enable_x64(True):
        (network, samples, module, data), (start, _, before, _) = twins(), twins(seed=1)
        seen = instruments.probe(module, nn.CrossEntropyLoss(), data, probes, initial=before)
        expected = arm.probe(network, probes, data=samples, loss=Loss("cross_entropy"), initial=start)
    for name in expected.data_vars:
        np.testing.assert_allclose(seen[name], expected[name], rtol=1e-6, atol=1e-8, err_msg=name)
        assert seen[name].dims == expected[name].dims


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (nn.Linear(3, 2).requires_grad_(False), torch.ones(2, 3), "no weights with requires_grad"),
        (nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), torch.ones(2, 3), "train mode"),
        (nn.Linear(3, 2), torch.ones(2, 4), r"does not take inputs of shape \(4,\)"),
        (nn.Linear(3, 2), torch.ones(3), "one tensor"),
        (nn.Linear(3, 2), [1.0], "type list"),
    ],
)
def test_bad_input_gets_one_line(module, x, message):
    with pytest.raises(InvalidValue, match=message) as error:
        tangents.empirical_kernel(module, x)
    assert "\n" not in str(error.value)


def test_probes_of_kernels_want_one_tensor_and_a_start():
    module = nn.Linear(3, 2)
    loader = [((torch.ones(4, 3),), torch.zeros(4, 2))]
    with pytest.raises(ArmillaryError, match="EmpiricalTangentKernel needs inputs that are one tensor"):
        instruments.probe(module, nn.MSELoss(), loader, [EmpiricalTangentKernel(2)])
    with pytest.raises(ArmillaryError, match="KernelDrift compares with the start"):
        instruments.probe(module, nn.MSELoss(), (torch.ones(4, 3), torch.zeros(4, 2)), [KernelDrift(2)])


def test_the_kernel_of_a_twin_is_the_jax_networks():
    with jax.enable_x64(True):
        network, samples, module, (inputs, _) = twins()
        expected = empirical_kernel(network, np.asarray(samples.inputs), own_metric=False)
    np.testing.assert_allclose(tangents.empirical_kernel(module, inputs), expected, rtol=1e-8)
