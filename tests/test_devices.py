"""One network over several devices has the numbers of one device."""

import json
import os
import subprocess
import sys

import pytest

import armillary as arm
from armillary.errors import ArmillaryError

SCRIPT = """
import json
import jax
import armillary as arm
from armillary.programs import of_grid
from armillary.stages import Stage, Stages

found = {}
for name, rule in {
    "full batch": arm.rules.Descent(arm.rules.SGD(0.1), steps=20),
    "mini-batch": arm.rules.Descent(arm.rules.Adam(0.01), steps=20, feed=arm.rules.MiniBatch(8)),
}.items():
    experiment = arm.Experiment(
        arm.tasks.LinearTeacher(dimension=6, samples=16, noise=0.1), arm.models.MLP(width=12, depth=3), rule,
        [arm.probes.Losses(), arm.probes.WeightNorm()], arm.Evenly(5), precision="float64")
    one, many = arm.simulate(experiment, seeds=2), arm.simulate(experiment, seeds=2, devices=4)
    found[name] = max(float(abs(one[v] / many[v] - 1).max()) for v in ("train_loss", "test_loss", "weight_norm") if v in one)
program = of_grid(Stages([Stage(experiment)]), {}, [0], key=0, precision=None, devices=4)
members = program.begin(0, program.layout(10**9, None))
held = members.drawn.own.data.train.inputs
found["shares"] = sorted(shard.data.shape[1] for shard in held.addressable_shards)
found["weights"] = len(jax.tree.leaves(members.state.network)[0].addressable_shards)
try:
    arm.simulate(arm.Experiment(arm.tasks.LinearTeacher(dimension=6, samples=15), arm.models.MLP(), rule), devices=4)
except arm.ArmillaryError as error:
    found["refused"] = str(error)
print(json.dumps(found))
"""


def test_four_devices_have_the_numbers_of_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, **flags},
        check=False,
        timeout=300,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    found = json.loads(told.stdout.strip().splitlines()[-1])
    assert found["full batch"] < 1e-9 and found["mini-batch"] < 1e-9
    assert found["shares"] == [4, 4, 4, 4] and found["weights"] == 4
    assert found["refused"].startswith("15 samples cannot lie in equal shares on 4 devices")


@pytest.mark.parametrize("devices", [0, 1000])
def test_devices_that_are_not_there_are_one_line(devices):
    experiment = arm.Experiment(
        arm.tasks.LinearTeacher(dimension=4, samples=8), arm.models.DeepLinear(), arm.rules.Descent(steps=1)
    )
    with pytest.raises(ArmillaryError, match=f"devices is {devices}"):
        arm.simulate(experiment, devices=devices)
