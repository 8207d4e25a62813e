"""Tangent kernels of PyTorch modules as they are: what each layer hears and says is PyTorch's, what is made of it is shared
with JAX networks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from armillary.errors import InvalidValue
from armillary.interop.torch_curvature import to_jax
from armillary.interop.torch_data import random_layers
from armillary.tangents.empirical import Features, Outputs, kernel_in_blocks, require_known, sizes_of
from armillary.tangents.listening import Heard, Jacobian

Weights = Mapping[str, Tensor]


class Parts(NamedTuple):
    """The layers of a module that are contracted by their structure, by name, and the names of all other trained weights."""

    layers: dict[str, nn.Module]
    rest: tuple[str, ...]


class _Call(NamedTuple):
    """One use of a layer: what it heard, and a zero that was added to what it said."""

    name: str
    heard: Tensor
    shift: Tensor


def empirical_kernel(
    module: nn.Module, x: Any, y: Any = None, *, outputs: Outputs = "mean", by_layer: bool = False,
    memory: float = 1e9,
) -> Float[np.ndarray, "..."]:  # fmt: skip
    """The tangent kernel of a module at its weights, over weights with `requires_grad`: as `armillary.tangents.empirical_kernel`.

    `x` and `y` (None: `x`, each half once) are tensors with a leading sample axis. `nn.Linear` and convolutions in one and
    two dimensions are contracted by their structure, also where they are used more than once; other weights by their Jacobian.
    `by_layer` gives the parts in the order of `layers_of(module, x)`. A module has no learning-rate factors. Samples are not
    moved: they belong on the module's device. Raises `InvalidValue` for a module without trained weights, layers whose outputs
    are random or mix samples, and inputs that it does not take.

    >>> module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> empirical_kernel(module, torch.ones(5, 3), outputs="full").shape
    (5, 2, 5, 2)
    """
    require_known(outputs, memory)
    weights = trained_weights(module)
    with _precision(weights):
        parts = parts_of(module, weights, x)
        of = lambda inputs, rows: features(module, weights, parts, inputs[torch.as_tensor(rows, device=inputs.device)])
        sizes = sizes_of(of(x, np.arange(1)))
        dtype = np.dtype(str(next(iter(weights.values())).dtype).removeprefix("torch."))
        return kernel_in_blocks(of, x, y, sizes, outputs, dtype, by_layer=by_layer, memory=memory)


def layers_of(module: nn.Module, x: Any) -> list[str]:
    """Names of the parts of which the kernel by layers is made: layers in the module's order, "rest" for other weights.

    >>> layers_of(nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)), torch.ones(1, 3))
    ['0', '2', 'rest']
    """
    parts = parts_of(module, trained_weights(module), x)
    return [*parts.layers, *(["rest"] if parts.rest else [])]


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights over which kernels are taken, detached."""
    found = {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}
    if not found:
        raise InvalidValue(f"a {type(module).__name__} has no weights with requires_grad, hence no tangent kernel")
    random = random_layers(module)
    if random:
        raise InvalidValue(
            f"{random[0]} is in train mode, where its outputs are random or mix samples; call eval() first"
        )
    return found


