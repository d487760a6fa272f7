"""The check of a machine passes here, and notices what it is there to notice."""

import math
import zlib

import jax
import numpy as np
import pytest

from configs.paper import bair, ucf101
from tests import tiny
from vdm import build, check, train
from vdm.nets import attention
from vdm.records import checks
from vdm.runtime import mesh, random, step


def one_device():
    return mesh.make_mesh(devices=jax.devices()[:1])


def twin():
    return check.narrowed(tiny.get_config(), one_device())


@pytest.mark.feature("R8")
def test_all_is_well_here_and_the_run_knows_it(tmp_path):
    """On one device."""
    config = tiny.get_config()
    config.run.num_steps = 1
    done = check.check(config, tmp_path)
    assert done.passed, done.checks
    assert checks.read(tmp_path) == done
    assert not (tmp_path / "check").exists()
    assert train.train(config, tmp_path).checks == done


@pytest.mark.parametrize("paper", [ucf101, bair])  # kinetics600 has the network of ucf101
def test_a_papers_network_becomes_narrow_and_stays_itself(paper):
    config = paper.get_config()
    made = check.narrowed(config, one_device())
    model = build.model(made, one_device(), num_channels=3, num_classes=None)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) < 4e6  # two blocks a level: 4.5e6
    sizes = dict.fromkeys(("channels", "head_dim", "groups", "num_blocks", "compute_dtype"))
    narrow, whole = (each.network.unet3d.to_dict() | sizes for each in (made, config))
    assert narrow == whole
    for part in ("schedule", "objective", "optimizer"):
        assert made[part].to_dict() == config[part].to_dict()


def test_a_narrow_network_is_split_and_scanned_where_the_whole_one_is():
    config = ucf101.get_config()
    config.network.unet3d.num_blocks = 5
    unet = check.narrowed(config, mesh.abstract_mesh(1, 32, 6, 1)).network.unet3d
    assert unet.channels % 32 == 0  # and 6 does not divide 256
    assert (unet.channels, unet.num_blocks) == (32, 3)
    config.network.unet3d.skips = "levels"  # a level's first and last block differ from those between
    assert check.narrowed(config, one_device()).network.unet3d.num_blocks == 4


def test_a_wrong_sum_over_microbatches_is_seen(monkeypatch):
    monkeypatch.setattr(
        step,
        "microbatches",
        lambda batch, count: jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:])[:1].repeat(count, 0), batch),
    )
    found = {each.name: each for each in check.ways_of_a_step(twin(), one_device(), check.first_params(twin()))}
    assert not found["microbatches = whole batch"].passed
    assert found["blocks computed again = kept"].passed


def test_frames_that_see_each_other_are_seen(monkeypatch):
    weights = attention.attention_weights
    monkeypatch.setattr(
        attention, "attention_weights", lambda query, key, bias=None, identity=None: weights(query, key, bias)
    )
    assert not check.image_mode(twin(), one_device(), check.first_params(twin())).passed


def test_other_noise_is_seen(monkeypatch):
    model = build.model(tiny.get_config(), one_device(), num_channels=3, num_classes=None)
    assert check.noise(model)[0].passed
    uniform = random.example_uniform
    monkeypatch.setattr(random, "example_uniform", lambda key, indices: uniform(key, indices + 1))
    assert not check.noise(model)[0].passed


def threefry(key, counter):
    """Threefry-2x32 of 20 rounds, in numpy (Salmon et al. 2011, section 3.3 and table 5)."""
    schedule = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x = [np.asarray(word, np.uint32) + own for word, own in zip(counter, schedule, strict=False)]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x[0] = x[0] + x[1]
            x[1] = ((x[1] << np.uint32(rotation)) | (x[1] >> np.uint32(32 - rotation))) ^ x[0]
        x[0] = x[0] + schedule[(group + 1) % 3]
        x[1] = x[1] + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x


def test_the_known_bits_come_from_another_implementation():
    with np.errstate(over="ignore"):
        zero = np.uint32(0)
        # Random123 1.14, tests/kat_vectors
        assert threefry((zero, zero), (0, 0)) == [0x6B200159, 0x99BA4EFE]
        key = zero, zero  # of seed 0, then of the purpose NOISE = 2 and of step 1
        for word in (2, 1):
            key = tuple(threefry(key, (0, word)))
        of_examples = threefry(key, (0, np.arange(check.BITS_OF)))
        first, _ = threefry(tuple(of_examples), (0, 0))
    assert zlib.crc32((first >> np.uint32(9)).astype("<u4").tobytes()) == check.BITS
