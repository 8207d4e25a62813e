"""Kernels of infinite and of finite width beside the best hand-written programs and the tools that people use, in CPU time.

`python benchmarks/kernels.py` runs every contender in a process of its own on one thread. NEURAL_TANGENTS names the Python
of an environment with jax==0.4.25 and neural-tangents==0.6.5 (it does not import on today's jax); without it that peer is
left out, as is torch.func without PyTorch.
"""

import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import time

JOBS = {
    "infinite ReLU NTK, 3 hidden layers, 2000 x 200": [
        "armillary_infinite",
        "jax_infinite",
        "neural_tangents_infinite",
    ],
    "finite NTK, n = 100, all outputs": [
        "armillary_full_100",
        "jax_full_100",
        "neural_tangents_full_100",
        "torch_full_100",
    ],
    "finite NTK, n = 500, all outputs": ["armillary_full_500", "jax_full_500", "neural_tangents_full_500"],
    "finite NTK, n = 500, mean over outputs": ["armillary_mean_500", "jax_mean_500", "neural_tangents_mean_500"],
    "convolutional NTK, 5 layers, pooled, 4 x 4 images of 32 x 32 x 3": ["armillary_conv_4", "neural_tangents_conv_4"],
    "the same, 16 x 16 images": ["armillary_conv_16", "neural_tangents_conv_16"],
    # The peer takes hours here: `python kernels.py neural_tangents_conv_64`.
    "the same, 64 x 64 images": ["armillary_conv_64"],
}
SIZES = (784, 512, 512, 10)


def timed(run, repetitions=5):
    """First call, and the smallest CPU time of the later ones; without any, the first, compilation and all."""
    begun = time.process_time()
    run()
    first = time.process_time() - begun
    later = [] if repetitions else [first]
    for _ in range(repetitions):
        begun = time.process_time()
        run()
        later.append(time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"cpu_s": min(later), "first_s": first, "peak_gib": peak}


def inputs(count, size):
    import numpy as np

    return np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)


def images(job):
    import numpy as np

    return np.random.default_rng(0).normal(size=(int(job.split("_")[1]), 32, 32, 3)).astype(np.float32)


def weights():
    import numpy as np

    rng = np.random.default_rng(1)
    return [
        ((rng.normal(size=(o, i)) * (2 / i) ** 0.5).astype(np.float32), np.zeros(o, np.float32))
        for i, o in itertools.pairwise(SIZES)
    ]


def armillary(job):
    import jax
    import jax.numpy as jnp

    import armillary as arm
    from armillary.theory.kernels import Activation, Convolution, Dense, GlobalAveragePool, Kernel

    if job == "infinite":
        kernel = Kernel(*[part for _ in range(3) for part in (Dense(2.0), Activation("relu"))], Dense(2.0))
        x = inputs(2000, 200)
        return timed(lambda: kernel.ntk(x))
    if job.startswith("conv"):
        body = [part for _ in range(5) for part in (Convolution(2.0), Activation("relu"))]
        x = images(job)
        kernel = Kernel(*body, GlobalAveragePool(), Dense())
        return timed(lambda: kernel.ntk(x), 2 if len(x) < 64 else 0)
    from armillary.models import MLPNetwork
    from armillary.models.model import Dense as Layer

    network = MLPNetwork(tuple(Layer(jnp.asarray(w), jnp.asarray(b)) for w, b in weights()), "relu")
    outputs, count = job.split("_")
    x = inputs(int(count), SIZES[0])
    return timed(lambda: jax.block_until_ready(arm.tangents.empirical_kernel(network, x, outputs=outputs)))


def jax_by_hand(job):
    import jax
    import jax.numpy as jnp

    if job == "infinite":
        coefficients = (-0.0012624911, 0.0066700901, -0.0170881256, 0.0308918810, -0.0501743046, 0.0889789874, -0.2145988016, 1.5707963050)  # fmt: skip

        def share(c):
            z = jnp.abs(c)
            p = jnp.full_like(z, coefficients[0])
            for a in coefficients[1:]:
                p = p * z + a
            a = jnp.sqrt(1 - z) * p
            return jnp.where(c < 0, a, jnp.pi - a) / jnp.pi

        @jax.jit
        def ntk(x):
            k = (2.0 / x.shape[1]) * (x @ x.T)
            r = jnp.sqrt(jnp.diag(k))
            s = r[:, None] * r[None]
            c = jnp.clip(k / s, -1, 1)
            t = c
            for _ in range(3):
                dot = share(c)
                c2 = jnp.sqrt(jnp.maximum(1 - c * c, 0)) / jnp.pi + c * dot
                t = c2 + t * dot
                c = jnp.clip(c2, -1, 1)
            return s * t

        x = jnp.asarray(inputs(2000, 200))
        return timed(lambda: jax.block_until_ready(ntk(x)))
    outputs, count = job.split("_")
    n, k = int(count), SIZES[-1]
    x, layers = jnp.asarray(inputs(n, SIZES[0])), [(jnp.asarray(w), jnp.asarray(b)) for w, b in weights()]

    @jax.jit
    def kernel(x, layers):
        (w1, b1), (w2, b2), (w3, _) = layers
        h1 = x @ w1.T + b1
        h2 = jax.nn.relu(h1) @ w2.T + b2
        d2 = (h2 > 0).astype(x.dtype)[:, None] * w3[None]
        d1 = (h1 > 0).astype(x.dtype)[:, None] * (d2.reshape(-1, d2.shape[-1]) @ w2).reshape(d2.shape)
        heard = [v @ v.T + 1 for v in (x, jax.nn.relu(h1), jax.nn.relu(h2))]
        if outputs == "mean":
            parts = [g * (d.reshape(n, -1) @ d.reshape(n, -1).T) / k for g, d in zip(heard, (d1, d2), strict=False)]
            return heard[2] + sum(parts)
        parts = [
            g[:, None, :, None] * (d.reshape(n * k, -1) @ d.reshape(n * k, -1).T).reshape(n, k, n, k)
            for g, d in zip(heard, (d1, d2), strict=False)
        ]
        return jnp.eye(k)[None, :, None, :] * heard[2][:, None, :, None] + sum(parts)

    return timed(lambda: jax.block_until_ready(kernel(x, layers)))


