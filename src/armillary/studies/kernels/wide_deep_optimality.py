"""Infinitely wide and deep networks classify as the nearest neighbour, the majority, or, with the right activation, optimally."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from armillary.clock import At
from armillary.experiment import Experiment, Sweep
from armillary.fields import at_least
from armillary.measures import power_law
from armillary.models import MLP
from armillary.models.activations import Hermite
from armillary.models.radial_kernel import distance_kernel
from armillary.probes import EmpiricalTangentKernel, NetworkOutputs
from armillary.probes.agreement import Agreement, TestFit
from armillary.report.figure import Figure
from armillary.report.style import COLORS, cobweb, dots, label, shades
from armillary.rules import Descent
from armillary.rules.solved import Solved
from armillary.rules.solvers import KernelRidge
from armillary.rules.votes import BayesClassifier, KernelVote
from armillary.study import Claim, Paper, Study
from armillary.tasks.given import GivenSamples
from armillary.tasks.sphere import ArcRegions, DirichletClasses, simplex_grid
from armillary.theory.kernels.depth import DeepKernel, logarithms
from armillary.theory.kernels.taxonomies import (
    koenigs,
    koenigs_kernel,
    limit_kernel,
    log_koenigs,
    optimal_activation,
    series_of,
    taxonomy,
)
from armillary.theory.wide_deep import WideDeepLimit as WideDeepLimit

NEAREST = Hermite((0.0, 0.0, 1.0))
MAJORITY = Hermite((0.1**0.5, 0.3**0.5, 0.0, 0.6**0.5))
PLANE = optimal_activation(2)
COSINE = Hermite(tuple((1 / np.cosh(1) / f) ** 0.5 if f else 0.0 for f in (1, 0, 2, 0, 24, 0, 720)))
"""The first four terms of the cosine's dual cosh(xi)/cosh(1); the rest is 2e-5."""

CLASSES = {"nearest neighbour": NEAREST, "majority": MAJORITY, "singular kernel": PLANE}

OURS = "ours, set before the run; the entry gives no threshold"
ENTRY = "the entry's threshold"


def two_terms(linear: float, order: int) -> Hermite:
    """Dual linear xi + (1 - linear) xi^order."""
    return Hermite((0.0, linear**0.5, *[0.0] * (order - 2), (1 - linear) ** 0.5))


ALPHAS = {"0.4": two_terms(0.5, 63), "1": optimal_activation(1), "2": two_terms(0.5, 3), "3.03": two_terms(0.25, 3)}
"""Activations by the singular order of their kernel."""


