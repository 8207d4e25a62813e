"""Hessian of an MLP: product, top-5 eigenvalues, 80-step Lanczos density; Armillary beside other tools, one run, one thread.

python benchmarks/curvature.py [--large]      every contender that is installed, ratios of CPU time
python benchmarks/curvature.py NAME [--large] one contender in this process
"""

import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import time
import warnings

SIZES = {"small": [784, 256, 256, 10], "large": [784, 1024, 512, 10]}
SAMPLES, TOP, LANCZOS, ENOUGH = 2000, 5, 80, 40
NEEDS = {"matfree": "matfree", "pyhessian": "pyhessian", "curvlinops": "curvlinops"}
CONTENDERS = ["armillary", "armillary_torch", "jax_by_hand", "matfree", "pyhessian", "curvlinops"]


def problem(size: str, samples: int = SAMPLES):
    """Gaussian classes and an MLP after 60 gradient steps in NumPy: the same for every contender."""
    import numpy as np

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 784)) * 0.35
    y = rng.integers(0, 10, samples)
    x = np.empty((samples, 784), np.float32)
    for rows in (slice(i, i + SAMPLES) for i in range(0, samples, SAMPLES)):  # all at once they would be the peak
        x[rows] = centres[y[rows]] + rng.standard_normal((len(y[rows]), 784))
    x /= np.sqrt((x**2).mean())
    sizes = SIZES[size]
    pairs = list(itertools.pairwise(sizes))
    layers = [
        [(rng.standard_normal((b, a)) * np.sqrt(2 / a)).astype(np.float32), np.zeros(b, np.float32)] for a, b in pairs
    ]
    hot = np.eye(10, dtype=np.float32)[y[:SAMPLES]]
    for _ in range(60):
        seen = [x[:SAMPLES]]
        for i, (w, b) in enumerate(layers):
            h = seen[-1] @ w.T + b
            seen.append(np.maximum(h, 0) if i < len(layers) - 1 else h)
        exps = np.exp(seen[-1] - seen[-1].max(1, keepdims=True))
        back = (exps / exps.sum(1, keepdims=True) - hot) / SAMPLES
        for i in range(len(layers) - 1, -1, -1):
            w, b = layers[i]
            below = (back @ w) * (seen[i] > 0)
            layers[i] = [w - 0.1 * back.T @ seen[i], b - 0.1 * back.sum(0)]
            back = below
    return x, y, layers


def timed(run, times: int = 3) -> float:
    """The smallest CPU time of a few calls, after one that compiles."""
    run()
    taken = []
    for _ in range(times):
        begun = time.process_time()
        run()
        taken.append(time.process_time() - begun)
    return min(taken)


def network_of(layers):
    import jax.numpy as jnp

    from armillary.models.mlp import MLPNetwork
    from armillary.models.model import Dense

    return MLPNetwork(tuple(Dense(jnp.asarray(w), jnp.asarray(b)) for w, b in layers), "relu")


def armillary(size: str, samples: int = SAMPLES) -> dict:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from armillary import curvature
    from armillary.rules import Loss
    from armillary.tasks import Samples

    x, y, layers = problem(size, samples)
    network, data, loss = network_of(layers), Samples(jnp.asarray(x), jnp.asarray(y)), Loss("cross_entropy")
    gradient = jax.jit(lambda n, data: eqx.filter_grad(loss)(n, data))
    start = jax.random.normal(jax.random.key(0), (count(layers),))
    wait = jax.block_until_ready

    def repeated(network, data, v, times):  # products at the same weights
        product = curvature.hessian(loss, network, data).product
        return jax.lax.fori_loop(0, times, lambda _, v: product(v) / jnp.linalg.norm(v), v)

    # Everything is an argument: a constant would be folded.
    many = jax.jit(repeated)
    find = jax.jit(
        lambda n, data, v: curvature.eigenpairs(curvature.hessian(loss, n, data).product, v, TOP, tolerance=1e-3)
    )
    density = jax.jit(lambda n, data, key: curvature.quadrature(curvature.hessian(loss, n, data), key, LANCZOS))
    seen = {}
    if samples == SAMPLES:
        seen["gradient"] = timed(lambda: wait(gradient(network, data)), 15)
        long, short = (timed(lambda k=k: wait(many(network, data, start, k)), 7) for k in (11, 1))
        seen["product"] = (long - short) / 10
        found = find(network, data, start)
        seen["values"], seen["products"] = found.values.tolist(), int(found.products)
        seen["top"] = timed(lambda: wait(find(network, data, start).values))
    key = jax.random.key(1)
    seen["density"] = timed(lambda: wait(density(network, data, key)), 2)
    return seen


def count(layers) -> int:
    return sum(w.size + b.size for w, b in layers)


