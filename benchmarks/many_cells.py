"""10,000 small cells (a deep linear network of width 8, 200 steps) as a kept sweep: time, memory, and what keeping costs.

python benchmarks/many_cells.py          in a fresh process each: the sweep kept, the same only simulated, reading it all
"""

import json
import resource
import subprocess
import sys
import tempfile
import time

RATES, SEEDS = 100, 100


def experiment():
    import armillary as arm

    task = arm.tasks.LinearTeacher(dimension=8, samples=16, noise=0.1)
    model = arm.models.DeepLinear(depth=2, width=8)
    return arm.Experiment(task, model, arm.rules.Descent(steps=200), [arm.probes.Losses()], arm.LogSpaced(20))


def rates():
    import numpy as np

    return np.geomspace(1e-3, 1e-1, RATES).tolist()


def kept(folder):
    """The sweep, written block by block."""
    from armillary.sweeps.sweep import prepare, run

    return run(prepare(experiment(), {"learning_rate": tuple(rates())}, seeds=SEEDS), out=folder)


def simulated(folder):
    """The same blocks, computed and thrown away."""
    from armillary.cores import all_of
    from armillary.sweeps.sweep import prepare

    [part] = prepare(experiment(), {"learning_rate": tuple(rates())}, seeds=SEEDS).parts()
    layout = part.layout(int(1e9))
    all_of(
        lambda first: part.program.block(first, layout, lambda done: None), range(0, part.program.members, layout.size)
    )


def read(folder):
    """All cells as one dataset."""
    from pathlib import Path

    from armillary.sweeps import gather

    [run] = Path(folder).iterdir()
    assert gather(run)["experiment"].train_loss.notnull().all()


def main():
    if len(sys.argv) > 2:
        work = {"kept": kept, "simulated": simulated, "read": read}[sys.argv[1]]
        wall, cpu = time.perf_counter(), time.process_time()
        work(sys.argv[2])
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({**took, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("kept", "simulated", "read"):
            told = subprocess.run([sys.executable, __file__, name, folder], capture_output=True, text=True, check=True)
            found[name] = json.loads(told.stdout)
            print(f"{name:10s} " + "  ".join(f"{key} {value:8.2f}" for key, value in found[name].items()), flush=True)
    print(f"keeping costs {found['kept']['cpu'] / found['simulated']['cpu'] - 1:+.1%} of the CPU time of computing")


if __name__ == "__main__":
    main()
