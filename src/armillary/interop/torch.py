"""Armillary's instruments on PyTorch modules, where they are: the same probes, names and xarray as for JAX networks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("armillary.interop.torch needs PyTorch: pip install 'armillary[torch]'") from error

import equinox as eqx
import jax
import jax.numpy as jnp
import xarray as xr
from jaxtyping import Array
from torch import Tensor, nn

from armillary.errors import InvalidValue, ProbeError
from armillary.interop import torch_tangents
from armillary.interop.torch_curvature import TorchCurvature, to_jax
from armillary.interop.torch_data import Batches, BatchLoss, Reduction, called, linear_outputs, random_layers
from armillary.monitor import Monitor as JaxMonitor
from armillary.probes.probing import Probe, difference, look_at
from armillary.process import Snapshot
from armillary.tangents.empirical import Outputs, contracted
from armillary.tasks.data import Data

State = nn.Module | Mapping[str, Tensor]
"""A module's weights at some time: a copy of it, or of its `state_dict()`."""


class TorchNetwork(eqx.Module):
    """A PyTorch module as probes see it: its weights as JAX arrays, in the module's order, and what PyTorch computes."""

    values: tuple[Array, ...]
    module: nn.Module = eqx.field(static=True)
    on_training: TorchCurvature = eqx.field(static=True)

    foreign: ClassVar[bool] = True

    def operator(self, matrix: str, *, where: Any, own_metric: bool, memory: float) -> Any:
        """A curvature matrix of the training loss; a module has no learning-rate factors, its own metric is the plain one."""
        return self.on_training.operator(matrix, where, memory)

    def gradient(self) -> Array:
        """The gradient of the training loss, flat."""
        return self.on_training.gradient()

    def weights_of(self, where: Any) -> Array:
        """The weights that count, flat."""
        return jnp.concatenate([to_jax(w.detach().reshape(-1)) for w in self.on_training.weights(where)])

    def predictions(self, samples: Any) -> tuple[Array, Array]:
        """Outputs and targets of samples, in the same order."""
        with torch.no_grad():
            pairs = [(called(self.module, inputs), targets) for inputs, targets in samples]
        outputs, targets = zip(*pairs, strict=True)
        return to_jax(torch.cat(outputs)), to_jax(torch.cat(targets))

    def tangent_kernel(self, samples: Any, outputs: Outputs, probe: str) -> Array:
        """The tangent kernel of the first samples with these weights (see `torch_tangents`)."""
        inputs = _one_tensor(samples, probe)
        try:
            weights = self._tensors()
            parts = torch_tangents.parts_of(self.module, weights, inputs)
            heard = torch_tangents.features(self.module, weights, parts, inputs)
        except InvalidValue as error:
            raise ProbeError(f"{probe}: {error}") from error
        kernels = [contracted(part, part, outputs) for part in heard]
        return sum(kernels[1:], kernels[0])

    def linearised(self, weights: "TorchNetwork", samples: Any, probe: str) -> tuple[Array, Array]:
        """Outputs of the samples with these weights, and their change to first order to those of another."""
        inputs, here = _one_tensor(samples, probe), self._tensors()
        moved = tuple(there - here[name] for name, there in weights._tensors().items())

        def outputs(*mine: Tensor) -> Tensor:
            named = dict(zip(here, mine, strict=True))
            return torch.func.functional_call(self.module, named, (inputs,)).reshape(len(inputs), -1)

        # Two reverse passes: forward mode lacks many of PyTorch's operations.
        jvp: Any = torch.autograd.functional.jvp
        before, change = jvp(outputs, tuple(here.values()), moved)
        return to_jax(before), to_jax(change)

    def _tensors(self) -> dict[str, Tensor]:
        device = next(self.module.parameters()).device
        names = _trained(self.module)
        return {n: torch.from_dlpack(v).to(device) for n, v in zip(names, self.values, strict=True)}

    def preactivations_of(self, samples: Any, probe: str) -> list[Array]:
        """What each linear layer computes for each sample with these weights, [sample, unit], in the order of use.

        Buffers and weights that are not trained are the module's, so that differences come from trained weights alone.
        """
        seen = [linear_outputs(self.module, self._tensors(), inputs, probe) for inputs, _ in samples]
        return [to_jax(torch.cat(batches)) for batches in zip(*seen, strict=True)]


