"""The norm of each layer's Hessian at the start tells trainable initialisations from untrainable ones, and can be set."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import xarray as xr

from armillary.clock import At
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least, setting
from armillary.models import MLP
from armillary.models.curvature_control import CurvatureControlled
from armillary.models.variance_law import BALANCES, VarianceLawMLP
from armillary.probes.curvature import Sharpness
from armillary.probes.layer_curvature import ChainRuleError, LayerCurvature, LayerHessian
from armillary.probes.losses import Accuracy, Losses
from armillary.probes.preactivations import Preactivations
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, shades
from armillary.rules import SGD, Descent, Loss
from armillary.simulation import simulate
from armillary.study import Claim, Paper, Study
from armillary.tasks import Digits
from armillary.theory.layer_curvature import equal_width_level

CLASSES = Loss("cross_entropy")
UNTRAINED = float(np.log(10))
"""Cross-entropy of ten classes where nothing is known."""
GOOD, COLD, HOT = (0.7, 0.85), 0.5, 1.2
"""Scales of deep networks' weights, relative to He's: good ones, too small, too large."""
AS_GOOD = 0.03
"""Accuracies that differ less are of networks that train equally well (the entry's margin for too large a start)."""
GENTLE, WILD = 0.7, 1.4
"""Scales of shallow ones between which the largest usable rate is compared with the curvature."""
SCARCE = 8
"""Inputs over which random networks' Hessians are averaged: networks differ far more than inputs do."""


def exact_cross_entropy(outputs, targets):
    """Cross-entropy in a form whose second derivative keeps its relative accuracy where softmax saturates: log1p of the other
    classes' odds against the likeliest. The usual one cancels there, and two ways to the same Hessian differ by 1e-9 of it."""
    top = jnp.argmax(outputs, axis=-1, keepdims=True)
    best = jnp.take_along_axis(outputs, top, axis=-1)
    others = jnp.where(jnp.arange(outputs.shape[-1]) == top, 0.0, jnp.exp(outputs - best))
    chosen = jnp.take_along_axis(outputs - best, targets[..., None], axis=-1)
    return jnp.log1p(jnp.sum(others, axis=-1)) - chosen[..., 0]


@dataclass(frozen=True, kw_only=True)
class HessianNormInit(Study):
    """Usual initialisations keep signals and gradients of one size. Here the curvature is watched instead: the norm of the loss's
    Hessian in each layer's weights, which an approximate chain rule gives as a product over the other layers.

    It recovers He's, Glorot's and dropout's factors, shows what unequal widths do, tells trainable from untrainable starts,
    and can be brought to one; it does not give the largest usable learning rate.
    """

    paper: ClassVar = Paper(
        "Revisiting Initialization of Neural Networks", authors="Maciej Skorski, Alessandro Temperoni, Martin Theobald",
        year=2020, arxiv="2004.09506", venue="ACML 2021",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 3, "paper": 8}

    small_widths: tuple[int, ...] = at_least(1, default=(8, 8, 8), smoke=(4, 4))
    """Hidden widths of the networks whose Hessians are formed."""
    activations: tuple[str, ...] = setting(("tanh", "softplus", "gelu"), smoke=("tanh",))
    """Smooth activations that are tried beside ReLU."""
    small_scales: tuple[float, ...] = above(0.0, default=(0.5, 1.0, 1.5, 2.0), smoke=(0.5, 1.0))
    """Their scales."""
    tanh_widths: tuple[int, ...] = at_least(2, default=(16, 64, 256), smoke=(16,), paper=(16, 64, 256, 1024))
    """Widths of tanh networks on which the chain rule is tried."""
    tanh_depth: int = at_least(2, default=4, smoke=2)
    """Their weight layers."""
    tanh_samples: int = at_least(1, default=64, smoke=16, paper=512)
    """Their images."""
    widths: tuple[int, ...] = at_least(1, default=(256, 64, 256, 64), smoke=(128, 64))
    """Hidden widths, in turn other than the 64 inputs and equal to them."""
    keep: float = above(0.0, default=0.7)
    """Share of hidden units that dropout keeps."""
    draws: int = at_least(2, default=300, smoke=20, paper=2000)
    """Random networks over which Hessians are averaged."""
    depths: tuple[int, ...] = at_least(3, default=(10,), smoke=(4,), paper=(4, 10, 20))
    """Weight layers of networks of equal widths."""
    level_scales: tuple[float, ...] = above(0.0, default=(0.8, 1.0, 1.25))
    """Their scales."""
    width: int = at_least(2, default=64, smoke=16)
    """Units of each hidden layer of networks that are trained."""
    digits: int = at_least(50, default=256, smoke=64, paper=512)
    """Training images."""
    deep: int = at_least(3, default=10, smoke=4)
    """Weight layers of deep networks."""
    deep_scales: tuple[float, ...] = above(0.0, default=(0.5, 0.7, 0.85, 1.0, 1.2), smoke=(0.5, 0.7, 0.85, 1.2))
    """Their scales."""
    deep_rates: tuple[float, ...] = above(0.0, default=(0.03, 0.1, 0.3), smoke=(0.1, 0.3), paper=(0.01, 0.03, 0.1, 0.3, 1.0))
    """Learning rates of which the best counts; at desk size 1 was best for none of the scales and is left out."""
    deep_steps: int = at_least(10, default=200, smoke=20, paper=300)
    """Full-batch steps."""
    shallow_scales: tuple[float, ...] = above(0.0, default=(0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0), smoke=(0.7, 0.85, 1.2, 1.4))
    """Scales of networks of four layers."""
    shallow_rates: tuple[float, ...] = above(0.0, default=tuple(2.0**k for k in range(-5, 3)), smoke=(0.125, 0.5))
    """Learning rates tried on them."""
    shallow_steps: int = at_least(10, default=60, smoke=20)
    """Steps at each."""

    def experiments(self):
        small = Sweep(self._look(Digits(16, pooled=4), self._small(), [ChainRuleError()], "float64", Loss(exact_cross_entropy)), {"activation": ("relu", *self.activations), "model.scale": self.small_scales})
        wide = Sweep(self._look(Digits(self.tanh_samples), MLP(16, self.tanh_depth, "tanh", gain=1.0), [LayerHessian(tuple(range(self.tanh_depth - 1)), tolerance=1e-2)]), {"width": self.tanh_widths, "model.scale": (1.0,)})
        laws = Sweep(self._random(VarianceLawMLP(self.widths)), {"balance": tuple(BALANCES.values())})
        level = Sweep(self._random(MLP(64, 4, gain=2.0)), {"depth": self.depths, "model.scale": self.level_scales})
        return {
            "small": small,
            "wide": wide,
            "laws": laws,
            "dropout": self._random(VarianceLawMLP(self.widths, keep=self.keep)),
            "compensated": self._random(VarianceLawMLP(self.widths, keep=self.keep, compensated=True)),
            "level": level,
            "deep start": Sweep(self._start(self.deep), {"model.scale": self.deep_scales}),
            "shallow start": Sweep(self._start(4), {"model.scale": self.shallow_scales}),
            "deep": Sweep(self._trained(self._network(self.deep), self.deep_steps), {"learning_rate": self.deep_rates, "model.scale": self.deep_scales}),
            "controlled": Sweep(self._trained(self._controlled(), self.deep_steps, [LayerCurvature()]), {"learning_rate": self.deep_rates}),
            "shallow": Sweep(self._trained(self._network(4), self.shallow_steps), {"learning_rate": self.shallow_rates, "model.scale": self.shallow_scales}),
        }

    def measure(self, name, what, seeds, key, progress):
        counts = {"laws": self.draws, "dropout": self.draws, "compensated": self.draws, "level": self.draws // 2, "small": 4}
        counts |= dict.fromkeys(("wide", "deep", "controlled"), 2 * seeds)
        return simulate(what, seeds=counts.get(name, seeds), key=key, memory=3e8, progress=progress)

    def _small(self) -> VarianceLawMLP:
        return VarianceLawMLP(self.small_widths, "relu", bias=False)

    def _network(self, depth: int) -> MLP:
        return MLP(self.width, depth, gain=2.0)

    def _controlled(self) -> CurvatureControlled:
        some = Digits(self.digits).clean.train[:64]
        return CurvatureControlled(self._network(self.deep), some.inputs, some.targets, CLASSES)

    def _look(self, task, model, probes, precision: Literal["float32", "float64"] = "float32", loss=CLASSES) -> Experiment:
        return Experiment(task, model, Descent(SGD(), 0, loss), probes, At((0.0,)), precision=precision)

    def _random(self, model) -> Experiment:
        return self._look(Digits(SCARCE, "onehot"), model, [LayerCurvature(), Preactivations()], loss=Loss())

    def _start(self, depth: int) -> Experiment:
        return self._look(Digits(self.digits), self._network(depth), [LayerCurvature(batch=True), Sharpness()])

    def _trained(self, model, steps: int, probes=()) -> Experiment:
        return Experiment(Digits(self.digits), model, Descent(SGD(), steps, CLASSES), [Losses(), Accuracy(), *probes], At((0.0, float(steps))))

    def claims(self, measured, theory):
        yield from self._rule_claims(measured)
        yield from self._product_claims(measured, theory)
        yield from self._training_claims(measured)

    def _ratios(self, seen) -> xr.DataArray:
        """Norm by the chain rule over the exact one, mean over the layers looked at."""
        return (seen.layer_gauss_newton_norm / seen.layer_hessian_norm).isel(time=0).mean("layer")

    def _rule_claims(self, measured):
        small = measured["small"].isel(time=0)
        relu, tanh = small.sel(activation="relu"), small.sel(activation="tanh", scale=1.0).isel(layer=slice(-1))
        yield Claim("C1", "ReLU: the chain rule is exact sample by sample (largest relative error over layers, scales and networks)", measured=relu.chain_rule_error.max(), at_most=1e-10)
        yield Claim("C1a", "and for the mean over samples (largest |norm ratio - 1|)", measured=np.abs(relu.chain_rule_ratio - 1).max(), at_most=1e-10)
        error, ratio = tanh.chain_rule_error.mean("layer"), tanh.chain_rule_ratio.mean("layer")
        yield Claim("C1b", "tanh, single samples: the error is large (median relative error at scale 1, mean over all layers but the last)", measured=error, at_least=0.5, reason="the entry saw 0.7 to 0.8 and gives no threshold; set before the first run")
        yield Claim("C1c", "while norms of means over samples agree better (that error less |norm ratio - 1|)", measured=error - np.abs(ratio - 1), at_least=0.0, reason="set before the first run")
        wide = self._ratios(measured["wide"]).sel(scale=1.0)
        most, least = max(self.tanh_widths), min(self.tanh_widths)
        yield Claim("C1d", f"tanh, width {most}, scale 1: norm ratio, mean over all layers but the last", measured=wide.sel(width=most), between=(0.75, 1.0))
        yield Claim("C1e", f"it improves with width (ratio at {most} less that at {least})", measured=wide.sel(width=most) - wide.sel(width=least), at_least=0.0, reason="the entry saw 0.17 and gives no threshold; set before the first run. In narrow networks the ratio scatters by 0.2 and is above 1 in some layers, whose mean hides how far single ones are off; it grows with the number of samples too, over which the dropped part averages out: at width 64 from 0.72 for 64 images to 0.81 for 512")

    def _over_theory(self, measured, theory, name: str) -> xr.DataArray:
        """Measured mean trace over the product formula's."""
        seen, said = (which[name].layer_curvature_trace.isel(time=0) for which in (measured, theory))
        return seen.mean("seed") / said

    def _farthest(self, ratio: xr.DataArray) -> float:
        return float(ratio.values.ravel()[np.abs(np.log(ratio.values.ravel())).argmax()])

    def _product_claims(self, measured, theory):
        laws = self._over_theory(measured, theory, "laws")
        yield Claim("C2", f"layers' Hessian traces follow the product formula at widths {self.widths}, under all three laws (ratio farthest from 1 over layers)", measured=self._farthest(laws), expected=1.0, tolerance=0.05,
                    reason=f"the entry saw 0.98 to 1.02; 0.05 is for the scatter over {self.draws} networks, set before the first run. All laws' networks are the same draws with other factors, which move formula and networks alike")
        level = measured["level"].layer_curvature_trace.isel(time=0)
        deep = max(self.depths)
        ratio = self._over_theory(measured, theory, "level").sel(depth=deep, scale=1.0)
        known = ratio.notnull()
        yield Claim("C2a", f"and at width 64, {deep} layers (the same, mean over layers)", measured=ratio.mean(), expected=1.0, tolerance=0.15, reason="the entry saw 1.08; products of that many layers scatter nearly log-normally. Set before the first run")
        mean = level.mean("seed").sel(depth=deep, scale=1.0).where(known, drop=True)
        yield Claim("C2b", "where all layers are equal (largest over smallest)", measured=mean.max() / mean.min(), at_most=1.15, reason="the entry saw them within 7 % either way; set before the first run")
        moved = np.log(level / level.sel(scale=1.0))
        expected = xr.DataArray([[np.log(equal_width_level(g, d)) for g in self.level_scales] for d in self.depths], dims=("depth", "scale"), coords={"depth": list(self.depths), "scale": list(self.level_scales)})
        yield Claim("C2c", "a factor g on all weights multiplies each by g^(2(L-1)) (largest relative error over networks and layers)", measured=np.abs(np.exp(moved - expected) - 1).max(), at_most=1e-3, reason="exact but for rounding in single precision; set before the first run")
        mean = measured["laws"].layer_curvature_trace.isel(time=0, layer=slice(-1)).mean("seed").sel(balance=0.5)
        yield Claim("C3", "Glorot's law makes hidden layers of alternating widths equal (largest over smallest, all but the last)", measured=mean.max() / mean.min(), at_most=1.1, reason="exact for means; set before the first run")
        yield Claim("C3a", f"dropout (keep {self.keep:g}): the formula's factor keep^{len(self.widths)} (trace over formula, farthest from 1)", measured=self._farthest(self._over_theory(measured, theory, "dropout")), expected=1.0, tolerance=0.1, reason="masks add scatter; set before the first run")
        yield Claim("C3b", "and variances over keep undo it (trace over that without dropout, farthest from 1)", measured=self._farthest(self._over_theory(measured, theory, "compensated")), expected=1.0, tolerance=0.1, reason="as before")
        ratio = max(self.widths) / min(self.widths)
        fan_in = measured["laws"].isel(time=0).sel(balance=0.0).mean("seed").isel(layer=slice(-1))
        size, norm = fan_in.preactivation_size, fan_in.layer_curvature_trace
        yield Claim("C5", "fan-in at unequal widths: forward variance looks the same in all hidden layers (largest over smallest)", measured=size.max() / size.min(), at_most=1.1, reason="the entry gives no number; set before the first run")
        yield Claim("C5a", f"but the Hessians differ by the widths' ratio (largest over smallest; the widths' is {ratio:g})", measured=norm.max() / norm.min(), expected=ratio, tolerance=0.1, relative=True, reason="set before the first run")

    def _best(self, seen) -> xr.DataArray:
        """Test accuracy at the end with the rate that is best on average; diverged runs count as wrong everywhere."""
        accuracy = seen.test_accuracy.isel(time=-1).fillna(0.0)
        return accuracy.isel(learning_rate=accuracy.mean("seed").argmax("learning_rate"))

    def _sharpness(self, measured, which: str) -> xr.DataArray:
        return np.exp(np.log(measured[f"{which} start"].sharpness.isel(time=0)).mean("seed"))

    def _largest(self, measured) -> xr.DataArray:
        """The largest rate that trains: the loss ends below half of what it is where nothing is known."""
        loss = measured["shallow"].train_loss
        trained = loss.isel(time=-1).fillna(np.inf) < UNTRAINED / 2
        return np.exp(np.log(loss.learning_rate.where(trained).max("learning_rate")).mean("seed"))

    def _training_claims(self, measured):
        best, sharpness = self._best(measured["deep"]), self._sharpness(measured, "deep")
        good = best.sel(scale=list(GOOD)).min("scale")
        yield Claim("C4", f"{self.deep} layers: too small a start does not train (accuracy at {GOOD[0]:g} and {GOOD[1]:g}, the worse, less that at {COLD:g})", measured=good - best.sel(scale=COLD), at_least=0.3)
        yield Claim("C4a", f"and too large a one trains less well (less that at {HOT:g})", measured=good - best.sel(scale=HOT), at_least=AS_GOOD)
        well = best >= best.max("scale") - AS_GOOD
        yield Claim("C4b", f"starts that train well have a top Hessian eigenvalue of order one (logarithm to base 10, mean over each seed's starts with an accuracy within {AS_GOOD:g} of its best)", measured=(well * np.log10(sharpness)).sum("scale", skipna=False) / well.sum("scale"),
                    between=(float(np.log10(0.3)), float(np.log10(30.0))), reason="the entry's range. First of each seed's best start alone: starts from 0.7 to 1 train equally well, and which is best turned with how a sum is rounded (-0.13 ± 0.16 or 0.77 ± 0.48 on the same networks at desk size). The mean is of order one, its ends are not all: those at 1, with eigenvalues near 70, train as well")
        norm = measured["deep start"].layer_curvature_norm.isel(time=0, layer=self.deep // 2)
        yield Claim("C4c", f"the middle layer's norm moves by the formula's factor from scale {COLD:g} to {GOOD[0]:g} (over it)", measured=norm.sel(scale=GOOD[0]) / norm.sel(scale=COLD) / equal_width_level(GOOD[0] / COLD, self.deep), expected=1.0, tolerance=0.05,
                    reason="the entry saw 424 of 426; softmax bends the law where outputs are large. Set before the first run")
        controlled = measured["controlled"]
        start = np.exp(np.log(controlled.layer_curvature_norm.isel(time=0, learning_rate=0)).mean("layer"))
        yield Claim("C4d", "a factor on all weights brings layers' Hessian norms to one (geometric mean over layers)", measured=start, expected=1.0, tolerance=0.25, reason="an addition; found on 64 of the images. Set before the first run")
        yield Claim("C4e", "and this start trains like the best scale that was tried (accuracy less its mean)", measured=self._best(controlled) - best.mean("seed").max("scale"), at_least=-AS_GOOD, reason="an addition; set before the first run")
        largest, sharpness = self._largest(measured), self._sharpness(measured, "shallow")
        moved = lambda values: values.sel(scale=WILD) / values.sel(scale=GENTLE)
        yield Claim("C6", f"4 layers: the top eigenvalue grows from scale {GENTLE:g} to {WILD:g} (ratio)", measured=moved(sharpness), at_least=10.0, reason="the entry saw 30; set before the first run")
        yield Claim("C6a", "but the largest rate that trains falls far less, so that it is not set by the curvature (growth of their product)", measured=moved(largest * sharpness), at_least=4.0, reason="the entry saw 2 to 4 grow to 32; set before the first run")

    def figures(self, measured, theory):
        yield Figure("profiles", f"Layers' Hessian traces in random ReLU networks, squared error, mean over {self.draws} networks, right half as many (dots; bars: one standard error), and the product formula (lines). Left: unequal widths {self.widths} under three variance laws. "
                     f"Middle: fan-in with dropout (keep {self.keep:g}). Right: width 64, {max(self.depths)} layers, three scales of the weights.", lambda axes: self._draw_profiles(axes[0], measured, theory), grid=(1, 3))
        yield Figure("training", f"ReLU networks on {self.digits} digits. Left: test accuracy with the best rate (deep: {self.deep_steps} steps, 4 layers: {self.shallow_steps}) against the Hessian's top eigenvalue at the start, scales of the weights as labels, and a start controlled to norm 1. "
                     "Middle: layers' norms at the start of the deep ones, mean of samples' (dots) and that of their mean Hessian (crosses). Right: largest rate that trains, 4 layers; line: 2/λ.", lambda axes: self._draw_training(axes[0], measured), grid=(1, 3))
        yield Figure("rule", "The approximate chain rule. Left: relative error of single samples' blocks in small networks (median), by scale of the weights. Middle: norm of the mean block by the rule over the exact one. Right: the same for tanh networks on digits, by width, at scale 1.",
                     lambda axes: self._draw_rule(axes[0], measured), grid=(1, 3))

    def _draw_profiles(self, axes, measured, theory):
        def draw(axis, color, seen, said, words, line="-"):
            said = said.isel(time=0).dropna("layer")
            axis.plot(said.layer, said, line, color=color, label=words)
            dots(axis, seen.isel(time=0).sel(layer=said.layer), "layer", color=color)

        of = lambda which, name: which[name].layer_curvature_trace
        for color, (law, balance) in zip(COLORS, BALANCES.items(), strict=False):
            draw(axes[0], color, of(measured, "laws").sel(balance=balance), of(theory, "laws").sel(balance=balance), law.replace("_", "-"))
        pairs = (("laws", "no dropout"), ("dropout", "dropout"), ("compensated", "variance over keep"))
        for color, (name, words) in zip((COLORS[0], COLORS[3], COLORS[4]), pairs, strict=True):
            seen, said = (of(which, name) for which in (measured, theory))
            draw(axes[1], color, *((seen.sel(balance=0.0), said.sel(balance=0.0)) if name == "laws" else (seen, said)), words, "--" if name == "compensated" else "-")
        for color, scale in zip(shades(len(self.level_scales)), self.level_scales, strict=True):
            chosen = {"depth": max(self.depths), "scale": scale}
            draw(axes[2], color, of(measured, "level").sel(chosen), of(theory, "level").sel(chosen), f"scale {scale:g}")
        for axis, title in zip(axes, ("unequal widths", "dropout", "equal widths"), strict=True):
            label(axis, "layer", "trace of the Hessian", title, ylog=True)
            low, high = axis.get_ylim()
            axis.set_ylim(low, high * (high / low) ** 0.6)
            axis.xaxis.get_major_locator().set_params(integer=True)
            key_of_overlay(axis, loc="upper center", ncols=2, fontsize=7)

    def _draw_training(self, axes, measured):
        for color, which, words in ((COLORS[0], "deep", f"{self.deep} layers"), (COLORS[1], "shallow", "4 layers")):
            best, sharpness = self._best(measured[which]), self._sharpness(measured, which)
            dots(axes[0], best.assign_coords(scale=sharpness.values), "scale", color=color, linestyle="-", linewidth=1, label=words)
            if which == "deep":
                for scale, x, y in zip(best.scale.values, sharpness.values, best.mean("seed").values, strict=True):
                    axes[0].annotate(f"{scale:g}", (x, y), (7, -9), textcoords="offset points", fontsize=7, color=color, ha="center")
        axes[0].axhline(float(self._best(measured["controlled"]).mean()), color=COLORS[2], linestyle="--", linewidth=1, label="controlled")
        label(axes[0], "top eigenvalue at the start", "test accuracy", "an arch", xlog=True)
        axes[0].set_ylim(0, 1)
        axes[0].legend(loc="lower center")
        start = measured["deep start"].isel(time=0)
        for color, scale in zip(shades(len(self.deep_scales)), self.deep_scales, strict=True):
            dots(axes[1], start.layer_curvature_norm.sel(scale=scale), "layer", color=color, label=f"{scale:g}")
            axes[1].plot(start.layer, start.layer_curvature_batch.sel(scale=scale).mean("seed"), "x", color=color, markersize=3)
        label(axes[1], "layer", "norm of the layer's Hessian", f"{self.deep} layers, by scale", ylog=True)
        axes[1].xaxis.get_major_locator().set_params(integer=True)
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
        largest, sharpness = self._largest(measured), self._sharpness(measured, "shallow")
        axes[2].plot(sharpness, 2 / sharpness, color="0.3", label="2/λ")
        axes[2].plot(sharpness, largest, "o", color=COLORS[1], label="measured")
        label(axes[2], "top eigenvalue at the start", "largest rate that trains", "4 layers", xlog=True, ylog=True)
        axes[2].legend(loc="lower left")

    def _draw_rule(self, axes, measured):
        small = measured["small"].isel(time=0, layer=slice(-1)).mean("layer")
        for color, name in zip(COLORS, ("relu", *self.activations), strict=False):
            one = small.sel(activation=name)
            for axis, what in zip(axes, (one.chain_rule_error, one.chain_rule_ratio), strict=False):
                dots(axis, what, "scale", color=color, linestyle="-", linewidth=1, label=name)
        label(axes[0], "scale of the weights", "relative error", "single samples")
        label(axes[1], "scale of the weights", "norm by the rule over the exact", "mean over samples")
        axes[1].legend(loc="lower right")
        dots(axes[2], self._ratios(measured["wide"]).sel(scale=1.0), "width", color=COLORS[1], linestyle="-", linewidth=1)
        label(axes[2], "width", "norm by the rule over the exact", "tanh, digits", xlog=True)
        axes[2].set_xticks(self.tanh_widths, [str(w) for w in self.tanh_widths])
        axes[2].minorticks_off()
        for axis in axes[1:]:
            axis.set_ylim(0, 1.1)
