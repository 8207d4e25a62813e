"""Curvature of a PyTorch module's loss as products, computed by PyTorch where the module is.

Graphs of derivatives are built once and kept if those of all batches fit in `memory`; else each product goes through the
loader again, batch by batch, so that memory does not grow with the number of samples (and a loader may shuffle: a part
kept from one pass would not fit to the rest of another).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import torch
from jaxtyping import Array
from torch import Tensor, nn
from torch.autograd import grad
from torch.autograd.graph import saved_tensors_hooks

from armillary.curvature.operators import Operator
from armillary.errors import InvalidValue, ProbeError
from armillary.interop.torch_data import Batches, BatchLoss, called

Vectors = tuple[Tensor, ...]
"""A vector of all weights, in their shapes."""

Product = Callable[[Vectors], Vectors]


class TorchCurvature:
    """The curvature matrices of `loss` over `batches` in a module's weights, as operators on JAX vectors."""

    def __init__(self, module: nn.Module, loss: BatchLoss, batches: Batches):
        self.module, self.loss, self.batches = module, loss, batches

    def weights(self, where: Callable[[nn.Module], Any] | None = None) -> Vectors:
        """The weights that count: trainable ones of the module, or of the part that `where` selects."""
        part = self.module if where is None else where(self.module)
        parts = part if isinstance(part, tuple | list) else [part]
        found: list[Tensor] = []
        for one in parts:
            if not isinstance(one, nn.Module | Tensor):
                raise InvalidValue(f"where gives a {type(one).__name__}; it must select a module or its parameters")
            found += list(one.parameters()) if isinstance(one, nn.Module) else [one]
        weights = tuple(w for w in found if w.requires_grad)
        if not weights:
            what = "the module" if where is None else "the selected part of the module"
            raise ProbeError(f"{what} has no trainable weights (parameters with requires_grad)")
        return weights

    def operator(self, matrix: str, where: Callable[[nn.Module], Any] | None, memory: float) -> Operator:
        """One of the matrices, over all batches."""
        weights = self.weights(where)
        build = {"hessian": self._hessian, "gauss_newton": self._gauss_newton}.get(matrix)
        if build is None:
            second = self._operator(weights, self._second_moment, memory, mean=True)
            mean = self.gradient(where) * self._unit()
            return second._replace(product=lambda v: second.product(v) - mean * (mean @ v))
        return self._operator(weights, build, memory, mean=False)

    def gradient(self, where: Callable[[nn.Module], Any] | None = None) -> Array:
        """The gradient of the loss, flat."""
        weights = self.weights(where)
        total = torch.zeros(sum(w.numel() for w in weights), dtype=weights[0].dtype, device=weights[0].device)
        for inputs, targets in self.batches:
            share = self.loss.share(len(targets), self.batches.count)
            value = self.loss(called(self.module, inputs), targets) * share
            total += _flat(_grad(value, weights))
        return to_jax(total)

    def value(self) -> Tensor:
        """The loss of all samples."""
        with torch.no_grad():
            parts = [
                self.loss(called(self.module, inputs), targets) * self.loss.share(len(targets), self.batches.count)
                for inputs, targets in self.batches
            ]
        return torch.stack(parts).sum()

    def _unit(self) -> float:
        """What turns the loss into a mean over samples."""
        return 1.0 if self.loss.reduction == "mean" else 1.0 / self.batches.count

    def _operator(self, weights: Vectors, build: Callable, memory: float, *, mean: bool) -> Operator:
        counts = [w.numel() for w in weights]
        share = lambda size: size / self.batches.count if mean else self.loss.share(size, self.batches.count)
        each = lambda: ((share(len(y)), build(weights, x, y)) for x, y in self.batches)
        inputs, targets = next(iter(self.batches))
        of_a_sample = _bytes_kept(lambda: build(weights, inputs, targets), weights) / len(targets)
        kept = list(each()) if of_a_sample * self.batches.count <= memory else None

        def total(v: Vectors) -> Tensor:
            result = torch.zeros(sum(counts), dtype=weights[0].dtype, device=weights[0].device)
            for part, multiply in each() if kept is None else kept:
                result += part * _flat(multiply(v))
            return result

        def product(vector: Array) -> Array:
            flat = torch.from_dlpack(vector).to(weights[0].device)
            parts = (part.view_as(w) for part, w in zip(flat.split(counts), weights, strict=True))
            return to_jax(total(tuple(parts)))

        dtype = to_jax(weights[0][:0].detach().reshape(-1)).dtype
        return Operator(product, sum(counts), dtype, lambda v: v, traced=False)

    def _hessian(self, weights: Vectors, inputs: Any, targets: Tensor) -> Product:
        gradient = _grad(self.loss(called(self.module, inputs), targets), weights, create_graph=True)
        return lambda v: _grad(gradient, weights, v)

    def _gauss_newton(self, weights: Vectors, inputs: Any, targets: Tensor) -> Product:
        outputs = called(self.module, inputs)
        push = _pushed(outputs, weights)
        at = outputs.detach().requires_grad_()
        slope = grad(self.loss(at, targets), at, create_graph=True)[0]
        bend = lambda u: _grad((slope,), (at,), (u,))[0]
        return lambda v: _grad(outputs, weights, bend(push(v)))

    def _second_moment(self, weights: Vectors, inputs: Any, targets: Tensor) -> Product:
        losses = self.loss.per_sample(called(self.module, inputs), targets)
        push = _pushed(losses, weights)
        return lambda v: _grad(losses, weights, push(v) / len(targets))


def _pushed(outputs: Tensor, weights: Vectors) -> Callable[[Vectors], Tensor]:
    """v -> J v of the outputs' Jacobian J, as the derivative of u -> Jᵀu, which is linear in u."""
    u = torch.zeros_like(outputs, requires_grad=True)
    pulled = _grad(outputs, weights, u, create_graph=True)
    return lambda v: _grad(pulled, (u,), v)[0]


def _grad(values: Any, inputs: Vectors, along: Any = None, *, create_graph: bool = False) -> Vectors:
    """Derivatives of values (those that depend on anything) along given directions, zero where there are none."""
    values = (values,) if isinstance(values, Tensor) else values
    along = (along,) if isinstance(along, Tensor) else along
    pairs = [(y, along[i] if along is not None else None) for i, y in enumerate(values) if y.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(w) for w in inputs)
    outputs, directions = zip(*pairs, strict=True)
    return grad(
        outputs, inputs, directions if along is not None else None, retain_graph=True, create_graph=create_graph,
        materialize_grads=True,
    )  # fmt: skip


def _flat(parts: Vectors) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def _bytes_kept(build: Callable[[], Any], weights: Vectors) -> float:
    """Bytes that a graph holds on to, the weights themselves not counted."""
    known = {w.untyped_storage().data_ptr() for w in weights}
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        alive = build()
    del alive
    return float(sum(held.values()))


def to_jax(tensor: Tensor) -> Array:
    """The tensor as a JAX array on the CPU, without a copy where both allow it."""
    return jnp.from_dlpack(tensor.detach().contiguous().cpu())