def torch_problem(size: str):
    import torch

    torch.set_num_threads(1)
    x, y, layers = problem(size)
    parts = []
    for i, (w, b) in enumerate(layers):
        linear = torch.nn.Linear(w.shape[1], w.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(w))
            linear.bias.copy_(torch.tensor(b))
        parts += [linear] + ([torch.nn.ReLU()] if i < len(layers) - 1 else [])
    module, loss = torch.nn.Sequential(*parts), torch.nn.CrossEntropyLoss()
    data = torch.tensor(x), torch.tensor(y)
    weights = list(module.parameters())
    gradient = timed(lambda: torch.autograd.grad(loss(module(data[0]), data[1]), weights), 15)
    return module, loss, data, weights, gradient


def armillary_torch(size: str) -> dict:
    import jax

    from armillary.interop import torch as instruments
    from armillary.interop.torch_curvature import TorchCurvature
    from armillary.interop.torch_data import Batches, BatchLoss
    from armillary.probes import ExtremeEigenvalues, SpectralDensity

    module, loss, data, _, gradient = torch_problem(size)
    operator = TorchCurvature(module, BatchLoss(loss, None), Batches(data, None)).operator("hessian", None, 1e9)
    v = jax.random.normal(jax.random.key(0), (operator.size,))
    look = lambda probe: instruments.probe(module, loss, data, [probe])
    top = ExtremeEigenvalues(top=TOP, tolerance=1e-3)
    found = look(top)
    return {
        "gradient": gradient,
        "product": timed(lambda: operator.product(v).block_until_ready(), 15),
        "values": found.hessian_eigenvalues.values.tolist(), "products": int(found.hessian_products),
        "top": timed(lambda: look(top)), "density": timed(lambda: look(SpectralDensity(steps=LANCZOS)), 2),
    }  # fmt: skip


def warm_products() -> float:
    """Products a step that the largest eigenvalue takes at each of 100 consecutive steps (training on digits)."""
    import armillary as arm

    rule = arm.rules.Descent(arm.rules.SGD(0.3), 100, arm.rules.Loss("cross_entropy"))
    probe = arm.probes.ExtremeEigenvalues(top=1, tolerance=1e-2)
    experiment = arm.Experiment(arm.tasks.Digits(200), arm.models.MLP(32, 3, "tanh"), rule, [probe], arm.Evenly(101))
    return float(arm.simulate(experiment, seeds=4, progress=False).hessian_products.mean())


def exact(size: str) -> list[float]:
    """The eigenvalues in float64, to many digits."""
    import jax

    from armillary import curvature

    with jax.enable_x64(True):
        from curvature_peers import plain_jax

        flat, _, product, v = plain_jax(size)
        flat, v = flat.astype("float64"), v.astype("float64")
        return jax.jit(
            lambda p, v: curvature.eigenpairs(lambda u: product(p, u), v, TOP, tolerance=1e-7, most=400).values
        )(flat, v).tolist()


def contend(name: str, size: str) -> dict:
    if name == "exact":
        return {"values": exact(size)}
    if name == "warm":
        return {"products": warm_products()}
    if name == "many_samples":
        return armillary(size, 10 * SAMPLES)
    if name in globals():
        return globals()[name](size)
    import curvature_peers

    return getattr(curvature_peers, name)(size)


def main() -> None:
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    size = "large" if "--large" in sys.argv else "small"
    if names:
        warnings.simplefilter("ignore")
        seen = contend(names[0], size)
        seen["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(seen))
        return
    one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NPROC": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": one_thread,
    }

    def run(name: str) -> dict:
        command = [sys.executable, __file__, name, *(["--large"] if size == "large" else [])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"{name:<16} failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
            return {}
        return json.loads(done.stdout.splitlines()[-1])

    truth = run("exact")["values"]
    print(
        f"{'contender':<16} {'HVP/gradient':>12} {'top-5 CPU s':>12} {'products':>9} {'worst error':>12} {'density CPU s':>14} {'GiB':>6}"
    )
    for name in CONTENDERS:
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            print(f"{name:<16} left out: it is not installed")
            continue
        if name == "armillary_torch" and importlib.util.find_spec("torch") is None:
            print(f"{name:<16} left out: torch is not installed")
            continue
        seen = run(name)
        if seen:
            error = max(abs(a / b - 1) for a, b in zip(seen["values"], truth, strict=True))
            print(
                f"{name:<16} {seen['product'] / seen['gradient']:12.2f} {seen['top']:12.2f} {seen['products']:9d} {error:12.1e} {seen['density']:14.2f} {seen['gib']:6.2f}"
            )
    print(f"armillary, {10 * SAMPLES} samples: {run('many_samples')['gib']:.2f} GiB")
    print(f"largest eigenvalue at each of 100 consecutive steps: {run('warm')['products']:.2f} products a step")


if __name__ == "__main__":
    main()
