"""The largest learning rate that each batch size stands, from the measured noise of single samples' curvature."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from armillary.errors import InvalidValue, require_between, unknown
from armillary.theory.spiked import crossover_batch, effective_batch, mean_square_limit, spiked_wigner

NOISES = ("largest", "mean")


def largest_rates(
    measured: xr.Dataset,
    batch_sizes: Sequence[float] | np.ndarray,
    *,
    adam: tuple[float, float] | None = None,
    noise: str = "largest",
    matrix: str = "hessian",
) -> xr.Dataset:
    """The largest usable learning rates at each of `batch_sizes`, from what the probe `HessianNoise` saw of a network.

    Returns, along `batch` (and any dimensions that `measured` has):

    - `batch_eigenvalue`: where the sharpest curvature of such a batch is expected, by `spiked_wigner`: too low where other
      outliers are near, as the noise moves a curvature λ' away by its part over λ - λ' and not over λ;
    - `sgd_rate`: 2/(λ + V/(b' λ)), λ the sharpest curvature of all samples, V one sample's noise along its direction, b'
      the effective batch (1/b' = 1/b - 1/N): linear in b, then saturated. It is the mean-square limit of that direction alone,
      near this point of the weights, for plain SGD; momentum and noise that goes to other directions are left out (see
      `coupled_limit`), and curvature changes as training goes on. Networks under cross-entropy survive rates several times
      larger and do best there (in the study `batch-hessian-lr` up to 20 times the limit measured at the start);
    - `sgd_rate_error`: its standard error, from that of the measured noise alone;
    - `crossover`: the batch size below which noise rules, V/λ²; `resolved`: whether the sharpest direction stands out of the noise;
    - with `adam` = (rate, batch), a rate known to serve at one batch size: `adam_rate`, scaled by the square root of the
      batch. It rests on that the noise, not the mean, makes the squared gradients by which Adam divides: these go as 1/b,
      which takes a root off SGD's linear law. It ends at the gradient's own noise scale (the probe `GradientNoise`). The
      measured curvature does not enter, so that there is no error bar.

    `noise`: "largest", along the sharpest direction, or "mean", as for independent entries: far too small for
    networks, whose samples disagree most where curvature is largest. Raises `InvalidValue` where `measured` is not
    `HessianNoise`'s, for a network whose largest curvature is not positive, and for batches out of range.

    >>> seen = xr.Dataset({"hessian_largest": 2.0, "hessian_largest_noise": 16.0, "hessian_largest_noise_error": 1.6,
    ...     "training_samples": 1000.0})
    >>> rates = largest_rates(seen, (1, 10, 1000), adam=(0.01, 10))
    >>> print(rates.sgd_rate.values.round(3), rates.adam_rate.values.round(4), rates.crossover.item())
    [0.2   0.716 1.   ] [0.0032 0.01   0.1   ] 4.0
    """
    if noise not in NOISES:
        raise unknown("noise", noise, NOISES)
    names = [f"{matrix}_largest", f"{matrix}_{noise}_noise", f"{matrix}_{noise}_noise_error", "training_samples"]
    missing = [name for name in names if name not in measured]
    if missing:
        raise InvalidValue(f"largest_rates needs what the probe HessianNoise returns, and {missing[0]} is not there")
    sharpest, sample_noise, error, samples = (measured[name] for name in names)
    if (sharpest <= 0).any():
        raise InvalidValue(
            f"the largest curvature is {float(sharpest.min()):.3g}, but must be above 0; train a little first"
        )
    count = float(np.unique(samples.values[np.isfinite(samples.values)])[0])
    sizes = np.asarray(batch_sizes, float)
    effective = effective_batch(sizes, count)
    batch = xr.DataArray(np.asarray(effective), dims="batch", coords={"batch": sizes})
    spread = sample_noise / batch
    apply = lambda function, *args: xr.apply_ufunc(function, *args)
    rate = apply(mean_square_limit, sharpest, spread)
    found = {
        "batch_eigenvalue": apply(spiked_wigner, sharpest, spread).assign_attrs(units="1/rate"),
        "sgd_rate": rate.assign_attrs(units="rate", long_name="largest stable rate of SGD"),
        "sgd_rate_error": (rate**2 / 2 * error / batch / sharpest).assign_attrs(units="rate"),
        "crossover": apply(crossover_batch, sharpest, sample_noise).assign_attrs(units="samples"),
        "resolved": sharpest > np.sqrt(spread),
    }
    if adam is not None:
        known, at = adam
        require_between("Adam's known rate", known, 0.0, open_low=True)
        require_between("the batch size of Adam's known rate", at, 1)
        growth = np.sqrt(sizes / at)
        found["adam_rate"] = xr.DataArray(
            known * growth, dims="batch", coords={"batch": sizes}, attrs={"units": "rate"}
        )
    return xr.Dataset(found)