def _one_tensor(samples: Any, probe: str) -> Tensor:
    if not all(isinstance(inputs, Tensor) for inputs, _ in samples):
        raise ProbeError(f"{probe} needs inputs that are one tensor [sample, ...]; the loader gives tuples or dicts")
    return torch.cat([inputs for inputs, _ in samples])


class _TorchLoss:
    """The loss as probes call it."""

    def __init__(self, loss: BatchLoss):
        self._loss, self.reduction = loss, loss.reduction

    def __call__(self, network: TorchNetwork, samples: Batches) -> Array:
        return to_jax(TorchCurvature(network.module, self._loss, samples).value())


def probe(
    module: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    data: Any,
    probes: Sequence[Probe],
    *,
    test: Any = None,
    initial: State | None = None,
    previous: State | None = None,
    reduction: Reduction | None = None,
) -> xr.Dataset:
    """What `probes` see in a PyTorch module, which stays where and as it is: derivatives are PyTorch's own.

    - `loss(outputs, targets)` is a scalar, the `reduction` ("mean" or "sum") over a batch's samples: by default what a
      `torch.nn` loss says of itself, else the mean.
    - `data` (and `test`) are a `DataLoader` or list of pairs (inputs, targets), or one such pair of tensors. They are
      read several times and must be the same each time: no random augmentation, no shuffling with `drop_last`.
    - `initial` is the module before training and `previous` that before the last update, for probes that compare with
      them: copies of the module, or of its `state_dict()` (`copy.deepcopy`: the one it returns changes with the module).

    All curvature probes, losses, accuracy, those of the tangent kernel (see also `torch_tangents.empirical_kernel`), of
    weight matrices and of their updates, and pre-activations (of `nn.Linear` layers) can be used. Returns an `xarray.Dataset` as
    `armillary.probe` does. Raises `ProbeError` in one line for: layers in train mode that are random or mix samples
    (dropout, batch-norm), weights that are not finite, none that are trainable, data that are empty, differ from pass to
    pass or come only once, a loss that is no scalar, an `initial` or `previous` with other weights, a probe that cannot
    look at a PyTorch module.

    >>> import armillary as arm
    >>> module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> data = torch.ones(5, 3), torch.zeros(5, dtype=torch.long)
    >>> seen = probe(module, nn.CrossEntropyLoss(), data, [arm.probes.Sharpness(), arm.probes.WeightNorm()])
    >>> seen.weight_norm.dims, bool(seen.sharpness > 0)
    (('layer',), True)
    """
    with _precision(module):
        return look_at(_snapshot(module, loss, data, probes, test, initial, previous, reduction), probes, None)[0]


def _precision(module: nn.Module) -> Any:
    double = any(p.dtype == torch.float64 for p in module.parameters())
    return jax.enable_x64(True) if double else nullcontext()


