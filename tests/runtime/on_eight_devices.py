"""Noise, state, training and checkpoints on meshes of eight devices; see tests/eight_devices.py."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from tests.runtime import toy
from vdm.runtime import checkpoints, mesh, random

ONE = mesh.make_mesh(devices=jax.devices()[:1])
MESHES = (mesh.make_mesh(data=8), mesh.make_mesh(data=4, tensor=2), mesh.make_mesh(fsdp=4, tensor=2))


def same_bits(given, expected):
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(one).view(np.uint32), np.asarray(other).view(np.uint32))


def noise_is_the_same_on_every_mesh():
    indices = np.arange(100, 116)
    key = random.key(0, random.Purpose.NOISE, 3)
    shape = (5, 7, 3)  # odd, so that vector and scalar loops of the compiler meet
    alone = jax.jit(random.example_noise, static_argnums=(2, 3))(key, jnp.asarray(indices), 4, shape)
    for here in (MESHES[0], mesh.make_mesh(fsdp=2, tensor=2, frames=2)):
        placed = jax.device_put(indices, mesh.batch_sharding(here))
        draw = jax.jit(random.example_noise, static_argnums=(2, 3), out_shardings=mesh.video_sharding(here))
        same_bits(draw(key, placed, 4, shape), alone)
    same_bits(jax.jit(random.example_uniform)(key, placed), random.example_uniform(key, jnp.asarray(indices)))


def dropout_masks_do_not_depend_on_the_mesh():
    key = random.key(0, random.Purpose.DROPOUT, 3)
    alone = jax.random.bernoulli(key, 0.9, (16, 4, 5))
    split = mesh.batch_sharding(MESHES[0])
    mask = jax.jit(lambda key: jax.random.bernoulli(key, 0.9, (16, 4, 5)), out_shardings=split)(key)
    np.testing.assert_array_equal(mask, alone)


def state_is_born_split_and_the_same_on_every_mesh():
    alone = toy.init_state(ONE)
    for here in MESHES:
        state = toy.init_state(here)
        same_bits(state, alone)
        ways = (here.shape["fsdp"], here.shape["tensor"])
        share = tuple(toy.CHANNELS // way for way in ways)
        for tree in (state.params, state.ema, state.opt_state[0].mu, state.opt_state[0].nu):
            assert {shard.data.shape for shard in tree["layer"]["kernel"].addressable_shards} == {share}
            assert {shard.data.shape for shard in tree["layer"]["bias"].addressable_shards} == {(toy.CHANNELS,)}


def training_is_the_same_on_every_mesh():
    results = []
    for here in (ONE, *MESHES):
        state, step = toy.init_state(here), toy.make_step(here)
        losses = []
        for _ in range(5):
            state, scalars = step(state)
            losses.append(float(scalars["loss"]))
        kernel = state.params["layer"]["kernel"]
        assert kernel.sharding == toy.abstract_state(here).params["layer"]["kernel"].sharding
        results.append((losses, np.asarray(kernel)))
    for losses, kernel in results[1:]:
        np.testing.assert_allclose(losses, results[0][0], rtol=1e-5)
        np.testing.assert_allclose(kernel, results[0][1], atol=1e-5)


def a_checkpoint_moves_to_any_mesh():
    for saved_on, restored_on in ((MESHES[2], MESHES[1]), (MESHES[1], ONE), (ONE, MESHES[2])):
        state, step = toy.init_state(saved_on), toy.make_step(saved_on)
        for _ in range(2):
            state, _ = step(state)
        expected = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
        with tempfile.TemporaryDirectory() as folder:
            with checkpoints.CheckpointWriter(folder, toy.IDENTITY, max_to_keep=1) as saver:
                saver.save(state)
                for _ in range(5):
                    state, _ = step(state)  # donated while the save is under way
            abstract = toy.abstract_state(restored_on)
            restored = checkpoints.restore(folder, abstract)
        same_bits(restored, expected)
        assert jax.tree.all(jax.tree.map(lambda leaf, want: leaf.sharding == want.sharding, restored, abstract))


def rows_of_the_batch_lie_where_the_mesh_says():
    rows = np.arange(32).reshape(16, 2)
    for here in MESHES:
        mesh.check_divides(here, batch_size=16, num_frames=3)
        np.testing.assert_array_equal(mesh.batch_rows(here, 16), np.arange(16))
        batch = mesh.global_batch({"video": rows}, here, 16)["video"]
        np.testing.assert_array_equal(batch, rows)
        share = 16 // (here.shape["data"] * here.shape["fsdp"])
        assert {shard.data.shape for shard in batch.addressable_shards} == {(share, 2)}
        assert batch.sharding.spec == PartitionSpec(("data", "fsdp"))


def what_the_mesh_cannot_split_is_refused():
    here = mesh.make_mesh(data=-1, frames=2)
    assert dict(here.shape) == {"data": 4, "fsdp": 1, "tensor": 1, "frames": 2}
    for call, words in (
        (lambda: mesh.check_divides(here, batch_size=6, num_frames=4), "batch of 6 clips"),
        (lambda: mesh.check_divides(here, batch_size=8, num_frames=3), "3 frames"),
        (lambda: mesh.make_mesh(data=2, fsdp=2), "there are 8 devices"),
        (lambda: mesh.make_mesh(data=-1, fsdp=3), "there are 8 devices"),
    ):
        try:
            call()
        except ValueError as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"no error: {words}")


CHECKS = (
    noise_is_the_same_on_every_mesh,
    dropout_masks_do_not_depend_on_the_mesh,
    state_is_born_split_and_the_same_on_every_mesh,
    training_is_the_same_on_every_mesh,
    a_checkpoint_moves_to_any_mesh,
    rows_of_the_batch_lie_where_the_mesh_says,
    what_the_mesh_cannot_split_is_refused,
)
