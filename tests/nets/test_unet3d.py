"""The whole network: what frames see of each other, images beside clips, precision, memory, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.nets import tiny
from vdm.nets import video_diffusion_pytorch
from vdm.nets.attention import SpatialAttention, TemporalAttention
from vdm.nets.blocks import ResidualBlock
from vdm.nets.remat import REMAT
from vdm.nets.unet3d import UNet3DConfig, unet3d
from vdm.types import Condition

CLIPS = Condition(is_image=jnp.zeros(tiny.BATCH, bool))
IMAGES = Condition(is_image=jnp.ones(tiny.BATCH, bool))
OTHER_PARTS = dataclasses.replace(
    tiny.CONFIG, norm="rms", embedding="scale_shift", resampling="patch", skips="all", attention_levels=(0, 1)
)
PEER_PARTS = UNet3DConfig(3, 3, 8, (1, 2), attention_levels=(0, 1), **video_diffusion_pytorch.PARTS)


def one_by_one(array):
    """[batch, frames, ...] -> [batch x frames, 1, ...]"""
    return array.reshape(-1, 1, *array.shape[2:])


def changed_frames(condition, **change):
    """Which frames of the output change, as [frames], when frame 1 of the named input does."""
    _, apply = tiny.network()
    names = ("xt", "log_snr", "frame_index")
    given = dict(zip(names, tiny.inputs(), strict=True))
    other = given | {name: given[name].at[:, 1].add(delta) for name, delta in change.items()}
    before, after = (apply(tiny.params(), *each.values(), condition) for each in (given, other))
    return (before != after).any(axis=(0, 2, 3, 4)).tolist()


@pytest.mark.feature("A1", "A17")
@pytest.mark.parametrize("config", [tiny.CONFIG, OTHER_PARTS, PEER_PARTS], ids=["ho", "other parts", "peer's"])
def test_with_temporal_attention_at_the_identity_a_clip_is_its_frames(config):
    _, apply = tiny.network(config)
    xt, log_snr, frame_index = tiny.inputs()
    clip = apply(tiny.params(config), xt, log_snr, frame_index, IMAGES)
    frames = apply(tiny.params(config), *map(one_by_one, (xt, log_snr, frame_index)), Condition())
    np.testing.assert_allclose(one_by_one(clip), frames, rtol=1e-5, atol=1e-5)
    assert jnp.abs(apply(tiny.params(config), xt, log_snr, frame_index, CLIPS) - clip).max() > 0.1


@pytest.mark.feature("A1")
def test_every_temporal_attention_comes_right_after_a_spatial_one(monkeypatch):
    called = []

    def spy(cls, name):
        call = cls.__call__

        def noted(self, *args):
            called.append(name)
            return call(self, *args)

        monkeypatch.setattr(cls, "__call__", noted)

    spy(SpatialAttention, "spatial")
    spy(TemporalAttention, "temporal")
    spy(ResidualBlock, "block")
    net = unet3d(OTHER_PARTS)
    jax.eval_shape(net.apply, tiny.params(OTHER_PARTS), *tiny.inputs(), CLIPS)
    after_attention, plain = ["block", "spatial", "temporal"], ["block"]
    # two levels with attention down (a block each) and up (two each), and block, attention, block in the middle
    assert called == 2 * after_attention + after_attention + plain + 4 * after_attention


@pytest.mark.feature("A17")
def test_a_clip_of_one_frame_is_an_image_bitwise():
    _, apply = tiny.network()
    inputs = tiny.inputs(batch=tiny.BATCH, frames=1)
    image, clip = (apply(tiny.params(), *inputs, condition) for condition in (IMAGES, CLIPS))
    np.testing.assert_array_equal(image, clip)


@pytest.mark.feature("A1")
def test_in_identity_mode_permuting_frames_permutes_the_output():
    _, apply = tiny.network()
    xt, log_snr, frame_index = tiny.inputs()
    order = jnp.array([2, 0, 3, 1])
    straight = apply(tiny.params(), xt, log_snr, frame_index, IMAGES)
    permuted = apply(tiny.params(), xt[:, order], log_snr[:, order], frame_index, IMAGES)
    np.testing.assert_allclose(permuted, straight[:, order], rtol=1e-6, atol=1e-6)


@pytest.mark.feature("T1")
def test_a_frame_is_seen_by_the_others_through_temporal_attention_alone():
    assert changed_frames(IMAGES, xt=1.0) == [False, True, False, False]
    assert changed_frames(CLIPS, xt=1.0) == [True] * 4


def test_the_noise_level_belongs_to_the_frame():
    assert changed_frames(IMAGES, log_snr=3.0) == [False, True, False, False]
    assert changed_frames(CLIPS, log_snr=3.0) == [True] * 4


@pytest.mark.feature("T1")
def test_only_differences_of_frame_positions_matter_and_they_do():
    _, apply = tiny.network()
    xt, log_snr, frame_index = tiny.inputs()
    here = apply(tiny.params(), xt, log_snr, frame_index, CLIPS)
    np.testing.assert_array_equal(apply(tiny.params(), xt, log_snr, frame_index + 1000, CLIPS), here)
    order = jnp.array([2, 0, 3, 1])
    assert jnp.abs(apply(tiny.params(), xt, log_snr, frame_index[:, order], CLIPS) - here).max() > 1e-2
    together = apply(tiny.params(), xt[:, order], log_snr[:, order], frame_index[:, order], CLIPS)
    np.testing.assert_allclose(together, here[:, order], rtol=1e-5, atol=1e-5)


@pytest.mark.feature("A1")
def test_the_same_weights_take_longer_clips():
    """Softmax over every key twice is softmax over every key: a clip given twice over comes out twice over."""
    _, apply = tiny.network()
    inputs = tiny.inputs()
    twice = [jnp.concatenate([each, each], axis=1) for each in inputs]
    short = apply(tiny.params(), *inputs, CLIPS)
    long = apply(tiny.params(), *twice, CLIPS)
    np.testing.assert_allclose(long, jnp.concatenate([short, short], axis=1), rtol=1e-5, atol=1e-5)
    twice[2] = jnp.tile(jnp.arange(2 * tiny.FRAMES), (tiny.BATCH, 1))  # the true positions of a longer clip
    assert jnp.abs(apply(tiny.params(), *twice, CLIPS) - long).max() > 1e-2


@pytest.mark.feature("T5")
def test_a_mixed_batch_is_its_examples_and_its_gradient_their_sum():
    net, _ = tiny.network(tiny.SMALL)

    @jax.jit
    def loss_and_gradient(params, xt, log_snr, frame_index, condition):
        def loss(params):
            value = net.apply(params, xt, log_snr, frame_index, condition).value
            return jnp.sum(jnp.sin(value)), value

        return jax.value_and_grad(loss, has_aux=True)(params)

    inputs = tiny.inputs()
    (_, mixed), gradient = loss_and_gradient(tiny.params(tiny.SMALL), *inputs, tiny.images(True, False))
    apart = [
        loss_and_gradient(tiny.params(tiny.SMALL), *(each[i : i + 1] for each in inputs), tiny.images(flag))
        for i, flag in enumerate((True, False))
    ]
    np.testing.assert_allclose(mixed, jnp.concatenate([value for (_, value), _ in apart]), rtol=1e-5, atol=1e-5)
    total = jax.tree.map(jnp.add, apart[0][1], apart[1][1])
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(total))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest), gradient, total)


@pytest.mark.feature("R8")
def test_bfloat16_computes_what_float32_does_within_its_precision():
    exact = tiny.network(tiny.SMALL)[1](tiny.params(tiny.SMALL), *tiny.inputs(), CLIPS)
    config = dataclasses.replace(tiny.SMALL, compute_dtype="bfloat16")
    rounded = tiny.network(config)[1](tiny.params(tiny.SMALL), *tiny.inputs(), CLIPS)
    assert rounded.dtype == jnp.float32
    error = jnp.sqrt(jnp.mean((rounded - exact) ** 2) / jnp.mean(exact**2))
    assert 1e-4 < error < 5e-2  # 8 bits of mantissa, some tens of layers; below: not computed in bfloat16 at all
    parameters = jax.eval_shape(unet3d(config).init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {jnp.dtype(jnp.float32)}


@pytest.mark.feature("R8")
@pytest.mark.parametrize("remat", ["none", "blocks"])
def test_equal_blocks_are_compiled_once_and_compute_what_each_would(remat, monkeypatch):
    """Four blocks down and five up, each with skips, attention and a dropout of its own."""
    config = dataclasses.replace(
        tiny.SMALL, num_blocks=4, attention_levels=(0,), skips="all", dropout=0.3, remat=remat, num_classes=3
    )
    net, params, inputs = unet3d(config), tiny.params(dataclasses.replace(config, remat="none")), tiny.inputs()
    keys, condition = jax.random.split(jax.random.key(0)), Condition(label=jnp.array([0, 2]))

    def value_and_gradient():
        traced = jax.jit(
            jax.value_and_grad(lambda p: jnp.sum(jnp.sin(net.apply(p, *inputs, condition, keys=keys).value)))
        ).trace(params)
        return traced.lower().compile()(params), str(traced.jaxpr)

    assert [len(run) for run in net.runs if len(run) > 1] == [4, 5]
    scanned, once = value_and_gradient()
    monkeypatch.setattr("vdm.nets.unet3d.SCANNED", 6)
    unrolled, each = value_and_gradient()
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(unrolled[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest), scanned, unrolled)
    products = [text.count("dot_general") + text.count("conv_general_dilated") for text in (once, each)]
    assert products[0] < 0.5 * products[1], products


@pytest.mark.feature("R8")
def test_remat_changes_memory_and_no_gradient():
    """What is kept for the backward pass, as jax counts it before any compiler, falls from policy to policy."""
    inputs, keys = tiny.inputs(), jax.random.split(jax.random.key(0))  # what is computed again drops the same numbers

    def loss(remat):
        net = unet3d(dataclasses.replace(tiny.SMALL, dropout=0.5, remat=remat))
        return lambda params: jnp.sum(jnp.sin(net.apply(params, *inputs, CLIPS, keys=keys).value))

    params = tiny.params(tiny.SMALL)
    expected = jax.jit(jax.grad(loss("none")))(params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    kept = {}
    for remat in REMAT:
        given = jax.jit(jax.grad(loss(remat)))(params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest), given, expected)
        backward = jax.eval_shape(lambda params, remat=remat: jax.vjp(loss(remat), params)[1], params)
        kept[remat] = sum(leaf.size for leaf in jax.tree.leaves(backward))
    assert kept["none"] == kept["kernels"] > 1.5 * kept["products"] > 1.5 * kept["blocks"], kept  # on one device


def test_dropout_of_an_example_is_a_function_of_its_key():
    config = dataclasses.replace(tiny.SMALL, dropout=0.5)
    _, apply = tiny.network(config)
    inputs = tiny.inputs()
    keys = jax.random.split(jax.random.key(0), 3)
    first, again, other = (
        apply(tiny.params(tiny.SMALL), *inputs, CLIPS, keys=keys[jnp.array(which)])
        for which in ((0, 1), (0, 1), (0, 2))
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[0], other[0])  # whatever the other example draws
    assert jnp.abs(first[1] - other[1]).max() > 1e-2
    undropped = tiny.network(tiny.SMALL)[1](tiny.params(tiny.SMALL), *inputs, CLIPS)
    np.testing.assert_allclose(apply(tiny.params(tiny.SMALL), *inputs, CLIPS), undropped, rtol=1e-5, atol=1e-5)


def test_the_class_is_seen_and_none_is_the_null_class():
    _, apply = tiny.network()
    inputs = tiny.inputs()
    of_label = [apply(tiny.params(), *inputs, tiny.images(False, False, label=jnp.full(2, k))) for k in range(4)]
    np.testing.assert_allclose(apply(tiny.params(), *inputs, CLIPS), of_label[3], rtol=1e-5, atol=1e-5)
    assert min(jnp.abs(a - b).max() for i, a in enumerate(of_label) for b in of_label[:i]) > 1e-2
    for wrong in (-1, 4):
        beyond = apply(tiny.params(), *inputs, tiny.images(False, False, label=jnp.array([wrong, 0])))
        assert jnp.isnan(beyond[0]).all()
        np.testing.assert_array_equal(beyond[1], of_label[0][1])


def test_a_fresh_network_gives_zero_and_can_leave_it():
    net, _ = tiny.network(tiny.SMALL)
    inputs = tiny.inputs()

    @jax.jit
    def value_and_gradient(params):
        def loss(params):
            value = net.apply(params, *inputs, Condition()).value
            return jnp.sum((value - inputs[0]) ** 2), value

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, value), gradient = value_and_gradient(tiny.fresh())
    assert not value.any()
    assert jnp.abs(gradient["head"]["conv"]["kernel"]).max() > 0


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def branches(tree, word):
    """All branches of a nested dict whose name contains the word."""
    for name, branch in tree.items():
        if word in name:
            yield branch
        elif isinstance(branch, dict):
            yield from branches(branch, word)


@pytest.mark.feature("A1")
def test_without_temporal_attention_it_has_the_parameters_of_ddpm():
    """Ho et al. 2020 report 35.7 M for CIFAR-10; the published checkpoint (google/ddpm-cifar10-32) has 35,746,307."""
    config = UNet3DConfig(3, 3, 128, (1, 2, 2, 2), 2, (1,), head_dim=256, groups=32)
    params = jax.eval_shape(unet3d(config).init, jax.random.key(0))
    spatial = list(branches(params, "spatial"))
    assert len(spatial) == len(list(branches(params, "temporal"))) == 2 + 1 + 3
    attention_biases = len(spatial) * 4 * 256  # ours has none
    level_features = 128 - params["level"]["dense_1"]["kernel"].shape[0]  # sinusoids that DDPM has more
    count = size(params) - size(list(branches(params, "temporal"))) + attention_biases + level_features * 512
    assert count == 35_746_307


def test_parameters_have_readable_paths():
    params = tiny.fresh()
    assert params["down_0"]["block_0"]["conv_1"]["kernel"].shape == (3, 3, 8, 8)
    last_words = {
        jax.tree_util.keystr(path[-1:], simple=True) for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    assert last_words == {"kernel", "bias", "scale"}  # the words that a table of sharding rules speaks of


def test_parameters_of_a_part_do_not_depend_on_what_else_there_is():
    name = "middle/temporal_0"
    alone = tiny.network(dataclasses.replace(tiny.SMALL, num_classes=3))[0].parts[name].init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, alone, tiny.fresh()["middle"]["temporal_0"])
    first, second = (tiny.fresh()["middle"][block]["conv_1"]["kernel"] for block in ("block_0", "block_1"))
    assert jnp.abs(first - second).max() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "norm is 'batch'; there are: group, rms, layer"),
        ({"multipliers": ()}, "at least one level"),
        ({"num_blocks": 0}, "num_blocks 0"),
        ({"attention_levels": (0, 2)}, r"\(0, 2\) go beyond the levels 0 to 1"),
        ({"dropout": 1.0}, r"dropout is 1.0; .*\[0, 1\)"),
        ({"head_dim": 3}, "down_1/spatial_0 has 16 channels, which head_dim 3 does not divide"),
        ({"skips": "levels", "head_dim": 16}, "up_1/spatial_0 has 8 channels, which head_dim 16"),
        ({"stem": "wide_temporal", "head_dim": 16}, "stem_temporal has 8 channels, which head_dim 16"),
        ({"num_heads": -1}, "num_heads is -1"),
        ({"position": "rotary_bucket"}, "'rotary_bucket' has one table for all attentions: give them all num_heads"),
        ({"position": "rotary_bucket", "num_heads": 2, "head_dim": 3}, "head_dim 3 must be even"),
        ({"norm": "rms", "attention_norm": "group", "groups": 3}, "channels 8 are not divisible into 3 groups"),
        ({"groups": 3}, "channels 8 are not divisible into 3 groups"),
    ],
)
def test_an_impossible_config_is_refused_with_its_reason(change, message):
    with pytest.raises(ValueError, match=message):
        unet3d(dataclasses.replace(tiny.CONFIG, **change))


def test_what_does_not_fit_is_refused_before_any_compute():
    net, _ = tiny.network()
    net.check(8, 12)
    for height, width in ((8, 10), (6, 8)):
        with pytest.raises(ValueError, match=f"{height} x {width} .* multiples of 4"):
            net.check(height, width)
    xt, log_snr, frame_index = tiny.inputs()
    with pytest.raises(ValueError, match="multiples of 4"):
        jax.eval_shape(net.apply, tiny.params(), xt[:, :, :6], log_snr, frame_index, CLIPS)
    unlabelled = unet3d(dataclasses.replace(tiny.CONFIG, num_classes=None))
    with pytest.raises(ValueError, match="network without classes"):
        unlabelled.apply(tiny.params(), xt, log_snr, frame_index, Condition(label=jnp.zeros(2, int)))


@pytest.mark.feature("T1")
def test_temporal_attention_alone_leaves_out_the_spatial_one():
    alone = unet3d(dataclasses.replace(tiny.CONFIG, attention="temporal"))
    kinds = {name.rsplit("/", 1)[-1].split("_")[0] for name in alone.parts}
    assert "temporal" in kinds and "spatial" not in kinds
    both = {name for name in unet3d(tiny.CONFIG).parts if "/spatial_" not in name}
    assert both == set(alone.parts)