def torch_by_hand(job):
    import torch
    from torch.func import functional_call, jacrev, vmap

    torch.set_num_threads(1)
    modules = []
    for w, b in weights():
        layer = torch.nn.Linear(w.shape[1], w.shape[0])
        layer.load_state_dict({"weight": torch.tensor(w), "bias": torch.tensor(b)})
        modules += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*modules[:-1])
    values = {name: p.detach() for name, p in network.named_parameters()}
    x = torch.tensor(inputs(int(job.split("_")[1]), SIZES[0]))

    def kernel():
        jacobian = vmap(jacrev(lambda p, one: functional_call(network, p, (one,))), (None, 0))(values, x)
        return sum(torch.einsum("naf,mbf->namb", j.flatten(2), j.flatten(2)) for j in jacobian.values())

    return timed(kernel, 2)


def neural_tangents(job):
    import jax
    import jax.numpy as jnp
    import neural_tangents as nt
    from neural_tangents import stax

    if job == "infinite" or job.startswith("conv"):
        if job == "infinite":
            body, head = (
                [part for _ in range(3) for part in (stax.Dense(512, W_std=2**0.5), stax.Relu())],
                [stax.Dense(1, W_std=2**0.5)],
            )
            x = jnp.asarray(inputs(2000, 200))
        else:
            body = [p for _ in range(5) for p in (stax.Conv(64, (3, 3), padding="CIRCULAR", W_std=2**0.5), stax.Relu())]
            head = [stax.GlobalAvgPool(), stax.Dense(1, W_std=1.0)]
            x = jnp.asarray(images(job))
        kernel = jax.jit(stax.serial(*body, *head)[2], static_argnums=(2,))
        if len(x) <= 4 or job == "infinite":
            return timed(lambda: jax.block_until_ready(kernel(x, None, "ntk")), 5 if job == "infinite" else 1)
        kernel = nt.batch(kernel, batch_size=4)  # all pairs of 16 images at once would take some 10 GiB
        return timed(lambda: jax.block_until_ready(kernel(x, None, "ntk")), 0)
    outputs, count = job.split("_")
    # Its structure is found for products in this order.
    layers, x = [(jnp.asarray(w.T), jnp.asarray(b)) for w, b in weights()], jnp.asarray(inputs(int(count), SIZES[0]))

    def network(layers, x):
        for w, b in layers[:-1]:
            x = jnp.maximum(x @ w + b, 0)
        return x @ layers[-1][0] + layers[-1][1]

    axes = (-1,) if outputs == "mean" else ()
    kernel = jax.jit(nt.empirical_ntk_fn(network, trace_axes=axes, vmap_axes=0, implementation=3))  # structured
    return timed(lambda: jax.block_until_ready(kernel(x, None, layers)), 3)


def contend(name):
    kinds = {"armillary": armillary, "jax": jax_by_hand, "torch": torch_by_hand, "neural_tangents": neural_tangents}
    kind = next(k for k in kinds if name.startswith(k))
    return kinds[kind](name.removeprefix(f"{kind}_"))


def python_of(name):
    """The Python that runs a contender, or None where it is not there."""
    if name.startswith("neural_tangents"):
        return os.environ.get("NEURAL_TANGENTS")
    if name.startswith("torch") and importlib.util.find_spec("torch") is None:
        return None
    return sys.executable


def main():
    if len(sys.argv) > 1:
        print(json.dumps({"contender": sys.argv[1], **contend(sys.argv[1])}))
        return
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NPROC": "1", "JAX_PLATFORMS": "cpu"}
    for job, names in JOBS.items():
        print(job)
        base = None
        for name in names:
            python = python_of(name)
            if python is None:
                print(f"  {name:<28} left out")
                continue
            own = {**environment, "XLA_FLAGS": flags} if name.startswith("neural_tangents") else environment
            out = subprocess.run([python, __file__, name], env=own, check=True, capture_output=True, text=True).stdout
            found = json.loads(out.splitlines()[-1])
            base = found["cpu_s"] if base is None else base
            print(
                f"  {name:<28} {found['cpu_s']:8.3f} CPU s  {found['cpu_s'] / base:7.2f} x armillary's  "
                f"peak {found['peak_gib']:.2f} GiB  first {found['first_s']:.1f} s"
            )


if __name__ == "__main__":
    main()
