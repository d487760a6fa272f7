"""The paper configs, without their data: their networks by `jax.eval_shape`, and training of their twins."""

import contextlib
import math

import jax
import numpy as np
import pytest
from etils import epath

from configs.paper import bair, ho2022, kinetics600, ucf101
from vdm import build, steps, train
from vdm.runtime import mesh as meshes
from vdm.runtime.step import Window

PAPERS = {"ucf101": ucf101, "bair": bair, "kinetics600": kinetics600}


def _model(config):
    return build.model(config, meshes.make_mesh(devices=jax.devices()[:1]), num_channels=3, num_classes=None)


def _parameters(channels, multipliers):
    """Ho et al. 2022 by hand: 3 x 3 convolutions with biases, group norms of two numbers a channel, attention of four
    square matrices and a norm, temporal attention with 32 buckets of distance a head, embeddings of 4 x channels."""
    embedding = 4 * channels

    def conv(into, out):
        return 9 * into * out + out

    def block(into, out):
        skip = into * out + out if into != out else 0
        return 2 * into + conv(into, out) + (embedding * out + out) + 2 * out + conv(out, out) + skip

    def attention(width):
        return 2 * (4 * width * width + 2 * width) + 32 * (width // 64)

    widths = [channels * multiplier for multiplier in multipliers]
    total, into, skips = conv(3, channels), channels, [channels]
    for level, width in enumerate(widths):
        for _ in range(2):
            total += block(into, width) + (attention(width) if level else 0)
            into = width
            skips.append(width)
        if level != len(widths) - 1:
            total += conv(width, width)
            skips.append(width)
    total += 2 * block(into, into) + attention(into)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(3):
            total += block(into + skips.pop(), width) + (attention(width) if level else 0)
            into = width
        if level:
            total += conv(width, width)
    return total + 2 * channels + conv(channels, 3)


@pytest.mark.feature("R10")
@pytest.mark.parametrize(
    ("name", "channels", "multipliers"),
    [("ucf101", 256, (1, 2, 4, 8)), ("bair", 128, (1, 2, 3, 4)), ("kinetics600", 256, (1, 2, 4, 8))],
)
def test_the_network_has_the_parameters_of_the_papers_description(name, channels, multipliers):
    """The paper publishes no number; this is its description summed by hand, but for the embedding of the level."""
    config = PAPERS[name].get_config()
    assert (config.data.num_frames, config.data.height, config.data.width) == (16, 64, 64)
    params = jax.eval_shape(_model(config).init, jax.random.key(0))
    level = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params.pop("level")))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count == _parameters(channels, multipliers)
    assert level < 0.01 * count


TWINS = ("bair", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ucf101", "kinetics600")))


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_trains_and_is_the_experiment_but_for_its_size(name):
    config, paper = PAPERS[name].get_config("twin"), PAPERS[name].get_config()
    for part in ("schedule", "objective", "optimizer"):
        twin, whole = config[part].to_dict(), paper[part].to_dict()
        twin.pop("data_std", None), whole.pop("data_std", None)
        assert twin == whole
    sizes = ("channels", "num_blocks", "head_dim", "groups")
    assert {key: value for key, value in config.network.unet3d.items() if key not in sizes} == {
        key: value for key, value in paper.network.unet3d.items() if key not in sizes
    }
    config.run.mesh.data = 1
    experiment = build.experiment(config)
    with jax.set_mesh(experiment.mesh):
        first, _ = train.start(experiment, epath.Path("nowhere"))
        before = jax.tree.map(np.asarray, first.params)
        with contextlib.closing(steps.device_batches(experiment, 0)) as batches:
            after, window = steps.make_step(experiment)(first, Window.empty(), next(batches))
    assert np.isfinite(window.mean_loss) and int(after.step) == 1
    moved = jax.tree.map(lambda old, new: bool((old != np.asarray(new)).any()), before, after.params)
    assert moved["head"]["conv"]["bias"]


def test_another_size_is_refused():
    with pytest.raises(ValueError, match="there is no size 'small'; there are: paper, twin"):
        ho2022.choose(ucf101.get_config(), "small")


def test_the_data_that_are_missing_are_named():
    with pytest.raises(ValueError, match="no prepared data set 'ucf101'"):
        build.experiment(ucf101.get_config())
