"""Gradient flow of linear networks under bounded disturbances: how far from the minimisers it ends."""

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from armillary.clock import At, Evenly
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import crossing_time, power_law
from armillary.models import Decoupled, DeepLinear, Gaussian, LinearChain, Model, haar_orthogonal
from armillary.probes import Losses, Probe
from armillary.probes.conserved import ConservedQuantities, SaddleCoordinates, Stationarity
from armillary.quantity import Quantity
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import GradientFlow
from armillary.rules.disturbed_flow import DisturbedFlow, Opposing, Sinusoidal, Trapping
from armillary.study import Claim, Paper, Study
from armillary.tasks import Correlations
from armillary.theory.input_to_state import equilibria, error_bound, saddle_flow

KINDS = ("constant", "sinusoidal", "against the gradient")

EVENLY = Evenly(241)


class NearSaddle(Model):
    """Two hidden units with weights (p ± q)/sqrt(2), p and q random of the given norms, the outgoing ones times `sign`
    (the target's). At `growing` 0 this is on the saddle's stable manifold."""

    growing: float = 0.0
    decaying: float = 1.0
    sign: float = 1.0

    def __call__(self, key, inputs, outputs):
        p, q = jax.random.normal(key, (2, 2))
        p, q = self.growing * p / jnp.linalg.norm(p), self.decaying * q / jnp.linalg.norm(q)
        first, last = (p + q) / jnp.sqrt(2.0), self.sign * (p - q) / jnp.sqrt(2.0)
        return LinearChain((first[None, :, None], last[None, None, :]))