def parts_of(module: nn.Module, weights: Weights, x: Any) -> Parts:
    """Which layers can be contracted by their structure: those for which that gives autograd's own gradient for one sample.

    A layer that is not called as a layer, or whose weights are used elsewhere as well, does not.
    """
    if not isinstance(x, Tensor) or x.ndim < 2 or not len(x):
        shape = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        raise InvalidValue(f"inputs have {shape}, but must be one tensor [sample, ...] with one sample or more")
    held = {name: layer for name, layer in module.named_modules() if _is_structured(layer)}
    names = {name: [f"{name}.{w}" if name else w for w in ("weight", "bias")] for name in held}
    try:
        out, calls = _run(module, weights, held, x[:1])
    except (RuntimeError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise InvalidValue(
            f"a {type(module).__name__} does not take inputs of shape {tuple(x.shape[1:])}: {why}"
        ) from error
    along = torch.linspace(1.0, 2.0, out.numel(), dtype=out.dtype, device=out.device).reshape(out.shape)
    derivatives = torch.autograd.grad((out * along).sum(), [c.shift for c in calls], allow_unused=True)
    exact = _gradient(module, weights, x[:1], along)
    layers = {}
    for name, layer in held.items():
        mine = [_noted(layer, c, d) for c, d in zip(calls, derivatives, strict=True) if c.name == name]
        if not mine or any(heard is None for heard, _ in mine):
            continue
        weight = torch.stack([torch.einsum("npa,npb->ba", heard, said) for heard, said in mine]).sum(0)
        bias = torch.stack([said.sum((0, 1)) for _, said in mine]).sum(0)
        pairs = [(exact[w], part) for w, part in zip(names[name], (weight, bias), strict=True) if w in exact]
        if pairs and all(_equal(part, gradient.reshape(part.shape)) for gradient, part in pairs):
            layers[name] = layer
    held_weights = {w for name in layers for w in names[name]}
    return Parts(layers, tuple(w for w in weights if w not in held_weights))


def _equal(found: Tensor, exact: Tensor) -> bool:
    return torch.allclose(found, exact, rtol=1e-3, atol=1e-5 * float(exact.abs().max()))


def features(module: nn.Module, weights: Weights, parts: Parts, inputs: Tensor) -> Features:
    """What all parts of the module contribute with, sample by sample, as JAX arrays."""
    out, calls = _run(module, weights, parts.layers, inputs)
    shifts = [c.shift for c in calls]
    rows = [torch.autograd.grad(out[:, i].sum(), shifts, retain_graph=True, allow_unused=True) for i in range(out.shape[1])] if shifts else []  # fmt: skip
    found: Features = []
    for name, layer in parts.layers.items():
        mine = [i for i, call in enumerate(calls) if call.name == name]
        heard = torch.cat([_noted(layer, calls[i], None)[0] for i in mine], dim=1)
        said = torch.stack(
            [torch.cat([_noted(layer, calls[i], row[i])[1] for i in mine], dim=1) for row in rows], dim=1
        )
        counts = [
            float(getattr(layer, w) is not None and (f"{name}.{w}" if name else w) in weights)
            for w in ("weight", "bias")
        ]
        factors = [jnp.full(len(inputs), one, to_jax(said).dtype) for one in counts]
        found.append(Heard(to_jax(heard), to_jax(said), *factors))
    if parts.rest:
        found.append(_jacobian(module, weights, parts.rest, inputs))
    return found


def _is_structured(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


@contextmanager
def _listening(held: Mapping[str, nn.Module], calls: list[_Call]) -> Iterator[None]:
    def ear(name: str) -> Any:
        def note(_: nn.Module, args: tuple, said: Tensor) -> Tensor:
            shift = torch.zeros_like(said, requires_grad=True)
            calls.append(_Call(name, args[0].detach(), shift))
            return said + shift

        return note

    hooks = [layer.register_forward_hook(ear(name)) for name, layer in held.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _run(
    module: nn.Module, weights: Weights, held: Mapping[str, nn.Module], inputs: Tensor
) -> tuple[Tensor, list[_Call]]:
    """Outputs [sample, output] and what the layers did on the way."""
    calls: list[_Call] = []
    with torch.enable_grad(), _listening(held, calls):
        out = torch.func.functional_call(module, dict(weights), (inputs,))
    if not isinstance(out, Tensor) or len(out) != len(inputs):
        raise InvalidValue(
            f"a {type(module).__name__} must give one tensor with a row for each sample to have a kernel"
        )
    return out.reshape(len(inputs), -1), calls


def _noted(layer: nn.Module, call: _Call, derivative: Tensor | None) -> tuple[Any, Tensor]:
    """A call's inputs [sample, position, input] and derivatives [sample, position, unit]; no inputs where they have no sample
    axis."""
    heard = call.heard
    derivative = torch.zeros_like(call.shift) if derivative is None else derivative
    n = len(derivative)
    if isinstance(layer, nn.Linear):
        return (heard.reshape(n, -1, heard.shape[-1]) if len(heard) == n else None), derivative.reshape(
            n, -1, derivative.shape[-1]
        )
    flat = isinstance(layer, nn.Conv1d)
    sides = [tuple(getattr(layer, name)) for name in ("kernel_size", "dilation", "padding", "stride")]
    if flat:  # an image one high
        heard, sides = heard.unsqueeze(-2), [(start, *side) for start, side in zip((1, 1, 0, 1), sides, strict=True)]
    return F.unfold(heard, *sides).transpose(1, 2), derivative.reshape(n, derivative.shape[1], -1).transpose(1, 2)


def _gradient(module: nn.Module, weights: Weights, inputs: Tensor, along: Tensor) -> dict[str, Tensor]:
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    with torch.enable_grad():
        out = torch.func.functional_call(module, leaves, (inputs,)).reshape(along.shape)
        found = torch.autograd.grad((out * along).sum(), list(leaves.values()), allow_unused=True)
    return {name: torch.zeros_like(leaves[name]) if g is None else g for name, g in zip(leaves, found, strict=True)}


def _jacobian(module: nn.Module, weights: Weights, rest: tuple[str, ...], inputs: Tensor) -> Jacobian:
    def one(mine: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(module, {**weights, **mine}, (x[None],)).reshape(-1)

    found = torch.func.vmap(torch.func.jacrev(one), (None, 0))({name: weights[name] for name in rest}, inputs)
    return Jacobian(to_jax(torch.cat([part.flatten(2) for part in found.values()], dim=2)))


def _precision(weights: Weights) -> Any:
    double = any(weight.dtype == torch.float64 for weight in weights.values())
    return jax.enable_x64(True) if double else nullcontext()
