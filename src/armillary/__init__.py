"""Armillary predicts, measures and steers how neural networks learn.

    experiment = armillary.Experiment(task=..., model=..., rule=..., probes=[...])
    measured = armillary.simulate(experiment, seeds=16)
    theory = armillary.predict(experiment)
    armillary.compare(measured, theory)

Names are loaded when first used, so that the command line answers before JAX is there.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armillary import curvature, interop, models, path_builders, paths, probes, rules, tangents, tasks, theory
    from armillary.clock import At, Evenly, LogSpaced
    from armillary.comparison import compare
    from armillary.errors import ArmillaryError
    from armillary.experiment import Experiment, Sweep
    from armillary.monitor import Monitor
    from armillary.prediction import predict
    from armillary.probes.probe import probe
    from armillary.process import Flow, Process, Snapshot
    from armillary.quantity import Quantity
    from armillary.simulation import simulate
    from armillary.stages import Stage, Stages
    from armillary.sweeps.sweep import sweep
    from armillary.theory.kernels.of_model import kernel
    from armillary.trajectory import Trajectory, experiment_from, healthy

_HOME = {
    "At": "clock", "Evenly": "clock", "LogSpaced": "clock",
    "compare": "comparison",
    "ArmillaryError": "errors",
    "Experiment": "experiment", "Sweep": "experiment",
    "kernel": "theory.kernels.of_model",
    "Monitor": "monitor",
    "predict": "prediction",
    "probe": "probes.probe",
    "Flow": "process", "Process": "process", "Snapshot": "process",
    "Quantity": "quantity",
    "simulate": "simulation",
    "Stage": "stages", "Stages": "stages",
    "sweep": "sweeps.sweep",
    "Trajectory": "trajectory", "experiment_from": "trajectory", "healthy": "trajectory",
}  # fmt: skip
_PACKAGES = (
    "curvature",
    "interop",
    "models",
    "path_builders",
    "paths",
    "probes",
    "rules",
    "tangents",
    "tasks",
    "theory",
)

__all__ = [
    "ArmillaryError", "At", "Evenly", "Experiment", "Flow", "LogSpaced", "Monitor", "Process", "Quantity", "Snapshot", "Stage",
    "Stages", "Sweep", "Trajectory", "compare", "curvature", "experiment_from", "healthy", "interop", "kernel", "models",
    "path_builders", "paths", "predict", "probe", "probes", "rules", "simulate", "sweep", "tangents", "tasks", "theory",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"armillary.{name}")
    if name in _HOME:
        found = getattr(importlib.import_module(f"armillary.{_HOME[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'armillary' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
