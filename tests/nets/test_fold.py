"""Frames as batch entries on eight forced CPU devices: nothing moves, and a split network computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import eight_devices
from vdm.nets.fold import fold, unfold

CHECKS = (
    "fold_moves_nothing",
    "a_split_network_is_the_network",
    "a_split_network_of_other_parts_is_the_network",
    "what_the_mesh_does_not_divide_is_refused",
    "kernels_are_gathered_in_the_compute_type_and_gradients_scattered_in_float32",
)


@pytest.fixture(scope="module")
def outcomes():
    return eight_devices.outcomes("tests.nets.on_eight_devices", CHECKS)


@pytest.mark.feature("A1")
@pytest.mark.parametrize("check", CHECKS)
def test_on_eight_devices(outcomes, check):
    assert outcomes[check] is None, outcomes[check]


def test_without_a_mesh_rows_are_frames_in_order():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 6))
    np.testing.assert_array_equal(fold(x), jnp.concatenate([x[0], x[1]]))
    np.testing.assert_array_equal(unfold(fold(x), 3), x)
