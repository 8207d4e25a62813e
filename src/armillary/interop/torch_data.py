"""What a PyTorch user trains on, as the instruments see it: batches that are the same at every pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from armillary.errors import InvalidValue, ProbeError

BATCH = 2048
"""Samples that go through together where a pair of tensors is given."""

Reduction = Literal["mean", "sum"]


class Batches:
    """(inputs, targets) batches of a loader or a pair of tensors, and how many samples there are.

    Inputs are what the module takes: a tensor, a tuple of positional arguments or a dict of named ones. Raises
    `ProbeError` for a loader without batches, one that can be read only once, and batches that are no such pairs.
    """

    def __init__(self, data: Any, device: torch.device | None):
        self._device = device
        if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
            inputs, targets = data
            if len(inputs) != len(targets):
                raise ProbeError(f"there are {len(inputs)} inputs and {len(targets)} targets; each input needs one")
            data = list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True)) if len(inputs) else []
        if not isinstance(data, Iterable):
            raise ProbeError(f"data are a {type(data).__name__}; give a DataLoader or a pair (inputs, targets)")
        if isinstance(data, Iterator):
            raise ProbeError("the loader can be read only once; give a DataLoader or a list of batches")
        self._source = data
        self.count = sum(len(targets) for _, targets in self)
        if not self.count:
            raise ProbeError("the loader is empty; give at least one sample")

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for batch in self._source:
            if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[1], Tensor):
                kind = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch)
                raise ProbeError(
                    f"the loader gives a {kind}; it must give pairs (inputs, targets) with a target tensor"
                )
            yield self._moved(batch[0]), self._moved(batch[1])

    def first(self, count: int) -> list[tuple[Any, Tensor]]:
        """Batches of the first `count` samples, or of all where there are fewer."""
        found, left = [], count
        for inputs, targets in self:
            found.append((_cut(inputs, left), targets[:left]))
            left -= len(targets)
            if left <= 0:
                break
        return found

    def _moved(self, part: Any) -> Any:
        if isinstance(part, Tensor):
            return part.to(self._device)
        if isinstance(part, dict):
            return {name: self._moved(value) for name, value in part.items()}
        return type(part)(self._moved(value) for value in part)


def _cut(part: Any, count: int) -> Any:
    if isinstance(part, Tensor):
        return part[:count]
    if isinstance(part, dict):
        return {name: _cut(value, count) for name, value in part.items()}
    return type(part)(_cut(value, count) for value in part)


class BatchLoss:
    """A loss `function(outputs, targets)`, a scalar over a batch, as what each batch adds to the loss of all samples.

    `reduction` is what it does over samples; by default what the function itself says (`torch.nn` losses do), else "mean".
    Raises `InvalidValue` for another reduction and for means that are not over samples (class weights, ignored targets),
    and `ProbeError` for a loss that is no scalar.
    """

    def __init__(self, function: Callable[[Any, Tensor], Tensor], reduction: Reduction | None):
        self.function = function
        self.reduction = reduction or getattr(function, "reduction", "mean")
        if self.reduction not in ("mean", "sum"):
            raise InvalidValue(f"the loss's reduction is {self.reduction!r}, but must be 'mean' or 'sum'")
        if self.reduction == "mean" and getattr(function, "weight", None) is not None:
            raise InvalidValue("a mean with class weights is no mean over samples; use reduction='sum'")

    def share(self, size: int, count: int) -> float:
        """What the loss of `size` samples counts in that of all `count`."""
        return size / count if self.reduction == "mean" else 1.0

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        ignored = getattr(self.function, "ignore_index", None)
        if self.reduction == "mean" and ignored is not None and bool((targets == ignored).any()):
            raise InvalidValue(f"targets to ignore ({ignored}) make the mean none over samples; use reduction='sum'")
        value = self.function(outputs, targets)
        if not isinstance(value, Tensor) or value.ndim:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ProbeError(f"the loss is {shape}, but must be a scalar; take its mean or sum")
        return value

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """One number a sample."""
        one = lambda f, y: self.function(f[None], y[None])
        return torch.func.vmap(one)(outputs, targets)


def called(module: nn.Module, inputs: Any) -> Any:
    """The module's outputs for a batch's inputs."""
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple | list) else module(inputs)


def linear_outputs(module: nn.Module, weights: Mapping[str, Tensor], inputs: Any, probe: str) -> list[Tensor]:
    """What each `nn.Linear` computes for a batch with `weights` in the place of the module's, [sample, unit], in the order of use.

    Raises `ProbeError`, which names the `probe`, where there is none and where one is used more than once.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ProbeError(f"{probe} needs linear layers (nn.Linear); a {type(module).__name__} has none")
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(layer: nn.Module, _: Any, computed: Any) -> None:
        seen.append((layer, computed))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    named = inputs if isinstance(inputs, dict) else {}
    args = () if named else tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    try:
        with torch.no_grad():
            torch.func.functional_call(module, dict(weights), args, named)
    finally:
        for hook in hooks:
            hook.remove()
    if len({id(layer) for layer, _ in seen}) < len(seen):
        raise ProbeError(f"{probe} needs layers that are used once; {len(layers)} layers were used {len(seen)} times")
    return [h.reshape(len(h), -1) for _, h in seen]


def random_layers(module: nn.Module) -> list[str]:
    """Names of layers whose outputs, as they are set, are random or depend on the other samples of a batch."""
    found = []
    for name, layer in module.named_modules():
        if not layer.training:
            continue
        drops = getattr(layer, "p", 0.0) if isinstance(layer, nn.modules.dropout._DropoutNd) else 0.0
        drops = drops or getattr(layer, "dropout", 0.0)  # recurrent layers and attention
        normalises = isinstance(layer, nn.modules.batchnorm._BatchNorm)
        if normalises or (isinstance(drops, float) and drops > 0):
            found.append(f"{name or 'module'} ({type(layer).__name__})")
    return found
