"""Networks generalise long after they fit where learning starts lazy, with a kernel that does not see the target."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

import armillary as arm
from armillary.clock import LogSpaced
from armillary.experiment import Experiment, Sweep
from armillary.fields import above, at_least
from armillary.measures import crossing_time
from armillary.models import MLP
from armillary.models.mean_readout import MeanReadout
from armillary.models.scaled_output import ScaledOutput
from armillary.prediction import predict
from armillary.probes import Accuracy, KernelTargetAlignment, Losses, NetworkOutputs
from armillary.probes.error_parts import ErrorParts, WeightMoments
from armillary.report.figure import Figure
from armillary.report.style import COLORS, label, shades
from armillary.rules import SGD, Adam, Descent
from armillary.study import Claim, Paper, Study
from armillary.tasks import Digits
from armillary.tasks.single_index import POWER, QuadraticSingleIndex
from armillary.theory.kernels.linearised import lazy_course, lazy_outputs
from armillary.theory.mean_readout import drawn_problem, moment_descent, start_alignment

DIGIT_RATE, DIGIT_DECAY = 3e-3, 0.3  # of AdamW
LAZY = 1e5  # an output scale so large that weights hardly move
FIT = 0.1  # share of E y² below which an error counts as fit


@dataclass(frozen=True, kw_only=True)
class GrokkingLazyRich(Study):
    """A network that starts lazy first fits its samples with the kernel it has. If that kernel does not see the target the test
    error stays, or rises, until features have moved: delayed generalisation without weight decay, while weights grow.

    The delay needs all of a misaligned kernel, a lazy start, and samples enough for features but too few for the kernel.
    For a mean read-out the whole course is a recursion of two moments, exact at every width.
    """

    paper: ClassVar = Paper(
        "Grokking as the Transition from Lazy to Rich Training Dynamics",
        authors="Tanishq Kumar, Blake Bordelon, Samuel Gershman, Cengiz Pehlevan", year=2023, arxiv="2310.06110",
    )  # fmt: skip
    seeds: ClassVar = {"smoke": 2, "desk": 3, "paper": 8}

    dimension: int = at_least(4, default=40, smoke=10, paper=100)
    """Inputs of the polynomial task."""
    samples: int = at_least(4, default=220, smoke=44, paper=550)
    """Its training samples, where they are neither few nor many."""
    counts: tuple[int, ...] = at_least(4, default=(120, 220, 800), smoke=(44,), paper=(150, 300, 550, 1000, 2000))
    """Numbers of samples of the sweep, few to many, `samples` among them."""
    scales: tuple[float, ...] = above(0.0, default=(0.25, 1.0, 4.0), paper=(0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0))
    """Output scales, the laziest last; 1 is among them."""
    misalignments: tuple[float, ...] = at_least(0.0, default=(0.0, 0.5, 1.0), paper=(0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0))
    """How much of the target is quadratic, from 0 (the kernel sees it) to 1 (it hardly does)."""
    curvature: float = above(0.0, default=0.05, paper=0.02)
    """Of the activation: what of a quadratic target the kernel sees."""
    large_curvature: float = above(0.0, default=0.25)
    """Another one."""
    width: int = at_least(2, default=100, smoke=20, paper=500)
    """Units, where there are finitely many."""
    problems: int = at_least(2, default=4, smoke=2, paper=8)
    """Draws of the task that theory is asked of."""
    rate: float = above(0.0, default=5.0, smoke=1.0, paper=1.0)
    """Learning rate in the paper's unit: that of the weights is rate width/scale², for the mean squared error."""
    steps: int = at_least(100, default=4000, smoke=200, paper=100_000)
    """Steps of descent."""
    sweep_steps: int = at_least(100, default=3000, smoke=200, paper=100_000)
    """Steps in the sweep."""
    tests: int = at_least(10, default=2000, smoke=100, paper=20_000)
    """Test points; the test error is known exactly beside."""
    digits: int = at_least(20, default=200, smoke=40, paper=1000)
    """Training images."""
    digit_scales: tuple[float, ...] = above(0.0, default=(0.3, 3.0, 10.0))
    """Output scales of the network that learns them."""
    digit_width: int = at_least(2, default=100, smoke=10, paper=200)
    """Units of each of its two hidden layers."""
    digit_steps: int = at_least(100, default=3000, smoke=100, paper=20_000)
    """Its steps."""
    digit_tests: int = at_least(10, default=400, smoke=50)
    """Test images that the lazy prediction is asked of."""

    def experiments(self):
        problems = {"problem": self._numbers}
        probes = [Losses(), ErrorParts(), WeightMoments(), KernelTargetAlignment(min(self.tests, 400), on="test")]
        transition = self._polynomial(self.samples, self.curvature, None, probes, 0.0, self.tests)
        curved = self._polynomial(self.samples, self.large_curvature, None, probes, 0.0, self.tests)
        finite = self._polynomial(self.samples, self.curvature, self.width, [Losses(), WeightMoments()], 0.0)
        free = self._polynomial(self.samples, self.curvature, None, [Losses(), ErrorParts()], exact=False, steps=self.sweep_steps)
        model = ScaledOutput(MLP(self.digit_width, 3, parametrisation="ntk", bias=False))
        images = Experiment(
            Digits(self.digits, "onehot"), model, Descent(Adam(DIGIT_RATE, weight_decay=DIGIT_DECAY), self.digit_steps),
            [Losses(), Accuracy(), NetworkOutputs(self.digit_tests)], LogSpaced(45, 10.0),
        )  # fmt: skip
        return {
            "transition": Sweep(transition, {**problems, "scale": self.scales}),
            "curved": Sweep(curved, {**problems, "scale": self.scales}),
            "finite width": Sweep(finite, {"problem": self._numbers[:2]}),
            "determinants": Sweep(free, {"samples": self.counts, "scale": self.scales, "misalignment": self.misalignments}),
            "digits": Sweep(images, {"model.scale": self.digit_scales}),
        }

    @property
    def _numbers(self) -> list[float]:
        return [float(p) for p in range(self.problems)]

    def _polynomial(self, samples, curvature, width, probes, problem=None, tests=None, exact=True, steps=None) -> Experiment:
        task = QuadraticSingleIndex(self.dimension, samples, 1.0, tests, problem)
        return Experiment(task, MeanReadout(width, 1.0, curvature), Descent(SGD(2 * self.rate), self.steps if steps is None else steps), probes,
                          LogSpaced(70), "float64" if exact else "float32")  # fmt: skip

    def measure(self, name, what, seeds, key, progress):
        return super().measure(name, what, seeds if name in ("determinants", "digits") else 1, key, progress)

    def theory(self):
        runs = self.experiments()
        transition, one = runs["transition"], {"scale": 1.0}
        exact = [predict(transition.at({**one, "problem": p})) for p in self._numbers[:2]]
        lazy = [lazy_course(transition.at({**one, "problem": p})) for p in self._numbers]
        images, kernel = runs["digits"].experiment.task.clean, arm.kernel(runs["digits"].experiment.model.model)
        tests = images.test.inputs[: self.digit_tests]
        return {
            "transition": xr.concat(exact, "problem").assign_coords(problem=self._numbers[:2]),
            "lazy": 2 / POWER * xr.concat(lazy, "problem").assign_coords(problem=self._numbers),
            "lazy limit": predict(transition.at({"scale": LAZY, "problem": self._numbers[0]})),
            "population": predict(self._polynomial(None, self.curvature, None, ())),
            "kernel of digits": xr.Dataset({
                "gram": (("sample", "other"), kernel.ntk(images.train.inputs)), "cross": (("test_sample", "other"), kernel.ntk(tests, images.train.inputs)),
                "targets": (("sample", "output"), np.asarray(images.train.targets)[:, None] == np.arange(10)),
                "test_classes": ("test_sample", np.asarray(images.test.targets[: self.digit_tests])),
            }),
        }  # fmt: skip

    def _known(self, number: float, misalignment: float = 1.0):
        return drawn_problem(QuadraticSingleIndex(self.dimension, self.samples, misalignment, problem=number))

    def claims(self, measured, theory):
        transition, lazy = _normalised(measured["transition"].isel(seed=0)), theory["lazy"]
        yield from self._laziness_claims(transition, _normalised(measured["curved"].isel(seed=0)), lazy)
        yield from self._sweep_claims(_normalised(measured["determinants"]), transition)
        yield from self._feature_claims(transition.sel(scale=1.0), lazy)
        yield from self._exactness_claims(measured, theory)
        yield from self._digit_claims(measured["digits"], theory["kernel of digits"])

    def _laziness_claims(self, transition, curved, lazy):
        first, last = self.scales[0], self.scales[-1]
        for name, seen, curvature in (("C1", transition, self.curvature), ("C1b", curved, self.large_curvature)):
            wait = _delay(seen)
            yield Claim(f"{name}", f"the delay, test over training time, grows with the output scale, from {first:g} to 1 (curvature {curvature:g}; least ratio of any problem)",
                        measured=(wait.sel(scale=1.0) / wait.sel(scale=first)).min(), at_least=1.2)
        late = [_after(transition.sel(scale=scale), 4.0) for scale in (1.0, last)]
        yield Claim("C1c", f"and on to {last:g} (test error after four training times over that at scale 1, the least)", measured=(late[1] / late[0]).min(), at_least=1.0,
                    reason="there the delay outlasts the run: a first test that took the run's length for it failed, because a lower bound decides nothing")
        leaving = crossing_time(abs(transition.sampled_error - lazy.test_loss), 0.05)
        yield Claim("C1d", "the lazier, the longer the lazy prediction holds (times at which the test error is 5 % of E y² off it, least ratio from scale to scale)",
                    measured=min(float((leaving.isel(scale=i + 1) / leaving.isel(scale=i)).min()) for i in range(len(self.scales) - 1)), at_least=1.0,
                    reason="an addition; set before the run")

    def _sweep_claims(self, swept, transition):
        at, few, many = {"samples": self.samples, "scale": 1.0}, min(self.counts), max(self.counts)
        wait = _delay(swept)
        yield Claim("C2", "none where the kernel sees the target (misalignment 0: longest delay of any seed)", measured=wait.sel(at).isel(misalignment=0).max(), at_most=1.5)
        draws = np.concatenate([wait.sel(at).isel(misalignment=-1).values, _delay(transition.sel(scale=1.0)).values])
        scatter = f"over {len(draws)} draws, which scatter from {draws.min():.2g} to {draws.max():.2g}: the shortest of three was tried first and failed"
        yield Claim("C2b", "long where it does not (misalignment 1: median delay)", measured=np.median(draws), at_least=3.0, reason=scatter)
        steps = wait.sel(at).diff("misalignment")
        yield Claim("C2c", "growing with misalignment between (least step of the delay from one to the next, any seed)", measured=steps.min(), at_least=0.0)
        known = [[self._known(p, m) for m in self.misalignments] for p in self._numbers]
        seen = np.array([[start_alignment(self.curvature, one.inputs, one.targets) for one in each] for each in known])
        yield Claim("C2d", "while the kernel's centred alignment with the training targets at the start falls (largest step)", measured=np.diff(seen).max(), at_most=0.0)
        here = swept.sel(scale=1.0).isel(misalignment=-1)
        yield Claim("C3", f"too few samples ({few}) never generalise (median of the final test error over E y²)",
                    measured=here.test_error.sel(samples=few).isel(time=-1).median(), at_least=0.2, reason="single draws scatter from 0.15 to 0.4")
        wait = wait.sel(scale=1.0).isel(misalignment=-1)
        yield Claim("C3b", f"{self.samples} do, late (median delay)", measured=np.median(draws), at_least=2.5, reason=scatter)
        yield Claim("C3c", f"with many ({many}) there is no delay (longest)", measured=wait.sel(samples=many).max(), at_most=1.6)

    def _feature_claims(self, seen, lazy):
        fit = crossing_time(seen.train_error, FIT, falling=True)
        then = seen.sampled_error.interp(time=fit.fillna(self.steps))
        kernel, end = lazy.end_test_loss, seen.sampled_error.isel(time=-1)
        yield Claim("C4", "when the samples are fit, the test error is about that of regression with the kernel at the start (ratio, every problem)",
                    measured=(then / kernel).values, between=(0.5, 2.0), reason="the entry says about; a factor of two is ours, knowing its numbers")
        yield Claim("C4b", "afterwards it falls far below (final test error over the kernel's, the largest)", measured=(end / kernel).max(), at_most=0.15)
        growth = seen.centred_alignment.isel(time=-1) / seen.centred_alignment.isel(time=0)
        yield Claim("C4c", "by features: the kernel's centred alignment with test targets grows (final over first, the least)", measured=growth.min(), at_least=1.5,
                    reason="the entry gives no number; ours, knowing its alignments")
        yield Claim("C4d", "while weights grow (norm over that at the start, the least)", measured=seen.weight_growth.isel(time=-1).min(), at_least=1.0)
        yield Claim("C4e", "the test error rises first (its peak over the start, the least)", measured=(seen.test_error.max("time") / seen.test_error.isel(time=0)).min(), at_least=1.05,
                    reason="the entry gives no number; ours, knowing its course")
        yield Claim("C4f", "a lazy network would not get there: even at its end (least test error over E y²)", measured=kernel.min(), at_least=0.2)

    def _exactness_claims(self, measured, theory):
        transition, exact = measured["transition"].sel(scale=1.0).isel(seed=0), theory["transition"]
        off = np.abs(transition.second_moment - exact.second_moment).max()
        yield Claim("C5", "a recursion of two moments is training, at infinite width (largest difference in the second moment, all steps)", measured=off, at_most=1e-8,
                    reason="the entry finds 9e-13 in 2000 steps; chaos of rounding is allowed for")
        yield Claim("C5b", f"and with {self.width} units (the same)", measured=self._finite_difference(measured["finite width"].isel(seed=0)), at_most=1e-8)
        gap = np.abs(2 * transition.test_loss - transition.population_error) / transition.population_error
        yield Claim("C5c", f"variance, misalignment and linear power add up to the test error (largest relative difference from {self.tests} test points)",
                    measured=gap.max(), at_most=6 / np.sqrt(self.tests) * np.sqrt(2), reason="ours: three standard errors of a mean of squares with a kurtosis that is at most 9")
        parts = ("variance_error", "misalignment_error", "linear_error")
        yield Claim("C5d", "the theory gives each of the three (largest difference over E y²)",
                    measured=max(float(np.abs(transition[p] - exact[p]).max()) for p in parts) / POWER, at_most=1e-8)
        limit = np.abs(2 / POWER * theory["lazy limit"].train_loss - theory["lazy"].train_loss.isel(problem=0)).max()
        yield Claim("C5e", f"at scale {LAZY:g} it becomes descent with the tangent kernel at the start (largest difference of the training error over E y²)", measured=limit, at_most=1e-3,
                    reason="an addition; set before the run: what is left should be of the order of 1/scale")

    def _finite_difference(self, seen) -> float:
        """Of one problem, the largest difference of the second moment from the recursion's that begins as the network did."""
        run, known = seen.isel(problem=0), self._known(self._numbers[0])
        start = run.mean_weights.values[0], run.second_moment.values[0]
        course = moment_descent(run.time.values, 2 * self.rate, 1.0, self.curvature, known.target, known.inputs, *start)
        return float(np.abs(course.second - run.second_moment.values).max())

    def _digit_claims(self, seen, known):
        then = _accuracy_when_fit(seen)
        first, last = self.digit_scales[0], self.digit_scales[-1]
        yield Claim("C6", f"digits: at scale {first:g} test accuracy is there when training reaches 90 % (the least of any seed)", measured=then.sel(scale=first).min(), at_least=0.7)
        yield Claim("C6b", f"at {last:g} it is not (the largest)", measured=then.sel(scale=last).max(), at_most=0.4)
        yield Claim("C6c", "all end above 90 % (the least)", measured=seen.test_accuracy.isel(time=-1).min(), at_least=0.9,
                    reason=f"weight decay {DIGIT_DECAY:g} wears the fit itself at the largest scale: training accuracy falls back to {float(seen.train_accuracy.isel(time=-1).min()):.2g}. "
                    "With half of it, and 4,500 steps, all three seeds end at 93 to 95 %")
        fit = crossing_time(seen.train_accuracy, 0.9)
        lazy = self._lazy_accuracy(seen, known).interp(time=fit.fillna(0.0))
        yield Claim("C6d", f"a lazy network, its start shrunk by weight decay, gives the accuracy when fit at {last:g} (largest difference)",
                    measured=np.abs((then - lazy).sel(scale=last)).max(), at_most=0.1,
                    reason="an addition, the limit set before the run; without the decay, as first tried, it is too low by 0.25")
        yield Claim("C6e", "and falls with the scale as it does (difference of the means from scale to scale, the largest)",
                    measured=lazy.mean("seed").diff("scale").max(), at_most=0.0, reason="an addition")

    def _lazy_accuracy(self, seen, known) -> xr.DataArray:
        """Test accuracy at the end of lazy training, of the infinite network's kernel, from the outputs that each network has at
        the start, shrunk by weight decay until then: each of three layers by 1 - rate decay a step."""
        start = seen.isel(time=0).transpose("scale", "seed", ...)
        left = (1 - DIGIT_RATE * DIGIT_DECAY) ** (3 * seen.time.values)
        found = np.empty((len(self.digit_scales), start.sizes["seed"], len(left)))
        for at in np.ndindex(found.shape[:2]):
            starts = (start.train_outputs.values[at][: known.sizes["sample"]], start.test_outputs.values[at][: known.sizes["test_sample"]])
            seen_of, targets = known.isel(sample=slice(len(starts[0])), other=slice(len(starts[0]))), known.targets.values[: len(starts[0])].astype(float)
            ends = [lazy_outputs(seen_of.gram.values, seen_of.cross.values, targets, share * starts[0], share * starts[1], [np.inf]).test_outputs.values[0] for share in (0.0, 1.0)]
            mixed = ends[0] + left[:, None, None] * (ends[1] - ends[0])  # the end is linear in the start
            found[at] = (mixed.argmax(axis=-1) == known.test_classes.values).mean(axis=-1)
        return xr.DataArray(found, {"scale": start.scale, "seed": start.seed, "time": seen.time}, ("scale", "seed", "time"))

    def figures(self, measured, theory):
        seen, lazy = _normalised(measured["transition"].isel(seed=0)), theory["lazy"]
        one = lambda data: data.sel(problem=0.0)
        yield Figure("transition", "One network from lazy to rich. Left: errors over E y² (dots) on the recursion's lines; dashed, what the network would do "
                     "with its kernel at the start, and dotted where that ends. The kernel aligns as the test error falls. Right: what the test error is made of.",
                     lambda axes: self._draw_transition(axes[0], one(seen).sel(scale=1.0), one(theory["transition"]), one(lazy), theory),
                     grid=(1, 2), size=(8.6, 3.6))  # fmt: skip
        yield Figure("laziness", "The lazier the start, the longer training (thin) and test errors stay on the lazy prediction (dashed; dotted, where it ends), and the later features "
                     "align and weights grow. One problem.", lambda axes: self._draw_laziness(axes[0], one(seen), one(lazy)), grid=(1, 2), size=(8.6, 3.4))
        yield Figure("determinants", "Test over training time (medians over seeds) against all three determinants: laziness, misalignment and samples. "
                     "Grey: the delay outlasts the run.", lambda axes: self._draw_determinants(axes[0], _normalised(measured["determinants"])), grid=(1, len(self.counts)))
        yield Figure("digits", "Digits: training (thin) and test accuracy. Dashed: where lazy training would end, from the infinite network's kernel and the outputs at the start, "
                     "which weight decay shrinks.", lambda axes: self._draw_digits(axes[0][0], measured["digits"], theory["kernel of digits"]), size=(5.6, 3.4))

    def _draw_transition(self, axes, seen, exact, lazy, theory):
        population, limit = theory["population"], theory["lazy limit"]
        for name, color in (("train", COLORS[0]), ("test", COLORS[1])):
            error = seen[f"{name}_error"]
            axes[0].plot(error.time[1:], error[1:], "o", color=color, markersize=2.5, label="training" if name == "train" else "test")
            for said, style in ((exact, "-"), (limit, "--")):
                axes[0].plot(said.time[1:], said[f"{name}_loss"][1:] * 2 / POWER, style, color=color, linewidth=1.5 if style == "-" else 1)
        axes[0].axhline(float(lazy.end_test_loss), linestyle=":", color=COLORS[1], linewidth=1)
        axes[0].plot(population.time[1:], population.population_error[1:] / POWER, color="0.7", zorder=1, label="test, infinite data")
        aligned = seen.centred_alignment
        axes[0].plot(aligned.time[1:], aligned[1:] / float(aligned.max()), color=COLORS[2], label="alignment / its largest")
        axes[0].plot([], [], "--", color="0.3", label="lazy")
        label(axes[0], "step", "error / E y²", "lazy to rich", xlog=True)
        axes[0].set_ylim(0, 1.75)  # room for the legend
        axes[0].legend(fontsize=7, loc="upper right", ncols=2)
        parts = (("linear_error", "linear power"), ("misalignment_error", "misalignment"), ("variance_error", "variance"))
        values = [seen[p].values[1:] / POWER for p, _ in parts]
        axes[1].stackplot(seen.time[1:], values, labels=[words for _, words in parts], colors=[COLORS[5], COLORS[4], COLORS[3]], alpha=0.85, linewidth=0)
        axes[1].plot(exact.time[1:], exact.population_error[1:] / POWER, color="black", linewidth=1, label="theory")
        label(axes[1], "step", "test error / E y²", "its parts", xlog=True)
        axes[1].legend(fontsize=7, loc="upper right")

    def _draw_laziness(self, axes, seen, lazy):
        for color, scale in zip(shades(len(self.scales)), self.scales, strict=True):
            at = seen.sel(scale=scale).isel(time=slice(1, None))
            axes[0].plot(at.time, at.sampled_error, color=color, label=f"scale {scale:g}")
            axes[0].plot(at.time, at.train_error, color=color, linewidth=0.6)
            axes[1].plot(at.time, at.centred_alignment / float(at.centred_alignment[0]), color=color, label=f"alignment, scale {scale:g}")
            axes[1].plot(at.time, at.weight_growth, ":", color=color)
        for name in ("train", "test"):
            axes[0].plot(lazy.time[1:], lazy[f"{name}_loss"][1:], "--", color="black", linewidth=1, label="lazy" if name == "test" else None)
        axes[0].axhline(float(lazy.end_test_loss), linestyle=":", color="black", linewidth=1, label="lazy, end")
        label(axes[0], "step", "error / E y²", "errors", xlog=True)
        axes[0].set_ylim(top=1.9)
        axes[0].legend(fontsize=7, loc="upper right", ncols=2)
        axes[1].plot([], [], ":", color="0.3", label="norm of the weights")
        label(axes[1], "step", "over the start", "features", xlog=True)
        axes[1].legend(fontsize=7, loc="upper left")

    def _draw_determinants(self, axes, seen):
        import matplotlib as mpl

        wait = _delay(seen).median("seed").transpose("misalignment", "scale", "samples")
        general = crossing_time(seen.test_error, FIT, falling=True).notnull().mean("seed").transpose("misalignment", "scale", "samples")
        colors = mpl.colormaps["cividis"].with_extremes(bad="0.85")
        for axis, count in zip(axes, self.counts, strict=True):
            here, ever = wait.sel(samples=count).values, general.sel(samples=count).values > 0.5
            axis.imshow(np.where(ever, np.log(here), np.nan), origin="lower", cmap=colors, vmin=0, vmax=np.log(15), aspect="auto")
            for (i, j), value in np.ndenumerate(here):
                dark = ever[i, j] and value < 5
                axis.text(j, i, f"{value:.1f}" if ever[i, j] else f"> {value:.0f}", ha="center", va="center", color="white" if dark else "black")
            for ticks, values in ((axis.set_xticks, self.scales), (axis.set_yticks, self.misalignments)):
                ticks(range(len(values)), [f"{v:g}" for v in values])
            axis.grid(visible=False)
            axis.set(xlabel="output scale", ylabel="misalignment", title=f"delay, {count} samples")

    def _draw_digits(self, axis, seen, known):
        lazy = self._lazy_accuracy(seen, known).mean("seed")
        for color, scale in zip(shades(len(self.digit_scales)), self.digit_scales, strict=True):
            at = seen.sel(scale=scale).mean("seed").isel(time=slice(1, None))
            axis.plot(at.time, at.train_accuracy, color=color, linewidth=0.7)
            axis.plot(at.time, at.test_accuracy, color=color, label=f"scale {scale:g}")
            axis.plot(at.time, lazy.sel(scale=scale)[1:], "--", color=color, linewidth=1)
        label(axis, "step", "accuracy", xlog=True)
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _normalised(seen: xr.Dataset) -> xr.Dataset:
    """With mean squared errors over E y² beside the losses; `test_error` is exact, `sampled_error` that on test points."""
    return seen.assign(train_error=2 * seen.train_loss / POWER, test_error=seen.population_error / POWER, sampled_error=2 * seen.test_loss / POWER)


def _delay(seen: xr.Dataset) -> xr.DataArray:
    """The time at which the test error falls below a tenth of E y² over that of the training error; where it never does, over the
    run's length; nan where training never does."""
    fit, general = (crossing_time(seen[name], FIT, falling=True) for name in ("train_error", "test_error"))
    return general.fillna(float(seen.time[-1])) / fit


def _after(seen: xr.Dataset, times: float) -> xr.DataArray:
    """The test error when that many times the steps have passed that the training error took to fall below a tenth of E y²."""
    return seen.test_error.interp(time=times * crossing_time(seen.train_error, FIT, falling=True).fillna(np.inf))


def _accuracy_when_fit(seen: xr.Dataset) -> xr.DataArray:
    """Test accuracy when training accuracy reaches 90 %; nan where it never does."""
    fit = crossing_time(seen.train_accuracy, 0.9)
    return seen.test_accuracy.interp(time=fit.fillna(0.0)).where(fit.notnull())
