"""Measurement against theory: overlay is subtraction."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from armillary.prediction import refusals
from armillary.trajectory import Trajectory, healthy, over_seeds


@dataclass(frozen=True)
class Comparison:
    """What two trajectories have in common.

    - `difference`: measured mean over seeds minus theory, for each shared observable, on the shared coordinates.
    - `largest`, `relative`: its largest absolute value, and that over the theory's largest absolute value.
    - `standard_error`: of the measured means. `unexplained`: observables without a theory.
    - `diverged`: how many members were left out because they diverged. `refused`: what the theories that do not
      apply said.
    """

    difference: Trajectory
    standard_error: Trajectory
    largest: dict[str, float]
    relative: dict[str, float]
    unexplained: list[str]
    diverged: int
    refused: dict[str, list[str]]

    def __str__(self) -> str:
        lines = [
            f"{name}: largest difference {self.largest[name]:.3g} ({self.relative[name]:.2%} of the theory's largest)"
            for name in self.largest
        ]
        if self.unexplained:
            lines.append(f"without theory: {', '.join(self.unexplained)}")
        if self.diverged:
            lines.append(f"{self.diverged} members diverged and are left out")
        if not self.largest:
            lines += [f"{theory} {reason}" for theory, reasons in self.refused.items() for reason in reasons]
        return "\n".join(lines)


def compare(measured: Trajectory, theory: Trajectory) -> Comparison:
    """Measured mean over seeds minus theory, observable by observable.

    Members that diverged are left out and counted. Observables are compared where both have values (their
    shared coordinates); one that theory lacks is listed as unexplained.

    >>> import armillary as arm, jax.numpy as jnp
    >>> task = arm.tasks.Correlations(jnp.eye(2), jnp.diag(jnp.array([2.0, 1.0])))
    >>> model = arm.models.DeepLinear(initialisation=arm.models.Decoupled(task.input_output_correlation))
    >>> experiment = arm.Experiment(task, model, arm.rules.GradientFlow(), [arm.probes.Losses()])
    >>> compare(arm.simulate(experiment), arm.predict(experiment)).relative["train_loss"] < 1e-3
    True
    """
    fine = healthy(measured)
    differences, errors, largest, relative = {}, {}, {}, {}
    for name in fine.data_vars:
        if name == "diverged_at" or name not in theory:
            continue
        mean, error = over_seeds(fine[name])
        mean, predicted = xr.align(mean, theory[name], join="inner")
        differences[name] = mean - predicted
        errors[name] = error
        scale = float(np.abs(predicted).max())
        largest[str(name)] = float(np.abs(differences[name]).max())
        relative[str(name)] = largest[str(name)] / scale if scale > 0 else np.nan if largest[str(name)] else 0.0
    return Comparison(
        xr.Dataset(differences), xr.Dataset(errors), largest, relative,
        [str(n) for n in measured.data_vars if n != "diverged_at" and n not in theory],
        int(measured.diverged_at.notnull().sum()) if "diverged_at" in measured else 0,
        refusals(theory),
    )  # fmt: skip
