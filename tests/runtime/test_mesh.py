"""One device is a mesh of four axes; what does not fit is an error. Real meshes: test_eight_devices.py."""

import jax
import numpy as np
import pytest

from vdm.runtime import mesh


def test_one_device_is_the_mesh_of_ones():
    assert dict(mesh.make_mesh().shape) == {"data": 1, "fsdp": 1, "tensor": 1, "frames": 1}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"data": 2}, "1 devices"),
        ({"data": -1, "fsdp": 3}, "1 devices"),
        ({"data": -1, "tensor": -1}, "only one axis"),
        ({"data": 0}, "at least 1"),
    ],
)
def test_a_mesh_that_does_not_factor_is_an_error(axes, message):
    with pytest.raises(ValueError, match=message):
        mesh.make_mesh(**axes)


def test_global_batch_keeps_rows_and_types():
    here = mesh.make_mesh()
    rows = {"video": np.arange(24, dtype=np.uint8).reshape(4, 2, 3), "label": np.arange(4, dtype=np.int32)}
    placed = mesh.global_batch(rows, here, 4)
    for name, array in rows.items():
        assert placed[name].dtype == array.dtype
        np.testing.assert_array_equal(placed[name], array)
    np.testing.assert_array_equal(mesh.batch_rows(here, 4), np.arange(4))


def test_rows_of_another_process_are_none_here():
    with pytest.raises(ValueError, match="process 1"):
        mesh.batch_rows(mesh.make_mesh(), 4, process=jax.process_index() + 1)
