"""One device is a mesh of four axes; what does not fit is an error. Real meshes: test_eight_devices.py."""

import dataclasses

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


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device of a pod slice, as far as the layout looks at it."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v4"


# two slices of 2x2x2, mixed
CHIPS = [Chip(number, number % 2, (number // 2 % 2, number // 4 % 2, number // 8)) for number in range(16)]


@pytest.mark.feature("R5")
def test_only_the_data_axis_crosses_slices():
    laid_out = mesh.arranged((4, 2, 2, 1), CHIPS)
    assert {chip.id for chip in laid_out.flat} == set(range(16))
    slices = np.vectorize(lambda chip: chip.slice_index)(laid_out)
    np.testing.assert_array_equal(slices, np.array([0, 0, 1, 1])[:, None, None, None] * np.ones((4, 2, 2, 1)))


def test_a_data_axis_that_does_not_hold_the_slices_is_an_error():
    with pytest.raises(ValueError, match=r"data=1, .* 2 slices.*config\.run\.mesh\.data to a multiple of 2"):
        mesh.make_mesh(data=1, fsdp=16, devices=CHIPS)


def test_one_slice_needs_no_data_axis():
    assert mesh.arranged((1, 8, 1, 1), [chip for chip in CHIPS if chip.slice_index == 0]).shape == (1, 8, 1, 1)


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
