"""Armillary predicts, measures and steers how neural networks learn.

    experiment = armillary.Experiment(task=..., model=..., rule=..., probes=[...])
    measured = armillary.simulate(experiment, seeds=16)
    theory = armillary.predict(experiment)
    armillary.compare(measured, theory)

Names are loaded when first used, so that the command line answers before JAX is there.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