class Truncation(Model):
    """Two layers whose product keeps the modes of a diagonal target named by the bits of `kept`, split evenly and
    turned at random in hidden space; nan where there are more of them than hidden units."""

    strengths: tuple[float, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    kept: float = 0.0

    def __call__(self, key, inputs, outputs):
        bits = jnp.floor(self.kept / 2.0 ** jnp.arange(inputs)) % 2
        slot = jnp.cumsum(bits) - 1  # kept modes take hidden directions in turn
        sizes = bits * jnp.sqrt(jnp.asarray(self.strengths))
        place = sizes[:, None] * (slot[:, None] == jnp.arange(self.width))
        place = jnp.where(jnp.sum(bits) > self.width, jnp.nan, place)
        turned = place @ haar_orthogonal(key, self.width, self.width)
        return LinearChain((turned.T[None], turned[None]))


class HiddenWeights(Probe):
    """Incoming and outgoing weight of the first hidden unit: the axes of the phase plane."""

    def __call__(self, now):
        first, last = now.network.weights
        return {"incoming": Quantity(first[0, 0]), "outgoing": Quantity(last[0, 0])}


@dataclass(frozen=True, kw_only=True)
class GradientFlowISS(Study):
    """Training as a dynamical system with an unknown bounded disturbance added to the gradient. For a linear network
    with one hidden layer, one input and one output the flow is input-to-state stable: the error ends in a ball
    proportional to the disturbance, unless the start is too near the stable manifold of the saddle at the origin,
    where a disturbance can hold it.

    Stability is with respect to the set of minimisers: along it the weights drift without bound. With more inputs and
    outputs over-parametrisation adds equilibria, at truncated singular value decompositions of the target.
    """

    paper: ClassVar = Paper(
        "On the ISS property of the gradient flow for single hidden-layer neural networks with linear activations",
        authors="Arthur Castello B. de Oliveira, Milad Siami, Eduardo D. Sontag", year=2023, arxiv="2305.09904",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 8, "paper": 32}

    target: float = above(0.0, default=2.0)
    """The product of weights that is learned."""
    widths: tuple[int, ...] = at_least(1, default=(1, 2, 8), smoke=(1,))
    """Hidden units; the first is the one whose slope is claimed."""
    amplitudes: tuple[float, ...] = above(0.0, default=(0.01, 0.03, 0.1, 0.3, 0.5), smoke=(0.01, 0.1, 0.5))
    """Norms of the disturbance over all weights."""
    until: float = at_least(30.0, default=60.0)
    """Flow time of the disturbed runs."""
    displacements: tuple[float, ...] = above(0.0, default=(1e-9, 1e-7, 1e-5, 1e-3, 1e-1), smoke=(1e-6, 1e-3))
    """Distances from the saddle's stable manifold."""
    trapped_from: float = above(0.0, default=0.1)
    """Size of the growing half of the weights from which adversaries try to hold the saddle."""
    pushes: tuple[float, ...] = above(0.0, default=(0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.02, 1.05, 1.2, 2.0), smoke=(0.5, 0.95, 1.05))
    """Amplitudes of these adversaries, in units of the smallest that holds."""
    modes: tuple[float, ...] = above(0.0, default=(3.0, 2.0, 1.0))
    """Singular values of the matrix target, descending."""
    matrix_widths: tuple[int, ...] = at_least(1, default=(1, 2, 3, 5), smoke=(5,), paper=(1, 2, 3, 5, 10))
    """Hidden units of the network on the matrix target."""

    def experiments(self):
        random, often = Gaussian(1.0, per_entry=True), Evenly(601)
        swinging = self._scalar(random, DisturbedFlow(self.until, 0.0, Sinusoidal(), tolerance=1e-7), often)
        opposing = self._scalar(random, DisturbedFlow(self.until, 0.0, Opposing(), tolerance=1e-7), often)
        amplitudes = (0.0, *self.amplitudes)
        flow = GradientFlow(self.until, tolerance=1e-9)
        displaced = {"growing": (0.0, *self.displacements)}
        push = self._least_push()
        trap = self._scalar(NearSaddle(self.trapped_from, 0.0), DisturbedFlow(self.until, 0.0, Trapping(), tolerance=1e-9))
        aligned = Decoupled(jnp.ones((1, 1)), self.trapped_from**2 / 2)
        opposed = self._scalar(aligned, DisturbedFlow(self.until, 0.0, Opposing(), tolerance=1e-9))
        with jax.enable_x64(True):  # the task lays out its samples when it is made
            matrix = Correlations(np.eye(len(self.modes)), np.diag(self.modes))
        rest = Experiment(matrix, Truncation(self.modes, max(self.matrix_widths)), GradientFlow(0.0), [Stationarity()],
                          At((0.0,)), "float64")  # fmt: skip
        return {
            "disturbed": Sweep(swinging, {"frequency": (0.0, 1.0), "width": self.widths, "amplitude": amplitudes}),
            "adversary": Sweep(opposing, {"width": self.widths, "amplitude": amplitudes}),
            "manifold": Sweep(self._scalar(NearSaddle(), flow), displaced),
            "mirrored": Sweep(self._scalar(NearSaddle(sign=-1.0), flow, sign=-1.0), displaced),
            "trapped": Sweep(trap, {"amplitude": [push * ratio for ratio in self.pushes]}),
            "opposed": Sweep(opposed, {"amplitude": [push * ratio for ratio in self.pushes]}),
            "equilibria": Sweep(rest, {"width": self.matrix_widths, "kept": range(2 ** len(self.modes) - 1)}),
        }  # fmt: skip

    def _scalar(self, start, rule, clock=EVENLY, *, sign: float = 1.0) -> Experiment:
        task = Correlations(jnp.eye(1), jnp.full((1, 1), sign * self.target))
        model = start if isinstance(start, NearSaddle) else DeepLinear(width=2, initialisation=start)
        probes = [Losses(), SaddleCoordinates(), ConservedQuantities(), HiddenWeights()]
        return Experiment(task, model, rule, probes, clock, "float64")

    def _least_push(self) -> float:
        """The pull on the growing half where the adversaries start."""
        return self.trapped_from * (self.target - self.trapped_from**2 / 2)

    def theory(self):
        said = super().theory()
        time = np.linspace(0.0, self.until, 241)
        pushes = [self._least_push() * ratio for ratio in self.pushes]
        waits = [saddle_flow(time, self.target, p, 1.0) for p in self.displacements]
        traps = [saddle_flow(time, self.target, self.trapped_from, 0.0, a, "growth") for a in pushes]
        cases = (("manifold", "growing", self.displacements, waits), ("trapped", "amplitude", pushes, traps))
        for name, axis, values, cells in cases:
            error = np.array([self.target - (p**2 - q**2) / 2 for p, q in cells])
            said[name] = xr.Dataset({"target_error": ((axis, "time"), error)}, {axis: list(values), "time": time})
        return said

    def _from_start(self, seen) -> np.ndarray:
        """The closure's error from the measured start of each run: [run, time]."""
        start = seen.isel(time=0).stack(run=[d for d in seen.growing_norm.dims if d != "time"])
        runs = zip(start.growing_norm.values, start.decaying_norm.values, start.amplitude.values, strict=True)
        cells = [saddle_flow(seen.time.values, self.target, p, q, a) for p, q, a in runs]
        return np.array([self.target - (p**2 - q**2) / 2 for p, q in cells])

    def claims(self, measured, theory):
        disturbed = self._disturbed(measured)
        free = disturbed.sel(amplitude=0.0, disturbance="constant")
        yield Claim("C1", "undisturbed flow from random weights reaches the target set (largest final error)",
                    measured=np.abs(free.target_error.isel(time=-1)).max("width"), at_most=1e-6)
        manifold, mirrored = measured["manifold"], measured["mirrored"]
        stuck = [m.sel(growing=0.0).weight_size.isel(time=-1) for m in (manifold, mirrored)]
        yield Claim("C1b", "from the manifold k1 = -sign(target) k2 it ends at the origin, for either sign of the target "
                    "(largest final weights)", measured=xr.concat(stuck, "sign").max("sign"), at_most=1e-6)
        left = [np.abs(m.target_error.sel(growing=list(self.displacements)).isel(time=-1)) for m in (manifold, mirrored)]
        yield Claim("C1c", f"and displaced from it by {min(self.displacements):g} or more it reaches the target set (largest "
                    "final error)", measured=xr.concat(left, "sign").max(("sign", "growing")), at_most=1e-6)
        times = crossing_time(manifold.train_loss.sel(growing=list(self.displacements)).isel(seed=0), self.target**2 / 8, falling=True)
        slope = np.polyfit(np.log(1 / times.growing.values), times.values, 1)[0]
        yield Claim("C1d", "its delay at the saddle grows as ln(1/displacement)/target (slope, in that unit)",
                    measured=slope * self.target, expected=1.0, tolerance=0.03)
        yield Claim("C1e", "what the flow conserves stays: the balance of the layers (largest relative drift)",
                    measured=free.balance_drift.max(("width", "time")), at_most=1e-4,
                    reason="an adaptive solver of tolerance 1e-7 does not conserve it exactly")
        closed = np.abs(self._from_start(free.isel(width=-1).expand_dims(amplitude=[0.0]))
                        - free.target_error.isel(width=-1).transpose("seed", "time").values).max(axis=1)
        yield Claim("C1f", "and the error follows the closure in two norms from the measured start (largest difference)",
                    measured=closed, at_most=1e-4, reason="the same solver tolerance")

        radius = self._radius(disturbed)
        gain = radius / (radius.amplitude / np.sqrt(2 * self.target))
        yield Claim("C2", "disturbed runs end within the gain: late |error| over u/sqrt(2 target), the largest of all "
                    "widths, amplitudes, seeds and disturbances", measured=gain.max(), at_most=1.1,
                    reason="the exact bound is 1.075 at u = 0.5; all u are below (2 target/3)^1.5, the least that can hold any start")
        exact = xr.DataArray([error_bound(a, self.target) for a in self.amplitudes], dims="amplitude")
        yield Claim("C2b", "and within the bound derived without linearising (largest ratio)", measured=(radius / exact).max(),
                    at_most=1.0 + 1e-3, reason="the solver's tolerance; the adversary reaches the bound from below")
        sinusoidal = radius.sel(disturbance="sinusoidal", width=self.widths[0]).transpose("seed", "amplitude").values
        yield Claim("C2c", "the radius is proportional to the disturbance (log-log slope, sinusoidal, width 1)",
                    measured=[power_law(self.amplitudes, one).exponent for one in sinusoidal], expected=1.0, tolerance=0.1)
        loss = disturbed.train_loss.sel(amplitude=list(self.amplitudes), time=slice(self.until / 3, None)).max("time")
        yield Claim("C2d", "the loss ends below u²/(4 target), up to the square of the same factor (largest ratio)",
                    measured=(loss / (loss.amplitude**2 / (4 * self.target))).max(), at_most=1.21)
        strongest = disturbed.sel(disturbance="constant", amplitude=max(self.amplitudes))
        yield Claim("C2e", f"under a constant push of {max(self.amplitudes):g} weights drift along the target set meanwhile "
                    "(their final norm)", measured=strongest.weight_size.isel(time=-1).mean("width"), at_least=10.0)

        trapped, opposed = measured["trapped"], measured["opposed"]
        held = trapped.isel(amplitude=-1)
        yield Claim("C3", "an adversary that cancels the pull on the growing half holds the saddle: the loss does not fall "
                    "(final over initial)", measured=held.train_loss.isel(time=-1) / held.train_loss.isel(time=0),
                    at_least=1.0 - 1e-6)
        for name, seen, words in (("C3b", trapped, "the growing half"), ("C3c", opposed, "the whole gradient")):
            yield Claim(name, f"near the saddle the least amplitude that holds is |p| e (against {words}, in that unit)",
                        measured=self._threshold(seen), expected=1.0, tolerance=0.05,
                        reason="read off between the amplitudes tried, at most 0.1 apart")
        yield Claim("C3d", "an adversary's runs follow the closure (largest error over the target)",
                    measured=np.abs(opposed.target_error - theory["opposed"].target_error).max(("amplitude", "time")) / self.target, at_most=1e-3)

        rest = measured["equilibria"].isel(time=0)
        yield Claim("C4", "every proper truncation of the target's singular value decomposition is an equilibrium, at every "
                    "width (largest gradient norm)", measured=rest.gradient_norm.max(("width", "kept")), at_most=1e-12)
        widest = rest.sel(width=max(self.matrix_widths))
        yield Claim("C4b", f"and with {max(self.matrix_widths)} hidden units each is a strict saddle (largest smallest "
                    "eigenvalue of the Hessian)", measured=widest.hessian_eigenvalues.min("eigenvalue").max("kept"), at_most=-1e-6,
                    reason="with as many hidden units as kept modes the strongest modes alone are the global minimum")
        yield Claim("C4c", "the Hessian's eigenvalues are the enumeration's (largest difference)",
                    measured=self._against_enumeration(rest), at_most=1e-8)
        flat = [(np.abs(rest.hessian_eigenvalues.sel(width=k, kept=1).isel(seed=0)) < 1e-9).sum().item() for k in self.matrix_widths]
        yield Claim("C4d", "these saddles are flatter the wider the network (zero eigenvalues at the strongest mode alone, "
                    "growth from the narrowest to the widest)", measured=flat[-1] - flat[0], at_least=1)

    def _disturbed(self, measured):
        """All disturbed runs from random weights, with the kind of disturbance as a dimension."""
        parts = [measured["disturbed"].isel(frequency=i, drop=True) for i in (0, 1)]
        return xr.concat([*parts, measured["adversary"]], pd.Index(KINDS, name="disturbance"), combine_attrs="override")

    def _radius(self, disturbed) -> xr.DataArray:
        """The worst |error| after a third of the run (a constant push lowers it later still)."""
        late = disturbed.target_error.sel(amplitude=list(self.amplitudes), time=slice(self.until / 3, None))
        return np.abs(late).max("time")

    def _threshold(self, seen) -> list[float]:
        """The least amplitude that kept half the initial error, over |p| e at the start: one a seed."""
        kept = seen.target_error.isel(time=-1) > seen.target_error.isel(time=0) / 2
        ratio = np.asarray(self.pushes)
        held = [(ratio[row].min(initial=np.inf), ratio[~row].max(initial=0.0)) for row in kept.transpose("seed", ...).values]
        return [(above + below) / 2 for above, below in held]

    def _against_enumeration(self, rest) -> float:
        worst = 0.0
        for width in self.matrix_widths:
            for one in equilibria(self.modes, width):
                if len(one.kept) < len(self.modes):
                    seen = rest.sel(width=width, kept=sum(2**i for i in one.kept)).hessian_eigenvalues
                    difference = seen.isel(eigenvalue=slice(0, len(one.eigenvalues))) - one.eigenvalues
                    worst = max(worst, float(np.abs(difference).max()))
        return worst

    def figures(self, measured, theory):
        yield Figure("plane", "The phase plane of one hidden unit. Dots: runs from random weights; lines: the curves "
                     "k₁² − k₂² = constant that theory keeps undisturbed ones on. Black: the minimisers; dashed: the stable manifold "
                     "of the saddle (cross). Right: the same starts under a constant push drift along the minimisers.",
                     lambda axes: self._draw_plane(axes[0], measured), grid=(1, 2), size=(8.0, 3.9))
        yield Figure("gain", "Left: the worst late error against the disturbance's norm, by kind and width (means over seeds, one "
                     "standard error), under the exact bound. Right: the loss of one start with and without disturbances; "
                     "lines are the closed equations, undisturbed and against the gradient.",
                     lambda axes: self._draw_gain(axes[0], measured), grid=(1, 2))
        yield Figure("saddle", "Left: from near the stable manifold the error waits at the saddle, for a time ln(1/displacement)/target. "
                     "Right: final error under adversaries that start near the saddle: both hold it from the amplitude |p| e on.",
                     lambda axes: self._draw_saddle(axes[0], measured, theory), grid=(1, 2))
        yield Figure("equilibria", "The Hessian's eigenvalues at truncated decompositions of a target with singular values "
                     "3, 2, 1: lines from the enumeration, dots by differentiation.",
                     lambda axes: self._draw_equilibria(axes[0][0], measured), size=(6.0, 3.0))

    def _draw_plane(self, axes, measured):
        seen: Any = self._disturbed(measured).sel(width=min(self.widths), disturbance="constant")
        for axis, amplitude, reach, step in zip(axes, (0.0, max(self.amplitudes)), (3.2, 9.0), (1, 6), strict=True):
            for color, seed in zip(COLORS * len(seen.seed), seen.seed.values, strict=False):
                k1, k2 = (seen[name].sel(seed=seed, amplitude=amplitude).values for name in ("incoming", "outgoing"))
                axis.plot(k1[::step], k2[::step], "o", color=color, markersize=2.5, zorder=3)
                if amplitude == 0.0:
                    excess = k1[0] ** 2 - k2[0] ** 2
                    large, small = (k1, k2) if excess > 0 else (k2, k1)  # the larger one keeps its sign
                    along = np.linspace(small[0], small[-1], 100)
                    other = np.sqrt(along**2 + abs(excess)) * np.sign(large[0])
                    axis.plot(*((other, along) if excess > 0 else (along, other)), color=color, linewidth=1)
            half = np.geomspace(self.target / reach, reach, 200)
            for side in (1, -1):
                axis.plot(side * half, self.target / half * side, color="0", linewidth=1.2, label="minimisers" if side > 0 else None)
            axis.plot([-reach, reach], [reach, -reach], color="0.4", linestyle="--", linewidth=1, label="stable manifold")
            axis.plot(0, 0, "x", color="0", markersize=6)
            words = "undisturbed" if amplitude == 0.0 else f"constant push of {amplitude:g}"
            label(axis, "incoming weight k₁", "outgoing weight k₂", words)
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes[0].legend(loc=(0.0, 0.5))

    def _draw_gain(self, axes, measured):
        disturbed = self._disturbed(measured)
        radius = self._radius(disturbed)
        for color, kind in zip(COLORS, KINDS, strict=False):
            for marker, width in zip("osd^v", self.widths, strict=False):
                words = kind if width == self.widths[0] else None
                dots(axes[0], radius.sel(disturbance=kind, width=width), "amplitude", color=color, fmt=marker, label=words)
        axes[0].plot(self.amplitudes, [error_bound(u, self.target) for u in self.amplitudes], color="0", label="bound")
        axes[0].plot([], [], " ", label="width " + ", ".join(f"{m} {w}" for m, w in zip("●■◆", self.widths, strict=False)))
        label(axes[0], "norm of the disturbance", "worst late |error|", "input to state", xlog=True, ylog=True)
        axes[0].legend(fontsize=7)
        one = disturbed.sel(width=self.widths[-1], amplitude=[0.0, 0.1] if 0.1 in self.amplitudes else [0.0, self.amplitudes[-1]]).isel(seed=[0])
        said = 0.5 * self._from_start(one.sel(disturbance=KINDS[2])) ** 2
        axes[1].plot(one.time, said[0], color="0", label="undisturbed")
        axes[1].plot(one.time, said[1], color=COLORS[2])
        shown = one.train_loss.isel(seed=0)
        dots(axes[1], shown.sel(disturbance="constant", amplitude=0.0), every=6, color="0")
        for color, kind in zip(COLORS, KINDS, strict=False):
            dots(axes[1], shown.sel(disturbance=kind).isel(amplitude=1), every=6, color=color, label=kind)
        label(axes[1], "time (τ)", "loss", f"width {self.widths[-1]}, disturbances of norm {one.amplitude.values[1]:g}", ylog=True)
        axes[1].set(ylim=(1e-9, None), xlim=(-1, 41))
        axes[1].legend(fontsize=7, loc="upper right")

    def _draw_saddle(self, axes, measured, theory):
        seen, said = measured["manifold"].target_error, theory["manifold"].target_error
        for color, size in zip(shades(len(self.displacements)), self.displacements, strict=True):
            lines(axes[0], said.sel(growing=size), color=color, label=f"{size:.0e}".replace("e-0", "e−"))
            dots(axes[0], seen.sel(growing=size).isel(seed=0), every=2, color=color)
        dots(axes[0], seen.sel(growing=0.0).isel(seed=0), every=2, color="0.5", label="0")
        label(axes[0], "time (τ)", "error", "displaced from the manifold")
        axes[0].set_xlim(-0.5, 20)
        axes[0].legend(title="displacement", fontsize=7, title_fontsize=7, loc="center right")
        push = self._least_push()
        for color, (name, words) in zip(COLORS, (("trapped", "against growth"), ("opposed", "against the gradient")), strict=False):
            final = [t[name].target_error.isel(time=-1).assign_coords(amplitude=np.asarray(self.pushes)) for t in (measured, theory)]
            lines(axes[1], final[1], "amplitude", color=color, linestyle="-" if name == "trapped" else "--", label=words)
            dots(axes[1], final[0], "amplitude", color=color, fmt="o" if name == "trapped" else "s",
                 markersize=3 if name == "trapped" else 5.5, markerfacecolor=color if name == "trapped" else "none")  # fmt: skip
        axes[1].axvline(1.0, color="0.5", linestyle=":", linewidth=1)
        label(axes[1], f"disturbance's norm over |p| e = {push:.2g}", "final error", f"start at |p| = {self.trapped_from:g}")
        key_of_overlay(axes[1], loc="center right")

    def _draw_equilibria(self, axis, measured):
        width = max(self.matrix_widths)
        rest = measured["equilibria"].isel(time=0, seed=0).sel(width=width)
        found = [one for one in equilibria(self.modes, width) if len(one.kept) < len(self.modes)]
        for place, one in enumerate(found):
            values = rest.hessian_eigenvalues.sel(kept=sum(2**i for i in one.kept)).values
            axis.hlines(np.unique(np.round(one.eigenvalues, 9)), place - 0.35, place + 0.35, color=COLORS[0], linewidth=1.2)
            axis.plot(np.full(len(values), place), values, "o", color=COLORS[1], markersize=3)
        axis.axhline(0.0, color="0.5", linewidth=0.8)
        names = ["+".join(f"{self.modes[i]:g}" for i in one.kept) or "none" for one in found]
        axis.set_xticks(range(len(found)), names)
        label(axis, "modes kept (their singular values)", "Hessian eigenvalue", f"{width} hidden units")
