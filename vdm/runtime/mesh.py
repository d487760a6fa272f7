"""The mesh of devices, and which rows of the global batch lie where.

A mesh always has four axes: `data` and `fsdp` split the batch, `fsdp` and `tensor` split the parameters, `frames`
splits the frames of a clip. One device is the 1x1x1x1 mesh, so there is one code path from a laptop to a pod slice.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree, Shaped

from vdm.types import BATCH_AXES, FRAME_AXES, MESH_AXES


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    frames: int = 1,
    *,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Lays the devices out over the four axes, neighbours on the network beside each other.

    Devices of several slices (TPU pods joined by the data centre's network) are split between them along `data` alone,
    whose traffic is one sum of gradients a step; the other axes stay within a slice.

    Args:
      data, fsdp, tensor, frames: devices along each axis; at most one of them is -1: all devices that are left.
      devices: the `jax.Device`s that are to be used, all of them; None means every device of every process.

    Returns:
      A mesh with the axes `MESH_AXES`, whose partitioning is left to the compiler (`AxisType.Auto`).

    Raises:
      ValueError: if an axis is neither positive nor -1, if two are -1, if the axes do not multiply to the number of
        devices, or if `data` is no multiple of the number of slices.
    """
    devices = jax.devices() if devices is None else devices
    shape = complete((data, fsdp, tensor, frames), len(devices))
    return Mesh(arranged(shape, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def arranged(shape: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """The devices as an array of the mesh's shape; see `make_mesh`."""
    # GPUs have a slice index too, one a node
    num_slices = len({getattr(device, "slice_index", 0) if device.platform == "tpu" else 0 for device in devices})
    if num_slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    data, *others = shape
    if data % num_slices:
        raise ValueError(
            f"the mesh has data={data}, but the devices are of {num_slices} slices, which only that axis may cross; "
            f"set config.run.mesh.data to a multiple of {num_slices}"
        )
    within, across = (data // num_slices, *others), (num_slices, *(1 for _ in others))
    return mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)


def abstract_mesh(data: int, fsdp: int, tensor: int, frames: int) -> AbstractMesh:
    """A mesh without devices, for what asks for sizes alone."""
    return AbstractMesh((data, fsdp, tensor, frames), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def complete(shape: tuple[int, ...], num_devices: int) -> tuple[int, ...]:
    """The sizes of `MESH_AXES` with -1 replaced by all devices that are left. Raises ValueError as `make_mesh`."""
    given = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, shape, strict=True))
    if any(size < 1 and size != -1 for size in shape):
        raise ValueError(f"the mesh is {given}; every axis must be at least 1, or -1 for all devices that are left")
    if shape.count(-1) > 1:
        raise ValueError(f"the mesh is {given}; only one axis may be -1 (all devices that are left)")
    fixed = math.prod(size for size in shape if size != -1)
    if num_devices % fixed or (-1 not in shape and fixed != num_devices):
        raise ValueError(
            f"the mesh is {given}, but there are {num_devices} devices; the axes must multiply to that number. "
            "Set config.run.mesh so that they do; -1 takes all devices that are left"
        )
    return tuple(num_devices // fixed if size == -1 else size for size in shape)


def ways(mesh: Mesh | AbstractMesh, axes: Sequence[str]) -> int:
    """Devices along the axes together: into how many parts they split an array."""
    return math.prod(mesh.shape[axis] for axis in axes)


def check_divides(mesh: Mesh | AbstractMesh, *, batch_size: int, num_frames: int) -> None:
    """Refuses a batch that the mesh cannot split evenly.

    Raises:
      ValueError: if data x fsdp does not divide the batch size, or frames the number of frames.
    """
    batch_ways, frame_ways = ways(mesh, BATCH_AXES), ways(mesh, FRAME_AXES)
    if batch_size % batch_ways:
        raise ValueError(
            f"a batch of {batch_size} clips cannot be split over {' x '.join(BATCH_AXES)} = {batch_ways} devices; "
            f"use a multiple of {batch_ways} or a mesh with fewer devices along these axes"
        )
    if num_frames % frame_ways:
        raise ValueError(
            f"{num_frames} frames cannot be split over {frame_ways} devices; "
            "use a multiple of it or a smaller config.run.mesh.frames"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis of an array of any rank split over (data, fsdp), the rest whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def video_sharding(mesh: Mesh) -> NamedSharding:
    """[batch, frames, ...] with the batch split over (data, fsdp) and the frames over `frames`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES, FRAME_AXES))


def batch_rows(mesh: Mesh, batch_size: int, process: int | None = None) -> Int[np.ndarray, "rows"]:
    """The rows of the global batch that the devices of a process address, ascending.

    Processes that differ only along `tensor` or `frames` address the same rows, and each must then load them.

    Args:
      mesh: the global mesh.
      batch_size: clips in the global batch, a multiple of data x fsdp.
      process: index of the process; None means this one.

    Raises:
      ValueError: if the process has no device in the mesh, or the batch does not divide.
    """
    process = jax.process_index() if process is None else process
    slices = batch_sharding(mesh).devices_indices_map((batch_size,))
    rows = [np.arange(batch_size)[index] for device, index in slices.items() if device.process_index == process]
    if not rows:
        raise ValueError(f"process {process} has no device in the mesh; lay the mesh over the devices of all processes")
    return np.unique(np.concatenate(rows))


def global_batch(rows: PyTree[Shaped[np.ndarray, "..."]], mesh: Mesh, batch_size: int) -> PyTree[Shaped[Array, "..."]]:
    """Global arrays, split by `batch_sharding`, from the rows that `batch_rows` gives this process.

    Args:
      rows: numpy arrays [rows, ...] in the order of `batch_rows`.
      mesh: the global mesh.
      batch_size: clips in the global batch.
    """
    sharding = batch_sharding(mesh)

    def place(local: Shaped[np.ndarray, "..."]) -> Shaped[Array, "..."]:
        return jax.make_array_from_process_local_data(sharding, local, (batch_size, *local.shape[1:]))

    return jax.tree.map(place, rows)
