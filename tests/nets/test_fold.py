"""Frames as batch entries on eight forced CPU devices: nothing moves, and a split network computes the same."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.nets.fold import fold, unfold


@pytest.fixture(scope="module")
def results():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "tests.nets.eight_devices"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.feature("A1")
@pytest.mark.parametrize(
    "check",
    ["fold_moves_nothing", "a_split_network_is_the_network", "what_the_mesh_does_not_divide_is_refused"],
)
def test_on_eight_devices(results, check):
    assert results[check] is None, results[check]


def test_without_a_mesh_rows_are_frames_in_order():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 6))
    np.testing.assert_array_equal(fold(x), jnp.concatenate([x[0], x[1]]))
    np.testing.assert_array_equal(unfold(fold(x), 3), x)
