"""64 small networks x 500 steps: `simulate` beside hand-written JAX and PyTorch loops, as ratios from one run."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time

NETWORKS, STEPS, BATCH, WIDTH = 64, 500, 128, 64
EVERY, TRAINED = 20, 1796  # steps between two observations of the probed; digits to train on, the last one is the test
PLAIN = ["armillary", "jax_vmap", "jax_map", "jax_chunks", "torch_eager", "torch_func"]
PROBED = ["armillary_probed", "jax_vmap_probed", "jax_map_probed", "jax_chunks_probed"]
ROUNDS, REPETITIONS = 3, 2  # contenders take turns: a machine's hours differ more than they do


def timed(run, scale=1.0):
    """The smallest CPU time of the calls after the first, and what the first took longer (times `scale`)."""
    begun = time.process_time()
    run()
    first = time.process_time() - begun
    later = []
    for _ in range(REPETITIONS):
        begun = time.process_time()
        run()
        later.append((time.process_time() - begun) * scale)
    return {"cpu_s": min(later), "compile_s": max(first * scale - min(later), 0.0)}


def digits():
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.data / 16.0).astype(np.float32), bunch.target.astype(np.int32)


def rates():
    import numpy as np

    return np.geomspace(1e-3, 0.3, NETWORKS).astype(np.float32)


def armillary(probed: bool):
    import armillary as arm

    rule = arm.rules.Descent(
        arm.rules.SGD(0.1), STEPS, arm.rules.Loss("cross_entropy"), arm.rules.MiniBatch(BATCH, replace=True)
    )
    task = arm.tasks.Digits(samples=TRAINED, standardise=False)
    probes = [arm.probes.Losses(), arm.probes.WeightNorm()] if probed else [arm.probes.WeightNorm()]
    observe = arm.Evenly(STEPS // EVERY + 1) if probed else arm.At((STEPS,))
    experiment = arm.Experiment(task, arm.models.MLP(WIDTH, 3), rule, probes, observe)
    sweep = arm.Sweep(experiment, {"learning_rate": rates().tolist()})
    return timed(lambda: arm.simulate(sweep, progress=False))


def jax_by_hand(how: str, probed: bool):
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    (x, y), (test_x, test_y) = ([jnp.asarray(a[part]) for a in digits()] for part in np.s_[:TRAINED, TRAINED:])

    def init(key):
        sizes = [64, WIDTH, WIDTH, 10]
        keys = jax.random.split(key, 3)
        pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return [(jax.random.normal(k, (a, b)) * jnp.sqrt(2 / a), jnp.zeros(b)) for k, a, b in pairs]

    def loss(p, x, y):
        for i, (w, b) in enumerate(p):
            x = x @ w + b
            x = jnp.maximum(x, 0) if i < 2 else x
        return jnp.mean(jax.nn.logsumexp(x, 1) - jnp.take_along_axis(x, y[:, None], 1)[:, 0])

    def observe(p):
        """What `Losses` and `WeightNorm` see."""
        norms = jnp.stack([jnp.linalg.norm(w) for w, _ in p])
        everything = jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(p)))
        return loss(p, x, y), loss(p, test_x, test_y), norms, everything

    def train(key, rate):
        def step(t, p):
            index = jax.random.randint(jax.random.fold_in(key, t), (BATCH,), 0, len(x))
            gradient = jax.grad(loss)(p, x[index], y[index])
            return jax.tree.map(lambda a, g: a - rate * g, p, gradient)

        def stretch(p, t):
            p = lax.fori_loop(t, t + EVERY, step, p)
            return p, observe(p)

        start = init(key)
        if not probed:
            return lax.fori_loop(0, STEPS, step, start)
        return observe(start), lax.scan(stretch, start, jnp.arange(0, STEPS, EVERY))[1]

    keys, steps = jax.random.split(jax.random.key(0), NETWORKS), jnp.asarray(rates())
    one = lambda pair: train(*pair)
    batch = {"jax_vmap": NETWORKS, "jax_map": 1, "jax_chunks": 8}[how]
    program = jax.jit(lambda k, r: lax.map(one, (k, r), batch_size=None if batch == 1 else batch))
    return timed(lambda: jax.block_until_ready(program(keys, steps)))


def torch_by_hand(how: str):
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy, relu

    torch.set_num_threads(1)
    x, y = (torch.tensor(a) for a in digits())
    y = y.long()
    index = torch.tensor(np.random.default_rng(0).integers(0, len(x), (STEPS, BATCH)))
    if how == "torch_eager":
        few = rates()[:: NETWORKS // 4]

        def run():
            for rate in few:
                layers = [torch.nn.Linear(64, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()]
                network = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 10))
                optimiser = torch.optim.SGD(network.parameters(), lr=float(rate))
                for batch in index:
                    optimiser.zero_grad()
                    cross_entropy(network(x[batch]), y[batch]).backward()
                    optimiser.step()

        return timed(run, NETWORKS / len(few))

    def loss(p, x, y):
        x = relu(x @ p[0] + p[1])
        x = relu(x @ p[2] + p[3])
        return cross_entropy(x @ p[4] + p[5], y)

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None))
    step = torch.tensor(rates())
    sizes = [64, WIDTH, WIDTH, 10]

    def stacked():
        p = []
        for a, b in itertools.pairwise(sizes):
            p += [torch.randn(NETWORKS, a, b) * (2 / a) ** 0.5, torch.zeros(NETWORKS, b)]
        for batch in index:
            found = gradients(tuple(p), x[batch], y[batch])
            p = [a - step.view(-1, *[1] * (a.dim() - 1)) * g for a, g in zip(p, found, strict=True)]

    return timed(stacked)


def contend(name: str) -> dict:
    if name.startswith("armillary"):
        return armillary(name == "armillary_probed")
    if name.startswith("jax"):
        return jax_by_hand(name.removesuffix("_probed"), name in PROBED)
    return torch_by_hand(name)


def main() -> None:
    if len(sys.argv) > 1:
        if sys.argv[1] not in PLAIN + PROBED:
            sys.exit(f"there is no contender {sys.argv[1]!r}; there are {', '.join(PLAIN + PROBED)}")
        print(json.dumps({"contender": sys.argv[1], **contend(sys.argv[1])}))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NPROC": "1", "JAX_PLATFORMS": "cpu"}
    contenders = PLAIN + PROBED
    if importlib.util.find_spec("torch") is None:
        contenders = [name for name in contenders if not name.startswith("torch")]
        print("torch_eager and torch_func are left out: torch is not installed (pip install -e '.[torch]')")
    found = {}
    for name in contenders * ROUNDS:
        command = [sys.executable, __file__, name]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        new = json.loads(out.splitlines()[-1])
        found[name] = {k: min(new[k], found.get(name, new)[k]) for k in ("cpu_s", "compile_s")}
    print(f"{'contender':<18} {'CPU s':>7} {'steps/CPU s':>12} {'over best by hand':>18} {'compile s':>10}")
    for group in (PLAIN, PROBED):  # like with like: each beside the best that observes as much
        best = min(found[name]["cpu_s"] for name in group if name.startswith("jax"))
        for name, v in ((name, found[name]) for name in group if name in found):
            rate = NETWORKS * STEPS / v["cpu_s"]
            print(f"{name:<18} {v['cpu_s']:7.2f} {rate:12,.0f} {v['cpu_s'] / best:18.2f} {v['compile_s']:10.2f}")


if __name__ == "__main__":
    main()
