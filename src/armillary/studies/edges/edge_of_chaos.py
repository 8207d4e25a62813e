"""Hidden layers that widen with depth pass learning on unchanged, and a rate over the curvature keeps training in the catapult."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from armillary.clock import At
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import in_groups, standard_errors_away
from armillary.models import MLP
from armillary.models.activations import Rectified
from armillary.models.parametrisation import Parametrisation
from armillary.models.two_layer_linear import Prepared, TwoLayerLinear, WidthScaled
from armillary.prediction import predict
from armillary.probes.curvature import Sharpness
from armillary.probes.losses import Losses
from armillary.probes.preactivations import PreactivationChange, Preactivations
from armillary.probes.tangent_kernel import EmpiricalTangentKernel
from armillary.probes.weights import LearningRate, UpdateCosine
from armillary.report.figure import Figure
from armillary.report.style import COLORS, dots, key_of_overlay, label, lines, shades
from armillary.rules import SGD, Descent
from armillary.rules.curvature_rate import CurvatureRate
from armillary.simulation import simulate
from armillary.study import Claim, Paper, Predictions, Study
from armillary.tasks import Correlations, Digits, FixedDesign, GaussianClasses
from armillary.theory import mean_field, rectified
from armillary.theory.catapult import scheduled_shrinkage

ACTIVATIONS = {"absolute value": (ABS := Rectified(0.0, 1.0)), "ReLU": Rectified(1.0, 1.0)}
SHARES = {name: float(rectified.share(phi.a, phi.b)) for name, phi in ACTIVATIONS.items()}
FORMS: dict[str, tuple[Parametrisation, float]] = {"muP": ("mup_ntk", 0.0), "nuP": ("nup", 2.0)}
"""Parametrisations compared, with the growth of their widths. muP is its form in which all layers have one rate."""
EQUAL, GROWING, STEP_WIDTH, STEP_RATE = 64, 6, 128, 0.02  # where the kernel's scatter is measured (the second: k² times it) and muP trained; where one step is, and its rate
EDGE_WIDTH, PRODUCTS = 16, 8  # first width of the runs at chosen stability, and power iterations a step
SOLVABLE, RATES = 512, (1.5, 3.0, 4.2)  # solvable catapult: hidden units, and rates over the initial curvature's inverse
LAWS, LAW_STEPS = (3.0, 3.2, 3.5), 150  # the same, over the current curvature's
one_sample = lambda: Correlations(np.array([[1.0 / SOLVABLE]]), np.array([[0.0]]))  # x² = 1/width, y = 0: weights of order one
WEIGHTS, BIASES = (0.75, 1.4, 2.05, 2.7, 3.35, 4.0), (0.03, 0.1, 0.2, 0.3)  # variances of random tanh networks
BATCHES = 4  # groups of seeds, over which a standard deviation's own error is estimated


@dataclass(frozen=True, kw_only=True)
class EdgeOfChaos(Study):
    """Networks of unit-gain rectifiers are at the edge of chaos: their tangent kernel at any depth has a closed form.

    What a step changes piles up along the layers where they are equally wide, so that the learning rate must fall with the
    depth (muP). Where layer k is k² times as wide (nuP, in a working definition by its invariances), it hardly does.

    Above 2 over the curvature, descent is no longer smooth: successive updates cease to agree. A constant rate ends at the
    edge of stability; one that follows the curvature, c/λ, stays in the catapult for ever and still converges.
    """

    paper: ClassVar = Paper("MLPs at the EOC: Dynamics of Feature Learning", authors="Dávid Terjék", year=2025, arxiv="2502.13110")
    seeds: ClassVar = {"smoke": 2, "desk": 4, "paper": 8}

    kernel_depth: int = at_least(3, default=9, smoke=3, paper=17)
    """Depth at which the tangent kernel is compared with its maps."""
    kernel_width: int = at_least(1, default=512, smoke=16)
    """Width there."""
    noise_depths: tuple[int, ...] = at_least(2, default=(4, 12), smoke=(3,))
    """Depths at which the kernel's scatter over networks is measured."""
    base_width: int = at_least(1, default=8, smoke=4, paper=16)
    """Width of the first of layers that widen (layer k is k² times as wide)."""
    step_depths: tuple[int, ...] = at_least(3, default=(4, 8, 16), smoke=(3,))
    """Depths at which one step's changes are measured."""
    depths: tuple[int, ...] = at_least(3, default=(3, 6, 9), smoke=(3,), paper=(4, 8, 16))
    """Depths between which the best learning rate is compared."""
    learning_rates: tuple[float, ...] = above(0.0, default=(0.25, 0.5, 1.0, 2.0, 4.0), smoke=(0.5, 2.0))
    """Learning rates tried there."""
    steps: int = at_least(5, default=60, smoke=5, paper=1000)
    """Full-batch steps at each."""
    images: int = at_least(10, default=100, smoke=16, paper=1500)
    """Digits learned there."""
    edge_images: int = at_least(10, default=256, smoke=10, paper=1500)
    """Digits learned by runs at chosen stability."""
    edge_steps: int = at_least(10, default=150, smoke=10, paper=2000)
    """Steps of those."""
    constant: tuple[float, ...] = above(0.0, default=(0.5, 3.0))
    """Learning rates that stay what they are, in units of one over the initial curvature."""
    scheduled: tuple[float, ...] = above(0.0, default=(1.0, 2.0, 3.0), smoke=(1.0, 3.0))
    """Learning rates that follow the curvature, in units of one over it."""
    layers: int = at_least(3, default=15, smoke=4)
    """Of random tanh networks."""

    def experiments(self):
        found = {f"kernel, {name}": self._random(MLP(self.kernel_width, self.kernel_depth, phi, "ntk", bias=False), EmpiricalTangentKernel(2), Preactivations())
                 for name, phi in ACTIVATIONS.items()}
        noise = {name: self._random(MLP(width, 4, ABS, "ntk", growth=growth, bias=False), EmpiricalTangentKernel(2)) for name, width, growth in (("equal", EQUAL, 0.0), ("growing", GROWING, 2.0))}
        found |= {f"scatter, {name} widths": Sweep(what, {"depth": self.noise_depths}) for name, what in noise.items()}
        found |= {f"one step, {form}": Sweep(self._step(form), {"depth": self.step_depths}) for form in FORMS}
        found |= {f"rates, {form}": Sweep(self._training(form), {"depth": self.depths, "learning_rate": self.learning_rates}) for form in FORMS}
        found["rates, wider nuP"] = Sweep(self._training("nuP", 2), {"learning_rate": self.learning_rates})
        found |= {"constant": Sweep(self._edge(np.inf), {"constant": self.constant}), "scheduled": Sweep(self._edge(1.0), {"constant": self.scheduled})}
        found["solvable"] = Sweep(self._solvable(), {"learning_rate": [c / 2 for c in RATES]})
        found["solvable, scheduled"] = Sweep(self._law(), {"constant": LAWS})
        found["random"] = Sweep(self._random(MLP(128, self.layers, "tanh", "ntk", gain=1.0, bias_variance=0.0), Preactivations()), {"gain": WEIGHTS, "bias_variance": BIASES})
        return found

    def measure(self, name, what, seeds, key, progress):
        many = {"kernel": 5, "scatter, growing": 15, "scatter, equal": 100, "solvable, scheduled": 8, "solvable": 0.25, "random": 1.5, "rates": 2.5}
        return simulate(what, seeds=max(1, round(next((f for start, f in many.items() if name.startswith(start)), 1) * seeds)), key=key, memory=1.5e8, progress=progress)

    def theory(self):
        return Predictions({"solvable": predict(self.experiments()["solvable"])})

    @property
    def _middle(self) -> int:
        return self.depths[len(self.depths) // 2]

    def _random(self, model: MLP, *probes) -> Experiment:
        """Networks as they are drawn, seen by two orthogonal inputs of squared length 16 in 16 dimensions."""
        return Experiment(FixedDesign(4 * np.eye(2, 16)), model, Descent(steps=0), probes, At((0.0,)))

    def _model(self, form: str, width: int, depth: int) -> MLP:
        name, growth = FORMS[form]
        return MLP(width, depth, ABS, name, growth=growth, bias=False)

    def _step(self, form: str) -> Experiment:
        task, model = GaussianClasses(16, 8, test_samples=1), self._model(form, self.base_width if form == "nuP" else STEP_WIDTH, 4)
        return Experiment(task, model, Descent(SGD(STEP_RATE), 1), [PreactivationChange()], At((0.0, 1.0)))

    def _training(self, form: str, wider: int = 1) -> Experiment:
        task, model = Digits(self.images, "onehot"), self._model(form, wider * self.base_width if form == "nuP" else EQUAL, self._middle)
        return Experiment(task, model, Descent(SGD(1.0), self.steps), [Losses()], At((0.0, float(self.steps))))

    def _edge(self, every: float) -> Experiment:
        """Seen in pairs of steps: the rate of a step belongs to the curvature before it. Constant rates take twice as many."""
        steps, model = self.edge_steps * (2 if every > 1 else 1), MLP(EDGE_WIDTH, 4, ABS, "nup", growth=1.0, bias=False)
        probes = [Losses(), UpdateCosine(own_metric=True), LearningRate(), Sharpness(matrix="gauss_newton", own_metric=True)]
        times = At(tuple(sorted({*range(0, steps, 5), *range(1, steps, 5), steps})))
        return Experiment(Digits(self.edge_images, "onehot"), model, Descent(CurvatureRate(1.0, PRODUCTS, every), steps), probes, times)

    def _solvable(self) -> Experiment:
        """f = u.v/sqrt(width) of one input: output 1 and curvature 2 at the start."""
        model = TwoLayerLinear(SOLVABLE, start=Prepared(output=float(np.sqrt(SOLVABLE)), curvature=2.0 * SOLVABLE))
        return Experiment(one_sample(), model, Descent(SGD(1.0), 60), [Losses(), Sharpness(matrix="gauss_newton")], At(tuple(range(61))), "float64")

    def _law(self) -> Experiment:
        rule = Descent(CurvatureRate(3.0, products=2, cap=1e300, stop=1e-280), LAW_STEPS)  # loss and curvature fall by orders of magnitude
        return Experiment(one_sample(), TwoLayerLinear(SOLVABLE, start=WidthScaled(0.0)), rule, [Losses(), LearningRate()], At(tuple(range(LAW_STEPS + 1))), "float64")

    def claims(self, measured, theory):
        yield from self._kernel_claims(measured)
        yield from self._step_claims(measured)
        yield from self._rate_claims(measured)
        yield from self._edge_claims(measured)
        yield from self._solvable_claims(measured, theory)
        seen, said = self._cosines(measured)
        yield Claim("C8", f"random tanh networks: two inputs' cosine after {self.layers - 1} layers is mean field's in every phase (root mean square difference)", measured=float(np.sqrt(((seen.mean("seed") - said) ** 2).mean())), at_most=0.05, reason="an addition; at width 128 a cosine scatters by 1/sqrt(128) = 0.09")

    def _kernel_claims(self, measured):
        away, apart, gaps, depth = [], [], {}, self.kernel_depth
        for name, share in SHARES.items():
            seen = measured[f"kernel, {name}"].isel(time=0)
            cosine, said = seen.preactivation_cosine.sel(layer=depth - 1), float(rectified.correlations(0.0, depth - 2, share)[-1])
            away.append(standard_errors_away(seen.tangent_kernel.isel(sample=0, other=1), rectified.tangent_kernel(0.0, depth, share)))
            apart.append(standard_errors_away(cosine, said))
            gaps[name] = (1 - cosine.mean().item(), 1 - said)
        yield Claim("C1", f"the tangent kernel of two orthogonal inputs follows the maps, at width {self.kernel_width} (largest distance of {len(away)} in standard errors)", measured=max(away), at_most=3.0)
        yield Claim("C1a", f"and so do the inputs' cosines at the last hidden layer (the same, of {len(apart)})", measured=max(apart), at_most=3.0)
        yield Claim("C1b", "the absolute value brings inputs together faster than ReLU (1 - cosine there, over ReLU's)", measured=gaps["absolute value"][0] / gaps["ReLU"][0], expected=gaps["absolute value"][1] / gaps["ReLU"][1], tolerance=0.2, relative=True, reason="expected is the maps' ratio, which tends to 1/4")
        limits = {name: [float(rectified.tangent_kernel(0.0, depth, share)) / depth for depth in (33, 129, 2001)] for name, share in SHARES.items()}
        yield Claim("C1c", "off the diagonal the kernel tends to a quarter of the diagonal (maps, depth 2001, either activation's farthest from it)", measured=max(found[-1] for found in limits.values()), expected=0.25, tolerance=0.005, reason="of the maps alone: so deep networks are not drawn")
        yield Claim("C1d", "sooner for the absolute value (its distance from a quarter over ReLU's, depths 33 and 129, the larger)", measured=max((a - 0.25) / (b - 0.25) for a, b in zip(*limits.values(), strict=True)), at_most=1.0, reason="of the maps alone. At depth 9 it is the other way round for orthogonal inputs: 0.340 and 0.314")
        for name, kind, limit in (("C1e", "equal", (2.0, None)), ("C1f", "growing", (None, 1.6))):
            yield Claim(name, f"its scatter over networks grows with the depth (deviation at {self.noise_depths[-1]} layers over that at {self.noise_depths[0]}): " + ("equal widths" if kind == "equal" else "widths that grow as k²"), measured=self._growth(measured[f"scatter, {kind} widths"]), at_least=limit[0], at_most=limit[1], reason="squared deviations add up layer by layer to 2 (depth - 1)/width, so that the ratio is near sqrt(11/3) = 1.9 at widths far above the depth" if kind == "equal" else "")

    def _growth(self, seen):
        relative = in_groups(seen.tangent_kernel.isel(time=0, sample=0, other=0), BATCHES).std("seed", ddof=1) / seen.depth
        return relative.isel(depth=-1) / relative.isel(depth=0)

    def _step_claims(self, measured):
        shallow, deep = self.step_depths[0], self.step_depths[-1]
        for name, form, words, limit in (("C2", "nuP", "hardly depends on depth", (None, 3.0)), ("C2a", "muP", "grows with it, at equal widths", (5.0, None))):
            change = measured[f"one step, {form}"].preactivation_change.sel(time=1)
            few, many = change.sel(depth=shallow, layer=shallow - 1).mean(), change.sel(depth=deep, layer=deep - 1)
            yield Claim(name, f"{form}: a step's relative change of the last hidden layer {words} (at {deep} layers over that at {shallow})", measured=many / few, at_least=limit[0], at_most=limit[1])

    def _final(self, seen):
        """Loss at the end; inf where it is above the start's."""
        end = seen.train_loss.isel(time=-1)
        return end.where(end < seen.train_loss.isel(time=0), np.inf)

    def _rate_claims(self, measured):
        final = {form: self._final(measured[f"rates, {form}"]) for form in FORMS}
        best = {form: np.log2(found.idxmin("learning_rate")) for form, found in final.items()}
        low, middle, high = self.depths[0], self._middle, self.depths[-1]
        yield Claim("C3", f"nuP: the best rate transfers over depth (at {middle} layers over that at {high}, powers of 2)", measured=best["nuP"].sel(depth=middle) - best["nuP"].sel(depth=high), between=(-1.0, 1.0), reason="near its threshold: the best rate lies where training is chaotic, so a seed's best changes with rounding; 5 seeds once said that it holds, then not, 12 others said 0.33 ± 0.19; 10 seeds were set after that")
        yield Claim("C3a", f"muP's falls (at {low} layers over that at {high}, powers of 2)", measured=best["muP"].sel(depth=low) - best["muP"].sel(depth=high), at_least=1.0)
        yield Claim("C3e", f"nuP: and from few layers to many (at {low} layers over that at {high}, powers of 2)", measured=best["nuP"].sel(depth=low) - best["nuP"].sel(depth=high), between=(-1.0, 1.0), reason="an addition: the entry compares the deeper two only, and its own run at 3 layers preferred 4 times the rate")
        falls = {form: best[form].sel(depth=low) - best[form].sel(depth=high) for form in FORMS}
        yield Claim("C3f", f"nuP's best rate falls less with depth than muP's (from {low} to {high} layers, powers of 2, difference)", measured=falls["nuP"] - falls["muP"], at_most=0.0, reason="an addition on equal terms, made when both falls were known: 1/depth would be 1.6 for either; 10 seeds, set when 5 had left it undecided")
        wide = np.log2(self._final(measured["rates, wider nuP"]).idxmin("learning_rate"))
        yield Claim("C3b", f"nuP: and over width (at twice the width, {self._middle} layers, powers of 2)", measured=wide - best["nuP"].sel(depth=self._middle), between=(-1.0, 1.0), reason="the entry gives no number for widths; its own for depths; 10 seeds, set when 5 had left it undecided")
        rates = {form: np.log2(found.learning_rate.where(np.isfinite(found)).max("learning_rate")) for form, found in final.items()}
        for name, form, words in (("C3c", "nuP", "falls less than 1/depth"), ("C3d", "muP", "falls less than 1/depth at equal widths, too")):
            yield Claim(name, f"{form}: the largest stable rate {words} (at {low} layers over that at {high}, powers of 2)", measured=rates[form].sel(depth=low) - rates[form].sel(depth=high), at_most=np.log2(high / low), reason="the threshold, ours, is 1/depth itself")

    def _pairs(self, seen):
        """The step's rate times the curvature before it, and the times at which both are known."""
        before = [t for t in seen.time.values if t + 1 in seen.time.values]
        rate = seen.learning_rate.sel(time=[t + 1 for t in before])
        return rate.assign_coords(time=before) * seen.gauss_newton_sharpness.sel(time=before)

    def _edge_claims(self, measured):
        constant, scheduled = measured["constant"], measured["scheduled"]
        late, later = slice(0.75 * self.edge_steps, None), slice(1.5 * self.edge_steps, None)
        slow, fast, most = min(self.constant), max(self.constant), max(self.scheduled)
        product, cosine = self._pairs(constant.sel(constant=slow)), constant.global_update_cosine.sel(constant=slow)
        smooth = cosine.sel(time=product.time).where(product < 1.5)
        yield Claim("C4", f"constant rate {slow:g}/λ₀: updates agree while the rate times λ is below 1.5 (mean cosine with the way come)", measured=smooth.mean("time"), at_least=0.5, reason="the entry saw 0.7 to 0.8 and gives no threshold")
        yield Claim("C4a", "at the edge of stability they no longer do (mean size of the cosine, last quarter)", measured=np.abs(cosine.sel(time=later)).mean("time"), at_most=0.2, reason="the entry saw 0.03 to 0.16 and gives no threshold")
        yield Claim("C4b", "scheduled rate 1/λ: they agree throughout (mean cosine)", measured=scheduled.global_update_cosine.sel(constant=1.0).mean("time"), at_least=0.5)
        catapult = scheduled.sel(constant=most)
        yield Claim("C4c", f"in the catapult, {most:g}/λ, they never do (mean size of the cosine)", measured=np.abs(catapult.global_update_cosine).mean("time"), at_most=0.2)
        products = self._pairs(catapult)
        yield Claim("C5", f"scheduled rate {most:g}/λ: the run stays in the catapult (smallest rate times λ)", measured=products.min("time"), at_least=2.0)
        yield Claim("C5a", "and does not leave it upwards (the largest)", measured=products.max("time"), at_most=4.0)
        yield Claim("C5b", "it still trains (loss at the end over the start's)", measured=catapult.train_loss.isel(time=-1) / catapult.train_loss.isel(time=0), at_most=0.1, reason="the entry gives no threshold; it saw 0.04")
        yield Claim("C5c", "better than the smooth one (loss at the end over that of 1/λ)", measured=catapult.train_loss.isel(time=-1) / scheduled.train_loss.sel(constant=1.0).isel(time=-1).mean(), at_most=0.5)
        yield Claim("C5d", f"where a constant rate of {fast:g}/λ₀ diverges (share of runs)", measured=float(constant.diverged_at.sel(constant=fast).notnull().mean()), at_least=0.99)
        sharp = catapult.gauss_newton_sharpness
        yield Claim("C5e", "the sharpness falls (at the end over its peak)", measured=sharp.sel(time=late).mean("time") / sharp.max("time"), at_most=0.8, reason="the entry saw 0.75")
        yield Claim("C5f", "instead of rising (at the end over the start's)", measured=sharp.sel(time=late).mean("time") / sharp.isel(time=0), at_most=1.0, reason="it first rises, as the outputs leave 0, and falls from there: the entry's own run went from 0.9 to 2.1 to 1.6")
        yield Claim("C5g", "as it does at 1/λ (the catapult's end over that one's)", measured=sharp.sel(time=late).mean("time") / scheduled.gauss_newton_sharpness.sel(constant=1.0, time=late).mean(), at_most=0.5)
        yield Claim("C6", f"constant rate {slow:g}/λ₀: the rate times λ settles just above 2 (mean of the last quarter)", measured=product.sel(time=later).mean("time"), between=(2.0, 2.2), reason="the entry saw 2.05 and gives no threshold. It falls towards 2 slowly: after 400 steps 8 networks were between 2.08 and 2.44, with the Hessian's λ as well")

    def _solvable_claims(self, measured, theory):
        seen, said = measured["solvable"], theory["solvable"]
        lazy, middle, large = (c / 2 for c in RATES)
        wrong = [np.abs(seen[name].sel(learning_rate=[lazy, middle]) - said[name].sel(learning_rate=[lazy, middle])).max("time") / np.abs(said[name].sel(learning_rate=[lazy, middle])).max("time")
                 for name in ("train_loss", "gauss_newton_sharpness")]
        yield Claim("C7", "the solvable catapult is its recursion (loss and curvature, largest error over the largest value)", measured=max(float(w.max()) for w in wrong), at_most=1e-9, reason="exact at any width; rounding grows along a chaotic course")
        loss, sharp = seen.train_loss / seen.train_loss.isel(time=0), seen.gauss_newton_sharpness
        grown, end = loss.sel(learning_rate=middle).max(), loss.sel(learning_rate=middle).isel(time=-1)
        yield Claim("C7a", f"lazy at {RATES[0]:g}/λ₀ (largest loss over the start's)", measured=loss.sel(learning_rate=lazy).max(), at_most=1.0)
        yield Claim("C7b", f"at {RATES[1]:g}/λ₀ the loss first rises (the same)", measured=grown, at_least=10.0, reason="to the order of the width, says the theory")
        yield Claim("C7c", "then converges (at the end)", measured=end, at_most=1e-6)
        yield Claim("C7d", "at a curvature below 2 over the rate (rate times it)", measured=middle * sharp.sel(learning_rate=middle).isel(time=-1), at_most=2.0)
        yield Claim("C7e", f"at {RATES[2]:g}/λ₀ it diverges (share of runs)", measured=float(seen.diverged_at.sel(learning_rate=large).notnull().mean()), at_least=0.99)
        for name, c in zip(("C7f", "C7g", "C7h"), LAWS, strict=False):
            yield Claim(name, f"scheduled at {c:g}/λ the curvature falls by (c/4)² a step", measured=self._shrinkage(measured, c), expected=float(scheduled_shrinkage(c)), tolerance=0.05, relative=True, reason="of the mean logarithm over the later two thirds of a chaotic course")

    def _shrinkage(self, measured, constant: float):
        course, begin = measured["solvable, scheduled"].rate_curvature.sel(constant=constant), LAW_STEPS // 3
        return np.exp(np.log(course.sel(time=LAW_STEPS) / course.sel(time=begin)) / (LAW_STEPS - begin))

    def _cosines(self, measured):
        """Of two orthogonal inputs of length 1 at the last hidden layer, measured and by the maps, [weight variance, bias variance]."""
        weight, bias = np.array(WEIGHTS)[:, None], np.array(BIASES)
        said = mean_field.propagated("tanh", weight + bias, bias / (weight + bias), self.layers - 2, weight, bias)[1]
        return measured["random"].preactivation_cosine.isel(time=0).sel(layer=self.layers - 1), said

    def figures(self, measured, theory):
        yield Figure("change", f"Relative change of each hidden layer's pre-activations by one step at the rate {STEP_RATE:g}, one line for each depth: muP with equal widths, nuP with widths that grow as k².", lambda axes: self._draw_change(axes[0], measured), grid=(1, 2))
        yield Figure("stability", "Loss, rate times curvature (Gauss-Newton, in the parametrisation's own metric) and cosine of a step with the way come, for rates that are constant, "
                     "in units of one over the initial curvature (top), and that follow the curvature (bottom). Dashed: 2 and 4.", lambda axes: self._draw_stability(axes, measured), grid=(2, 3))
        yield Figure("rates", f"Loss after {self.steps} steps against the learning rate, one line for each depth. At missing points some run diverged or ended above its start.", lambda axes: self._draw_rates(axes[0], measured), grid=(1, 2))
        yield Figure("phases", f"Random tanh networks. Left: cosine of two inputs after {self.layers - 1} layers (measured, colour), and the line chi = 1 between order and chaos. Right: the same cosine by mean field and measured.", lambda axes: self._draw_phases(axes[0], measured), grid=(1, 2), size=(9.6, 3.1))
        yield Figure("kernel", f"Left: tangent kernel of two orthogonal inputs over that of equal ones, by the maps and measured (widths {self.kernel_width} at depth {self.kernel_depth}, {EQUAL} at others); dashed: a quarter. Right: relative scatter over networks of the kernel at one input.", lambda axes: self._draw_kernel(axes[0], measured), grid=(1, 2))
        yield Figure("solvable", "The solvable catapult. Left: loss at constant rates. Middle: curvature. Right: curvature at rates that follow it, and the law (c/4)² a step.", lambda axes: self._draw_solvable(axes[0], measured, theory), grid=(1, 3))

    def _draw_change(self, axes, measured):
        for axis, form in zip(axes, FORMS, strict=True):
            change = measured[f"one step, {form}"].preactivation_change.sel(time=1)
            for color, depth in zip(shades(len(self.step_depths)), self.step_depths, strict=True):
                dots(axis, change.sel(depth=depth, layer=slice(1, depth - 1)), "layer", color=color, label=f"{depth} layers", linestyle="-", linewidth=1)
            widths = f"widths {self.base_width} k²" if form == "nuP" else f"widths {STEP_WIDTH}"
            label(axis, "layer k", "relative change of pre-activations", f"{form}, {widths}")
            axis.set_xticks(range(1, max(self.step_depths), 2))
        axes[1].sharey(axes[0])
        axes[0].legend(loc="upper left")

    def _draw_stability(self, axes, measured):
        for row, name in zip(axes, ("constant", "scheduled"), strict=True):
            constants = self.constant if name == "constant" else self.scheduled
            for color, c in zip(COLORS, constants, strict=False):
                seen = measured[name].sel(constant=c).isel(seed=[0])  # a mean over networks would hide that losses rise
                given = {"color": color, "label": f"{c:g}/λ₀" if name == "constant" else f"{c:g}/λ", "linestyle": "-", "linewidth": 0.8, "markersize": 2}
                for axis, what in zip(row, (seen.train_loss, self._pairs(seen), seen.global_update_cosine), strict=True):
                    dots(axis, what, **given)
            for axis, level in ((row[1], 2), (row[1], 4), (row[2], 0)):
                axis.axhline(level, color="0.3", linestyle="--" if level else "-", linewidth=0.8)
            for axis, words in zip(row, ("training loss", "rate × curvature", "cosine with the way come"), strict=True):
                label(axis, "step", words, f"{name} rate" if axis is row[0] else "", ylog=axis is row[0])
            row[0].set_ylim(3e-3, 3)
            row[1].set_ylim(0, 5)
            row[2].set_ylim(-0.6, 1)
            row[2].legend(loc="upper right", ncols=2)

    def _draw_rates(self, axes, measured):
        for axis, form in zip(axes, FORMS, strict=True):
            final = self._final(measured[f"rates, {form}"])
            final = final.where(np.isfinite(final).all("seed"))
            for color, depth in zip(shades(len(self.depths)), self.depths, strict=True):
                dots(axis, final.sel(depth=depth), "learning_rate", color=color, label=f"{depth} layers", linestyle="-", linewidth=1)
            label(axis, "learning rate", f"loss after {self.steps} steps", form, xlog=True, ylog=True)
            axis.set_xticks(self.learning_rates, [f"{r:g}" for r in self.learning_rates])
            axis.xaxis.minorticks_off()
            axis.set_ylim(0.008, 0.7)
        axes[0].legend(loc="lower left")

    def _draw_phases(self, axes, measured):
        seen, said = self._cosines(measured)
        shown = axes[0].pcolormesh(WEIGHTS, BIASES, seen.mean("seed").transpose("bias_variance", "gain"), shading="gouraud", cmap="cividis", zorder=3, vmin=0, vmax=1)
        axes[0].figure.colorbar(shown, ax=axes[0], label="cosine")
        weight, bias = mean_field.critical_line("tanh", np.geomspace(1e-4, 4.0, 300))
        axes[0].plot(weight, bias, color=COLORS[1], linewidth=2, zorder=4)
        axes[0].set(xlim=(min(WEIGHTS), max(WEIGHTS)), ylim=(min(BIASES), max(BIASES)), xlabel="weight variance", ylabel="bias variance", title="ordered left, chaotic right")
        for color, (at, bias) in zip(shades(len(BIASES)), enumerate(BIASES), strict=True):
            axes[1].plot(WEIGHTS, said[:, at], color=color, label=f"bias variance {bias:g}")
            dots(axes[1], seen.sel(bias_variance=bias), "gain", color=color)
        label(axes[1], "weight variance", f"cosine after {self.layers - 1} layers")
        key_of_overlay(axes[1], loc="upper left", bbox_to_anchor=(1.0, 1.0))

    def _draw_kernel(self, axes, measured):
        depths = np.unique(np.geomspace(2, 300, 60).astype(int))
        for color, (name, share) in zip(COLORS, SHARES.items(), strict=False):
            axes[0].plot(depths, [float(rectified.tangent_kernel(0.0, int(d), share)) / d for d in depths], color=color, label=name)
            kernel = measured[f"kernel, {name}"].tangent_kernel.isel(time=0, sample=0, other=1).expand_dims(depth=[self.kernel_depth])
            dots(axes[0], kernel / kernel.depth, "depth", color=color)
        dots(axes[0], (shallow := measured["scatter, equal widths"].tangent_kernel.isel(time=0, sample=0, other=1)) / shallow.depth, "depth", color=COLORS[0])
        axes[0].axhline(0.25, color="0.3", linestyle="--", linewidth=0.8)
        label(axes[0], "depth", "kernel over its diagonal", "two orthogonal inputs", xlog=True)
        key_of_overlay(axes[0], loc="lower right")
        for color, kind, words in zip(COLORS, ("equal", "growing"), (f"widths {EQUAL}", f"widths {GROWING} k²"), strict=False):
            kernel = measured[f"scatter, {kind} widths"].tangent_kernel.isel(time=0, sample=0, other=0)
            axes[1].plot(kernel.depth, kernel.std("seed", ddof=1) / kernel.depth, "o-", color=color, label=words)
        label(axes[1], "depth", "deviation over the mean", "kernel at one input")
        axes[1].set_ylim(0)
        axes[1].legend(loc="lower right")

    def _draw_solvable(self, axes, measured, theory):
        seen, said = measured["solvable"], theory["solvable"]
        for axis, name, words, low, high in zip(axes, ("train_loss", "gauss_newton_sharpness"), ("loss", "curvature"), (1e-12, 0), (1e6, 4), strict=False):
            for color, rate, c in zip(COLORS, seen.learning_rate.values, RATES, strict=False):
                lines(axis, said[name].sel(learning_rate=rate), color=color, label=f"{c:g}/λ₀")
                dots(axis, seen[name].sel(learning_rate=rate), color=color, every=2)
            label(axis, "step", words, ylog=words == "loss")
            axis.set_ylim(low, high)
        key_of_overlay(axes[1], loc="upper right", fontsize=7)
        course, steps = np.exp(np.log(measured["solvable, scheduled"].rate_curvature.isel(time=slice(1, None))).mean("seed")), np.arange(LAW_STEPS // 3, LAW_STEPS + 1)
        for color, c in zip(COLORS, LAWS, strict=False):
            axes[2].plot(steps, course.sel(constant=c, time=steps[0]).item() * scheduled_shrinkage(c) ** (steps - steps[0]), color=color, label=f"{c:g}/λ")
            dots(axes[2], course.sel(constant=c), every=5, color=color)
        label(axes[2], "step", "curvature", ylog=True)
        axes[2].legend(loc="lower left", fontsize=7)