def _snapshot(
    module: nn.Module, loss: Callable, data: Any, probes: Sequence[Probe], test: Any, initial: State | None,
    previous: State | None, reduction: Any,
) -> Snapshot:  # fmt: skip
    for one in probes:
        if not one.foreign:
            raise ProbeError(f"{type(one).__name__} cannot look at a PyTorch module; it needs a JAX network")
    parameters = list(module.parameters())
    if not any(p.requires_grad for p in parameters):
        raise ProbeError("the module has no trainable weights (parameters with requires_grad)")
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        raise ProbeError("the module has weights that are nan or infinite; probe it before it diverges")
    random = random_layers(module)
    if random:
        more = f" and {len(random) - 1} more" if len(random) > 1 else ""
        raise ProbeError(
            f"{random[0]}{more} is in train mode, where its outputs are random or mix samples; call module.eval() first"
        )
    device = parameters[0].device
    batches = Batches(data, device)
    wrapped = BatchLoss(loss, reduction)
    curvature = TorchCurvature(module, wrapped, batches)
    first, second = curvature.value(), curvature.value()
    if not torch.allclose(first, second, rtol=1e-4, atol=0.0, equal_nan=True):
        raise ProbeError(
            f"the loss over the data is {float(first):.6g} at one pass and {float(second):.6g} at the next; they must be "
            "the same at each pass (no random augmentation, no shuffling with drop_last)"
        )
    network = TorchNetwork(_weights(module, module, "module"), module, curvature)
    like = lambda state, what: None if state is None else TorchNetwork(_weights(module, state, what), module, curvature)
    before = like(previous, "previous")
    tested = None if test is None else Batches(test, device)
    update = None if before is None else difference(network, before)
    return Snapshot(network, like(initial, "initial"), Data(batches, tested), _TorchLoss(wrapped), update=update)


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _weights(module: nn.Module, state: State, what: str) -> tuple[Array, ...]:
    """A state's values of the module's trainable weights, in the module's order."""
    values = state.state_dict() if isinstance(state, nn.Module) else state
    if not isinstance(values, Mapping):
        raise ProbeError(f"{what} is a {type(state).__name__}; give a copy of the module or of its state_dict()")
    found = []
    for name, weight in _trained(module).items():
        if name not in values:
            raise ProbeError(f"{what} has no weights {name!r}; give the same module as it was, or its state_dict()")
        value = values[name]
        if value.shape != weight.shape:
            raise ProbeError(f"{what} has {name!r} of {tuple(value.shape)}, but the module's is {tuple(weight.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ProbeError(f"{what} has weights {name!r} that are nan or infinite")
        found.append(to_jax(value.to(weight.dtype)))
    return tuple(found)


@contextmanager
def evaluated(module: nn.Module) -> Iterator[nn.Module]:
    """The module in eval mode; each layer gets its own mode back at the end."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for layer, mode in modes:
            layer.training = mode


class Monitor(JaxMonitor):
    """Looks at a PyTorch module in its training loop; see `armillary.Monitor`. Arguments as for `probe`.

    The module is looked at in eval mode, and left as it was. Its weights at the first call are kept for probes that compare
    with the start, and for probes of the last update those of the call before: one or two copies where the module is.

    >>> import armillary as arm
    >>> module = nn.Linear(3, 1)
    >>> optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    >>> x, y = torch.ones(5, 3), torch.zeros(5, 1)
    >>> monitor = Monitor([arm.probes.Sharpness()], nn.MSELoss(), (x, y), budget=1.0)
    >>> for step in range(3):
    ...     _ = monitor(step, module)
    ...     optimiser.zero_grad()
    ...     nn.functional.mse_loss(module(x), y).backward()
    ...     optimiser.step()
    >>> print(monitor.trajectory.sharpness.dims)
    ('time',)
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        loss: Callable[[Any, Tensor], Tensor],
        data: Any,
        *,
        budget: float = 0.05,
        test: Any = None,
        reduction: Reduction | None = None,
    ):
        super().__init__(probes, data, loss=loss, budget=budget)
        self._test, self._reduction = test, reduction

    def _look(self, network: nn.Module, memory: Any) -> tuple[xr.Dataset, Any]:
        before = network if self._before is None else self._before  # no update yet: 0
        previous = before if self._wants_updates else None
        settings = (self._probes, self._test, self._initial, previous, self._reduction)
        with evaluated(network), _precision(network):
            return look_at(_snapshot(network, self._loss, self._data, *settings), self._probes, memory)

    def _kept(self, network: nn.Module) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in _trained(network).items()}

    def _ready(self, network: nn.Module) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