@dataclass(frozen=True, kw_only=True)
class WideDeepOptimality(Study):
    """Networks of infinite width and depth, trained to interpolate, are one of three classifiers, by a few numbers of their
    activation: the nearest neighbour, the majority, or a smoother of singular kernel. It is optimal for classification if its
    singularity has the order of the data's dimension, and there are simple activations for which it has.

    Depth helps classification although it ruins regression.
    """

    paper: ClassVar = Paper(
        "Wide and Deep Neural Networks Achieve Optimality for Classification",
        authors="Adityanarayanan Radhakrishnan, Mikhail Belkin, Caroline Uhler", year=2022, arxiv="2204.14126",
        venue="PNAS 2023",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 3, "paper": 10}

    samples: int = at_least(10, default=300, smoke=20, paper=10_000)
    """Training samples on the sphere."""
    tests: int = at_least(10, default=500, smoke=20, paper=10_000)
    """Test points."""
    few: int = at_least(10, default=100, smoke=20, paper=10_000)
    """Training samples where ReLU and erf are iterated."""
    deep: int = at_least(2, default=400, smoke=20)
    """Hidden layers at most."""
    arc: tuple[int, ...] = at_least(10, default=(100, 400, 1600, 6400), smoke=(20, 40), paper=(100, 400, 1600, 6400, 25_600))
    """Training samples on the arc."""
    arc_draws: int = at_least(1, default=4, smoke=1)
    """Data sets on the arc for each seed."""
    slow_draws: int = at_least(1, default=4, smoke=1)
    """And for ReLU."""
    balanced_draws: int = at_least(1, default=32, smoke=1)
    """The same where classes are balanced."""
    many: int = at_least(10, default=1600, smoke=20, paper=10_000)
    """Training samples on the sphere where smoothers are compared with each other."""
    grid: int = at_least(4, default=40, smoke=8)
    """Points along a side of the pictures of decision regions."""
    regression_samples: int = at_least(10, default=200, smoke=20, paper=1000)
    """Training samples where a function is fitted too."""
    widths: tuple[int, ...] = at_least(4, default=(64, 256, 1024), smoke=(8,), paper=(64, 256, 1024, 4096))
    """Widths of finite networks of two hidden layers."""
    networks: int = at_least(2, default=60, smoke=2, paper=1000)
    """How many of each."""

    def experiments(self):
        depths = {"nearest neighbour": (2, 5, 8, 12), "majority": (3, 10, 20, 40), "singular kernel": (10, 40, self.deep // 4, self.deep),
                  "cos": (3, 6, 12, 30)}  # fmt: skip
        deep = {name: self._deep(phi, depths[name]) for name, phi in {**CLASSES, "cos": COSINE}.items()}
        return {
            **deep,
            "covariance": self._deep(PLANE, (5, 10, 20, 40), tangent=0.0),
            "erf": self._deep("erf", (self.deep // 20, self.deep // 4, self.deep), self.few),
            "relu": self._deep("relu", (3, 30, 3 * self.deep // 4), self.few),
            "regression": Sweep(self._fitted(DirichletClasses(samples=self.regression_samples, test_samples=self.tests, targets="product"),
                                             DeepKernel(PLANE), [TestFit()]), {"depth": (10, 20, 40)}),
            **{f"regions, {name}": self._regions(phi) for name, phi in CLASSES.items()},
            **{f"arc, {name}": self._on_arc(weights, self.arc) for name, weights in self._smoothers().items()},
            **{f"balanced arc, {name}": self._on_arc(self._smoothers()[name], self.arc[1:2], 2.0, 0.5) for name in ("0.4", "1")},
            **{f"sphere, {name}": self._on_sphere(weights) for name, weights in
               {"erf": koenigs_kernel("erf"), "2": koenigs_kernel(PLANE), "nearest": distance_kernel(np.inf)}.items()},
            "finite": Sweep(self._finite(), {"width": self.widths}),
        }  # fmt: skip

    def _fitted(self, task, model, probes, solver=None) -> Experiment:
        return Experiment(task, model, Solved(KernelRidge() if solver is None else solver), probes, At((0,)), precision="float64")

    def _deep(self, phi, depths, samples=None, tangent=1.0) -> Sweep:
        """Interpolation at several depths, compared with the classifiers of all classes."""
        own = phi if taxonomy(phi).kind == "singular kernel" else PLANE
        references = {"nearest": distance_kernel(np.inf), "majority": distance_kernel(0.0), "koenigs": koenigs_kernel(own)}
        probes = [Agreement(KernelVote(), references)]
        task = DirichletClasses(samples=self.samples if samples is None else samples, test_samples=self.tests)
        return Sweep(self._fitted(task, DeepKernel(phi, tangent=tangent, scaled=True), probes), {"depth": sorted(set(depths))})

    def _smoothers(self):
        votes = {name: koenigs_kernel(phi) for name, phi in ALPHAS.items()}
        return {**votes, "Hilbert": distance_kernel(1.0), "nearest": distance_kernel(np.inf)}

    def _on_arc(self, weights, sizes, periods=6.0, share=0.25) -> Sweep:
        task = ArcRegions(sizes[0], periods, share, test_samples=self.tests)
        return Sweep(self._fitted(task, weights, [Agreement(BayesClassifier(), {"bayes": None})], KernelVote()), {"samples": sizes})

    def _on_sphere(self, weights) -> Experiment:
        return self._fitted(DirichletClasses(samples=self.many, test_samples=self.tests), weights, [TestFit()], KernelVote())

    def _regions(self, phi) -> Sweep:
        grid = _directions(simplex_grid(self.grid))
        task = GivenSamples(*_drawn(), grid, np.zeros(len(grid)))
        return Sweep(self._fitted(task, DeepKernel(phi, scaled=True), [NetworkOutputs(len(grid))]), {"depth": (2, 10, 50)})

    def _finite(self) -> Experiment:
        task, model = GivenSamples(np.sqrt(3) * _directions(simplex_grid(2)), np.zeros(6)), MLP(self.widths[0], 3, PLANE, "ntk", bias=False, gain=1.0)
        return Experiment(task, model, Descent(steps=0), [EmpiricalTangentKernel(6)], At((0,)))

    def measure(self, name, what, seeds, key, progress):
        many = {"finite": self.networks, "regions": 1, "balanced": self.balanced_draws * seeds, "relu": self.slow_draws * seeds}
        many |= dict.fromkeys(("arc", "sphere"), self.arc_draws * seeds)
        draws = next((count for start, count in many.items() if name.startswith(start)), seeds)
        return super().measure(name, what, draws, key, progress)

    def theory(self):
        """Formulas; what `predict` says of one depth at a time is that agreements are 1."""
        return {}

    def claims(self, measured, theory):
        alone = {name: seen.isel(time=0) for name, seen in measured.items()}
        yield from self._class_claims(alone)
        yield from self._order_claims()
        yield from self._arc_claims(alone)
        yield from self._regression_claims(alone["regression"])
        yield from self._slow_claims(alone["relu"].majority_agreement)
        yield from self._finite_claims(alone["finite"].tangent_kernel)

    def _class_claims(self, alone):
        last = lambda name, which: alone[name][f"{which}_agreement"].isel(depth=-1)
        words = lambda name: f"depth {int(alone[name].depth[-1])}"
        yield Claim("C1", f"g(0) = g'(0) = 0 (h_2): the network is the nearest neighbour (agreement of decisions, {words('nearest neighbour')})",
                    measured=last("nearest neighbour", "nearest"), at_least=0.97, reason=ENTRY)
        yield Claim("C1b", f"g(0) > 0 and g'(1) > 1 (0.1 + 0.3 ξ + 0.6 ξ³): it is the majority (agreement, {words('majority')})",
                    measured=last("majority", "majority"), expected=1.0, tolerance=0.0, reason=ENTRY)
        yield Claim("C1c", f"g(0) = 0, g'(0) > 0 ((ξ + ξ³)/2): the covariance's interpolator is the smoother of kernel ψ (agreement, depth {int(alone['covariance'].depth[2])})",
                    measured=alone["covariance"].koenigs_agreement.isel(depth=2), at_least=0.99, reason=ENTRY)
        yield Claim("C1d", f"so is the tangent kernel's, more slowly: its corrections fall as 1/depth and are more singular (agreement, {words('singular kernel')})",
                    measured=last("singular kernel", "koenigs"), at_least=0.9, reason=ENTRY)
        yield Claim("C1e", f"and for erf (agreement, {words('erf')})", measured=last("erf", "koenigs"), at_least=0.8, reason=OURS)
        yield Claim("C1f", f"the condition g'(1) > 1 matters: cos has g(0) > 0 but g'(1) = 0.76, and is no majority (agreement, {words('cos')})",
                    measured=last("cos", "majority"), at_most=0.9, reason=OURS)

    def _order_claims(self):
        slope = lambda phi: -2 * float(np.diff(log_koenigs(phi, [1e-4, 1e-5])[0])[0] / np.log(0.1))
        for name, words, phi in (("C2", "(ξ + ξ⁷)/2", optimal_activation(1)), ("C2b", "(ξ + ξ³)/2", two_terms(0.5, 3)),
                                 ("C2c", "ξ/4 + ξ²/2 + ξ³/4", optimal_activation(4)), ("C2d", "erf", "erf")):  # fmt: skip
            yield Claim(f"{name}", f"ψ is as singular as 2 log(1/g'(0))/log g'(1) says (order from 1 - ξ = 1e-4 to 1e-5, {words})",
                        measured=slope(phi), expected=taxonomy(phi).order, tolerance=0.001, relative=True, reason=OURS)
        deep = logarithms(DeepKernel(PLANE, 60, 0.0), *_near([0.5, 0.1]))[0][0]
        yield Claim("C2e", "it is the limit of the covariance (its ratio at ξ = 0.5 and 0.9 at depth 60 over ψ's)",
                    measured=float(np.exp(deep[0] - deep[1])) * koenigs(PLANE, 0.9) / koenigs(PLANE, 0.5), expected=1.0, tolerance=1e-4, reason=OURS)

    def _arc_claims(self, alone):
        seen = {name: alone[f"arc, {name}"].bayes_balanced_agreement for name in self._smoothers()}
        first, third = self.arc[0], self.arc[min(2, len(self.arc) - 1)]
        at = lambda name, size: seen[name].sel(samples=size)
        yield Claim("C3", f"singular order 1 on an arc: the agreement with the Bayes classifier rises with samples (gain from {first} to {third}, paired by seeds)",
                    measured=at("1", third) - at("1", first), at_least=0.07, reason=ENTRY)
        yield Claim("C3b", f"it passes order 3.03, which is like the nearest neighbour (difference at {third})",
                    measured=at("1", third) - at("3.03", third), at_least=0.03, reason=ENTRY)
        yield Claim("C3c", f"order 0.4 averages the whole sample and stays at chance (agreement at {third})", measured=at("0.4", third), at_most=0.55, reason=ENTRY)
        for name, order in (("C3d", "2"), ("C3e", "3.03")):
            yield Claim(f"{name}", f"order {order} stalls (gain from {self.arc[-2]} to {self.arc[-1]} samples)",
                        measured=at(order, self.arc[-1]) - at(order, self.arc[-2]), at_most=0.02, reason=OURS)
        yield Claim("C3f", f"order 1 does not (gain from {self.arc[-2]} to {self.arc[-1]})", measured=at("1", self.arc[-1]) - at("1", self.arc[-2]), at_least=0.02, reason=OURS)
        yield Claim("C3g", f"the nearest neighbour repeats the labels' noise: it disagrees with the Bayes classifier at a rate 0.2 (agreement at {self.arc[-1]})",
                    measured=at("nearest", self.arc[-1]), expected=0.8, tolerance=0.03, reason=OURS)
        yield Claim("C3h", f"ψ of order 1 is as good as the Hilbert estimate 1/|x - x'| (difference at {self.arc[-1]})",
                    measured=at("1", self.arc[-1]) - at("Hilbert", self.arc[-1]), expected=0.0, tolerance=0.01, reason=OURS)
        balanced = {name: alone[f"balanced arc, {name}"].bayes_balanced_agreement.isel(samples=0) for name in ("0.4", "1")}
        yield Claim("C3i", "consistency is about the worst case: where classes are symmetric order 0.4 is better than 1, at a finite size (difference)",
                    measured=balanced["0.4"] - balanced["1"], at_least=0.0, reason=OURS)
        sphere = {name: alone[f"sphere, {name}"].sign_accuracy.isel(output=0) for name in ("erf", "2")}
        yield Claim("C3j", f"and erf's smoother, of order 0.89 in two dimensions, is better than the consistent one at {self.many} samples of the Dirichlet classes (difference of accuracy)",
                    measured=sphere["erf"] - sphere["2"], at_least=0.0, reason=OURS)

    def _regression_claims(self, seen):
        deepest, value, sign = seen.isel(depth=-1), {"output": 1}, {"output": 2}
        yield Claim("C4", "regression fails in deep networks: predictions tend to 0 (R² at depth 40)", measured=deepest.r_squared.sel(value), at_most=0.0, reason=ENTRY)
        yield Claim("C4b", "they do (size of predictions at depth 40)", measured=deepest.root_mean_square.sel(value), at_most=1e-6, reason=OURS)
        yield Claim("C4c", "classification does not (accuracy for the sign of the same function, depth 40)", measured=deepest.sign_accuracy.sel(sign), at_least=0.95, reason=ENTRY)

    def _finite_claims(self, found):
        said = self._formula()
        error = (found.mean("seed") - said) / (found.std("seed", ddof=1) / np.sqrt(found.sizes["seed"]))
        yield Claim("C6", "the formula is the mean of finite networks' tangent kernels (largest deviation at the widest, in standard errors, of 21 entries)",
                    measured=np.abs(error).isel(width=-1).max(), at_most=4.0, reason=OURS)
        off = (np.sqrt(((found - said) ** 2).sum(("sample", "other"))) / np.linalg.norm(said)).median("seed")
        yield Claim("C6b", "each network's differs from it by about width^(-1/2) (exponent of the median over networks)", measured=power_law(off.width, off).exponent, between=(-0.7, -0.3),
                    reason="ours; the mean square over networks gave -1.65 and failed: it is that of a few, as a cube of cubes of Gaussian numbers has heavy tails. The median came after it")

    def _formula(self) -> np.ndarray:
        points = _directions(simplex_grid(2))
        size, sign = logarithms(DeepKernel(PLANE, 2), points, points)
        return sign * np.exp(size)

    def _slow_claims(self, slow):
        yield Claim("C5", f"ReLU (g'(1) = 1) nears the majority only slowly: it is still far from it at depth {int(slow.depth[-1])} (agreement)",
                    measured=slow.isel(depth=-1), at_most=0.9, reason=OURS)
        yield Claim("C5b", f"but it nears it (gain from depth {int(slow.depth[0])})", measured=slow.isel(depth=-1) - slow.isel(depth=0), at_least=0.0, reason=OURS)
        depths = np.array([100, 200, 400])
        ratio = [float(np.exp(np.subtract(*logarithms(DeepKernel("relu", depth), *_near([0.5, 0.0]))[0][0]))) for depth in depths]
        yield Claim("C5c", "off-diagonal over diagonal tends to 1/4 (at ξ = 0.5, depth 400)", measured=ratio[-1], expected=0.25, tolerance=0.03, reason=OURS)
        yield Claim("C5d", "as 1/depth (exponent of the distance, depth 100 to 400)", measured=power_law(depths, np.abs(np.array(ratio) - 0.25)).exponent, between=(-1.2, -0.8), reason=OURS)

    def figures(self, measured, theory):
        yield Figure("iteration", "The dual g of three activations and its iteration from ξ = 0.9, layer by layer: to 0 ever faster, to a fixed point "
                     "inside, and to 0 at the rate g'(0).", lambda axes: _draw_cobwebs(axes[0]), grid=(1, 3), size=(10.0, 3.3))
        yield Figure("classes", "How often the interpolating network decides as the classifier of its class does, against depth; mean over data sets.",
                     lambda axes: self._draw_classes(axes[0], measured), grid=(1, 2), size=(9.0, 3.2))
        yield Figure("regions", "Decision regions on the positive patch of the sphere, drawn as a triangle, from 60 training samples (dots): interpolation at "
                     "three depths, and the classifier to which it tends.", lambda axes: self._draw_regions(axes, measured), grid=(3, 4), size=(8.6, 6.6))
        yield Figure("consistency", "Balanced agreement with the Bayes classifier on the arc against the number of training samples, by the singular order α of the "
                     "kernel; a fifth of the labels are wrong. Left: the smaller class has a quarter of the arc. Dashed: the Hilbert estimate.",
                     lambda axes: self._draw_arc(axes[0][0], measured), size=(5.6, 3.6))
        yield Figure("singularity", "Left: ψ near ξ = 1; dots the covariance at depth 60 (with its size at ξ = 0.5), lines ψ, dashed the power of order α. Right: how far the tangent kernel of "
                     "finite networks is from the formula.", lambda axes: self._draw_singularity(axes[0], measured), grid=(1, 2), size=(9.0, 3.4))

    def _draw_classes(self, axes, measured):
        shown = (("nearest neighbour", "nearest", "h₂: nearest neighbour"), ("majority", "majority", "0.1 + 0.3 ξ + 0.6 ξ³: majority"),
                 ("covariance", "koenigs", "(ξ + ξ³)/2: ψ, covariance"), ("singular kernel", "koenigs", "(ξ + ξ³)/2: ψ, tangent kernel"))  # fmt: skip
        slow = (("erf", "koenigs", "erf: ψ"), ("relu", "majority", "ReLU: majority"), ("cos", "majority", "cos: majority (no class)"))
        for axis, group, title in ((axes[0], shown, "three classes"), (axes[1], slow, "slow ones, and one outside")):
            axis.axhline(1, color="0.3", linewidth=1, zorder=1)
            for color, (name, which, words) in zip(COLORS, group, strict=False):
                dots(axis, measured[name][f"{which}_agreement"].isel(time=0), "depth", color=color, fmt="o:", label=words)
            label(axis, "hidden layers", "agreement", title, xlog=True)
            axis.set_ylim(0.4, 1.04)
        axes[0].legend(fontsize=7, loc="lower right")
        axes[1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(0.0, 0.9))

    def _draw_regions(self, axes, measured):
        from matplotlib.colors import ListedColormap

        x, y = _drawn()
        grid, samples = simplex_grid(self.grid), x / x.sum(axis=1, keepdims=True)
        flat = lambda points: (points[:, 1] + points[:, 2] / 2, points[:, 2] * 0.75**0.5)
        for row, (name, phi) in zip(axes, CLASSES.items(), strict=True):
            seen = measured[f"regions, {name}"].test_outputs.isel(time=0, seed=0, output=0)
            size, sign = logarithms(limit_kernel(phi), _directions(grid), x)
            last = np.exp(np.minimum(size - size.max(axis=1, keepdims=True), 0.0)) * sign @ y
            shown = [*[(f"depth {int(depth)}", seen.sel(depth=depth).values) for depth in seen.depth], (name, last)]
            for axis, (title, values) in zip(row, shown, strict=True):
                axis.tripcolor(*flat(grid), np.where(values < 0, 0.0, 1.0), cmap=ListedColormap(["#9ecae1", "#fdd0a2"]), vmin=0, vmax=1, shading="gouraud", rasterized=True)
                for side, color in ((-1, COLORS[0]), (1, COLORS[1])):
                    axis.plot(*flat(samples[y == side]), "o", color=color, markersize=2.5)
                axis.set(title=title, aspect="equal")
                axis.set_axis_off()
            row[0].text(-0.12, 0.5, name, rotation=90, ha="center", va="center", transform=row[0].transAxes)

    def _draw_arc(self, axis, measured):
        for color, name in zip([*shades(len(ALPHAS)), COLORS[1]], [*ALPHAS, "nearest"], strict=True):
            dots(axis, measured[f"arc, {name}"].bayes_balanced_agreement.isel(time=0), "samples", color=color, fmt="o-", label=f"α = {name}" if name != "nearest" else "nearest neighbour")
        dots(axis, measured["arc, Hilbert"].bayes_balanced_agreement.isel(time=0), "samples", color="0.0", fmt="--", label="Hilbert estimate")
        axis.axhline(0.8, color="0.6", linestyle=":", zorder=1)
        axis.text(self.arc[-1], 0.792, "1 - share of wrong labels", fontsize=7, color="0.4", ha="right", va="top")
        label(axis, "training samples", "balanced agreement with Bayes", xlog=True)
        axis.set_ylim(0.45, 1.0)
        axis.set_xticks(self.arc, [str(n) for n in self.arc])
        axis.minorticks_off()
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))

    def _draw_singularity(self, axes, measured):
        gap, few = np.geomspace(1e-6, 0.7, 200), np.geomspace(1e-5, 0.5, 8)
        named = (("α = 1", optimal_activation(1)), ("α = 2", PLANE), ("α = 4", optimal_activation(4)), ("erf, α = 0.89", "erf"))
        for color, (words, phi) in zip(COLORS, named, strict=False):
            psi = koenigs(phi, 1 - gap)
            axes[0].plot(gap, psi, color=color, label=words)
            axes[0].plot(gap, psi[0] * (gap / gap[0]) ** (-taxonomy(phi).order / 2), "--", color=color, linewidth=0.8)
            found = logarithms(DeepKernel(phi, 60, 0.0), *_near(few))[0][0]
            axes[0].plot(few, np.exp(found - found[-1]) * koenigs(phi, 0.5), "o", color=color, markersize=3.5)
        label(axes[0], "1 - ξ", "ψ", "singular order", xlog=True, ylog=True)
        axes[0].legend(fontsize=7)
        seen, said = measured["finite"].tangent_kernel.isel(time=0), self._formula()
        off = np.sqrt(((seen - said) ** 2).sum(("sample", "other"))) / np.linalg.norm(said)
        for share, words in ((0.25, None), (0.5, "finite networks: quartiles"), (0.75, None)):
            axes[1].plot(off.width, off.quantile(share, "seed"), "o", color=COLORS[0], alpha=1.0 if share == 0.5 else 0.4, label=words)
        axes[1].plot(off.width, float(off.isel(width=-1).median()) * (off.width / off.width[-1]) ** -0.5, "--", color="0.5", label="width$^{-1/2}$")
        label(axes[1], "width", "relative distance of kernels", "two hidden layers", xlog=True, ylog=True)
        axes[1].set_xticks(self.widths, [str(w) for w in self.widths])
        axes[1].minorticks_off()
        axes[1].legend(fontsize=7)


def _near(gap) -> tuple[np.ndarray, np.ndarray]:
    """A unit vector, and others at 1 - cosine `gap` from it."""
    gap = np.asarray(gap)
    return np.array([[1.0, 0.0]]), np.stack([1 - gap, np.sqrt(gap * (2 - gap))], axis=1)


def _drawn() -> tuple[np.ndarray, np.ndarray]:
    """60 samples of the Dirichlet classes, for the picture of decision regions."""
    random = np.random.default_rng(0)
    label = np.where(random.random(60) < 0.4, -1.0, 1.0)
    both = np.stack([random.dirichlet(alpha, 60) for alpha in ((2, 1, 1.5), (1, 2, 1.5))])
    return _directions(np.where(label[:, None] < 0, *both)), label


_directions = lambda points: points / np.linalg.norm(points, axis=1, keepdims=True)


def _draw_cobwebs(axes):
    for axis, color, (name, phi) in zip(axes, COLORS, CLASSES.items(), strict=False):
        weights, orders = series_of(phi)
        cobweb(axis, lambda x, w=weights, n=orders: np.sum(w * np.asarray(x)[..., None] ** n, axis=-1), 0.9, color=color)
        axis.plot(taxonomy(phi).fixed_point, taxonomy(phi).fixed_point, "o", color="0.0", markersize=4, zorder=4)
        label(axis, "ξ", "g(ξ)" if axis is axes[0] else "", name)
