"""Check on this machine, in two to three minutes, that its compiler and devices compute what they should.

A narrow twin of the config's network (its parts and its mesh; few channels and blocks, small frames, random clips
instead of the data) takes one step of the config's objective in several ways that must agree: on the mesh and on one
device, in microbatches, with blocks computed again, in bfloat16. Then it saves and restores, draws noise whose bits are
known, and runs in image mode, in which frames must not see each other. No data are opened. What was measured goes to
DIR/check.json, and from there into the record of the run that is trained in DIR.

Example: python -m vdm check --config=configs/demo.py --workdir=runs/shapes
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import PyTree

from vdm import build, steps
from vdm.nets.unet3d import SCANNED, UNet3DConfig, unet3d
from vdm.records import checks, environment, schema
from vdm.records.checks import Check, Checks
from vdm.records.record import write_whole
from vdm.runtime import checkpoints, distributed, random
from vdm.runtime import mesh as meshes
from vdm.runtime.optimizer import Optimizer
from vdm.runtime.random import Purpose
from vdm.runtime.state import TrainState
from vdm.types import BATCH_AXES, Condition, Config, Params

OPTIONS = ()
NUM_CHANNELS, NUM_CLASSES = 3, 10  # of the clips that stand in for the data
NUM_MICROBATCHES = 2
HEAD_DIM, GROUPS = 8, 4  # of the narrow network, at most
BITS_OF = 1024  # examples
BITS = 0x46F37175  # CRC-32 of the first word of each, little-endian, shifted right by 9; from Threefry-2x32 in numpy

# Relative to the largest number of the gradient.
SAME = 1e-4  # sums in another order, in float32
CLOSE = 0.05  # bfloat16 has 8 bits

_KEEPS_GRADIENT = Optimizer(optax.trace(decay=0.0), optax.constant_schedule(0.0), clip_norm=1e30, ema_decay=0.0)


def main(config: Config, workdir: str) -> int:
    done = check(config, workdir)
    for each in done.checks:
        word = "ok    " if each.passed else "FAILED"
        print(f"{word} {each.name}: {each.measured:.2g} (at most {each.allowed:.2g})")
    print(f"{done.seconds:.0f} s on {sum(done.environment.devices.values())} devices, mesh {done.mesh}")
    return 0 if done.passed else 1


def check(config: Config, workdir: epath.PathLike) -> Checks:
    """Runs all checks and writes DIR/check.json. Raises ValueError for a config that cannot work."""
    since = time.monotonic()
    mesh = meshes.make_mesh(**config.run.mesh)
    model = _model(config, mesh)  # the config as it is: what it is refused for
    twin = narrowed(config, mesh)
    folder = epath.Path(workdir)
    with jax.default_matmul_precision("highest"):  # a TPU's float32 product is one of bfloat16 else
        params = first_params(twin)
        found = (
            *ways_of_a_step(twin, mesh, params),
            saved(twin, mesh, params, folder),
            *noise(model),
            image_mode(twin, mesh, params),
        )
    done = Checks(
        version=checks.VERSION,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        mesh=dict(mesh.shape),
        environment=environment.read_environment(),
        checks=found,
        seconds=time.monotonic() - since,
    )
    if distributed.is_writer():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / checks.FILE_NAME, schema.dumps(done, checks.FILE_NAME).encode())
    return done


def narrowed(config: Config, mesh: Mesh | AbstractMesh) -> Config:
    """The config with a narrow network of the same parts and levels, the smallest frames that pass it, and a batch of
    two clips a device, in float32. Kernels that the mesh splits stay wide enough for it; blocks that are compiled as a
    loop stay so many that they are.
    """
    twin = config.copy_and_resolve_references()
    build.lookup(_NARROW, config.network.name, "network.name")(twin, mesh)
    twin.data.batch_size = twin.evaluation.batch_size = NUM_MICROBATCHES * meshes.ways(mesh, BATCH_AXES)
    twin.run.update(num_microbatches=1, remat="none")
    return twin


def _narrow_unet(config: Config, mesh: Mesh | AbstractMesh) -> None:
    unet = config.network.unet3d
    ways = (mesh.shape[axis] for axis in ("fsdp", "tensor"))
    split = [size for size in ways if unet.channels % size == 0]
    is_scanned, has_few_channels = _is_scanned(unet, unet.num_blocks), unet.channels <= unet.head_dim
    unet.update(head_dim=min(unet.head_dim, HEAD_DIM), groups=min(unet.groups, GROUPS), compute_dtype="float32")
    unet.channels = math.lcm(2 * unet.head_dim, 2 * unet.groups, *split)
    unet.head_dim = unet.channels if has_few_channels else unet.head_dim  # attention is computed otherwise there
    unet.num_blocks = next(few for few in range(1, unet.num_blocks + 1) if _is_scanned(unet, few) == is_scanned)
    config.data.height = config.data.width = unet.patch * 2 ** len(unet.multipliers)


def _is_scanned(unet: Config, num_blocks: int) -> bool:
    """Whether blocks are so many that a loop over some is compiled."""
    network = unet3d(UNet3DConfig(NUM_CHANNELS, NUM_CHANNELS, **{**unet, "num_blocks": num_blocks}))
    return any(len(run) >= SCANNED for run in network.runs)


_NARROW: dict[str, Callable[[Config, Mesh | AbstractMesh], None]] = {"unet3d": _narrow_unet}


def ways_of_a_step(twin: Config, mesh: Mesh, params: Params) -> tuple[Check, ...]:
    """The gradient of one step in several ways, each against the step on the mesh in float32."""
    here = gradient(twin, mesh, params)
    again = gradient(_with(twin, remat="blocks"), mesh, params)
    found = [Check("blocks computed again = kept", _distance(again, here), SAME)]
    if mesh.size > 1:
        alone = meshes.make_mesh(devices=jax.local_devices()[:1])
        found.append(of_mesh(here, gradient(twin, alone, params)))
    if twin.schedule.name != "learned":
        parts = gradient(_with(twin, num_microbatches=NUM_MICROBATCHES), mesh, params)
        found.append(Check("microbatches = whole batch", _distance(parts, here), SAME))
    low = twin.copy_and_resolve_references()
    low.network[low.network.name].compute_dtype = "bfloat16"
    found.append(Check("bfloat16 close to float32", _distance(gradient(low, mesh, params), here), CLOSE))
    return tuple(found)


def of_mesh(here: PyTree[np.ndarray], alone: PyTree[np.ndarray]) -> Check:
    """The gradient on the mesh against that on one device."""
    return Check("mesh = one device", _distance(here, alone), SAME)


def _with(config: Config, **run: Any) -> Config:
    changed = config.copy_and_resolve_references()
    changed.run.update(run)
    return changed


def gradient(config: Config, mesh: Mesh, params: Params) -> PyTree[np.ndarray]:
    """The gradient of the loss, by the step that trains."""
    model = dataclasses.replace(_model(config, mesh), optimizer=_KEEPS_GRADIENT)
    with jax.set_mesh(mesh):
        window = steps.make_window(mesh)()
        after, _ = steps.make_step(model)(_state(model, params), window, _batch(model))
        kept: Any = after.opt_state
        return jax.tree.map(np.asarray, _whole(kept.trace, mesh))


def _model(config: Config, mesh: Mesh) -> build.Model:
    num_classes = NUM_CLASSES if config.network.class_conditional else None
    return build.model(config, mesh, num_channels=NUM_CHANNELS, num_classes=num_classes)


def first_params(config: Config) -> Params:
    """First parameters with noise on them: those that start at zero would hide what stands before them."""
    params = jax.jit(_model(config, meshes.make_mesh(devices=jax.local_devices()[:1])).init)(jax.random.key(0))
    generator = np.random.default_rng(0)

    def disturbed(leaf: jax.Array) -> np.ndarray:
        scale = 1 / math.sqrt(max(leaf.size // leaf.shape[-1], 1))
        return np.asarray(leaf) + scale * generator.standard_normal(leaf.shape, np.float32)

    return {name: leaf if name == "schedule" else jax.tree.map(disturbed, leaf) for name, leaf in params.items()}


def _state(model: build.Model, params: Params) -> TrainState:
    """The state before the first step, from parameters on the host."""
    abstract = model.abstract_state()
    zero: Any = np.int32(0)
    begun = TrainState(
        step=zero,
        params=params,
        ema=jax.tree.map(np.copy, params),
        opt_state=jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract.opt_state),
        num_clipped=zero,
        proposal=model.proposal.first(),
        ema_short=jax.tree.map(np.copy, params) if model.optimizer.ema_decay_short else (),
    )
    return jax.device_put(begun, jax.tree.map(lambda leaf: leaf.sharding, abstract))


def _batch(model: build.Model) -> steps.Batch:
    data = model.config.data
    generator = np.random.default_rng(1)
    whole = {
        "video": generator.integers(0, 256, (data.batch_size, data.num_frames, *model.frame_shape), np.uint8),
        "index": np.arange(data.batch_size, dtype=np.int32),
        "label": np.arange(data.batch_size, dtype=np.int32) % NUM_CLASSES,
    }
    rows = meshes.batch_rows(model.mesh, data.batch_size)
    return meshes.global_batch({name: leaf[rows] for name, leaf in whole.items()}, model.mesh, data.batch_size)


def _whole(tree: PyTree[jax.Array], mesh: Mesh) -> PyTree[jax.Array]:
    return jax.jit(lambda tree: tree, out_shardings=meshes.replicated(mesh))(tree)


def _distance(given: PyTree[np.ndarray], wanted: PyTree[np.ndarray]) -> float:
    """The largest difference of two trees, relative to the largest number of the second."""
    pairs = list(zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True))
    largest = max(float(np.abs(right).max()) for _, right in pairs)
    return max(float(np.abs(left - right).max()) for left, right in pairs) / largest


def saved(twin: Config, mesh: Mesh, params: Params, folder: epath.Path) -> Check:
    """How many numbers of the train state come back from a checkpoint changed."""
    model = _model(twin, mesh)
    directory = folder / "check"
    with jax.set_mesh(mesh):
        begun = _state(model, params)
        with checkpoints.CheckpointWriter(directory, {}, max_to_keep=1) as writer:
            writer.save(begun)
        again = checkpoints.restore(directory, model.abstract_state())
        pairs = zip(*(jax.tree.leaves(_whole(each, mesh)) for each in (begun, again)), strict=True)
        changed = sum(np.count_nonzero(np.asarray(one) != np.asarray(other)) for one, other in pairs)
    if distributed.is_writer():
        directory.rmtree()
    return Check("restored = saved, numbers changed", float(changed), 0.0)


def noise(model: build.Model) -> tuple[Check, ...]:
    """Bits of the generator, which are the same on every machine; and noise on the mesh against one device."""
    key = random.key(0, Purpose.NOISE, 1)
    words = np.asarray(random.example_uniform(key, jnp.arange(BITS_OF))) * np.float64(2**23) - 0.5
    bits = zlib.crc32(words.astype("<u4").tobytes())
    shape = model.config.data.num_frames, model.frame_shape
    indices = np.arange(meshes.ways(model.mesh, BATCH_AXES))

    def drawn(mesh: Mesh) -> np.ndarray:
        place = meshes.video_sharding(mesh)
        draw = jax.jit(lambda indices: random.example_noise(key, indices, *shape), out_shardings=place)
        with jax.set_mesh(mesh):
            return np.asarray(_whole(draw(indices), mesh))

    alone = drawn(meshes.make_mesh(devices=jax.local_devices()[:1]))
    return (
        Check("noise: bits are not the known ones", float(bits != BITS), 0.0),
        Check("noise on the mesh, numbers changed", float(np.count_nonzero(drawn(model.mesh) != alone)), 0.0),
    )


def image_mode(twin: Config, mesh: Mesh, params: Params) -> Check:
    """How far a change of the first frame reaches the others in image mode, relative to its reach in a clip."""
    model = _model(twin, mesh)
    size = twin.data.batch_size
    xt = jax.random.normal(jax.random.key(2), (size, twin.data.num_frames, *model.frame_shape))

    @jax.jit
    def apply(params: Params, xt: jax.Array, is_image: jax.Array) -> jax.Array:
        log_snr, label = jnp.zeros(xt.shape[:2]), None if model.num_classes is None else jnp.zeros(size, jnp.int32)
        prediction = model.predict(params, Condition(label, is_image))(xt, log_snr)
        return jax.lax.with_sharding_constraint(prediction.value, meshes.replicated(mesh))

    with jax.set_mesh(mesh):
        placed = _state(model, params).params

        def reach(is_image: bool) -> float:
            flags = np.full(size, is_image)
            one, other = (np.asarray(apply(placed, clips, flags)) for clips in (xt, xt.at[:, 0].add(1.0)))
            return float(np.abs(one - other)[:, 1:].max())

        return Check("image mode: frames see each other", reach(True) / reach(False), 1e-6)
