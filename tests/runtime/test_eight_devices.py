"""Eight forced CPU devices: what is drawn, made, trained and saved does not depend on the mesh."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def results():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "tests.runtime.eight_devices"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "check",
    [
        "noise_is_the_same_on_every_mesh",
        "dropout_masks_do_not_depend_on_the_mesh",
        pytest.param("state_is_born_split_and_the_same_on_every_mesh", marks=pytest.mark.feature("R5")),
        pytest.param("training_is_the_same_on_every_mesh", marks=pytest.mark.feature("R5")),
        pytest.param("a_checkpoint_moves_to_any_mesh", marks=pytest.mark.feature("R7")),
        "rows_of_the_batch_lie_where_the_mesh_says",
        "what_the_mesh_cannot_split_is_refused",
    ],
)
def test_on_eight_devices(results, check):
    assert results[check] is None, results[check]
