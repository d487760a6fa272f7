"""Moving digits: the pixels agree with the state, the splits share no image."""

import gzip
import hashlib

import numpy as np
import pytest
from scipy import ndimage, stats

from data.sources import moving_digits, simulated
from data.sources.moving_digits import World


def _centroids(video):
    """(x, y) of every frame's centre of mass, pixels."""
    ink = video[..., 0].astype(float)
    total = ink.sum(axis=(1, 2))
    y, x = np.mgrid[: ink.shape[1], : ink.shape[2]] + 0.5
    return np.stack([(ink * x).sum(axis=(1, 2)) / total, (ink * y).sum(axis=(1, 2)) / total], axis=1)


@pytest.mark.feature("D1")
@pytest.mark.parametrize("size, digit_size", [((64, 64), 22), ((24, 40), 13), ((16, 16), 8)])
def test_centroid_follows_the_state(size, digit_size):
    """The oracle: with one digit the centroid moves as the state says, 60 frames, many bounces, any subpixel place."""
    world = World(60, *size, num_digits=1, digit_size=digit_size, speed=1.7)
    train = simulated.splits(world, 8, 1).train
    for i in range(8):
        centroids, centres = _centroids(train[i]["video"]), train.state(i).centres[0]
        offset = centroids - centres
        assert np.abs(offset - offset.mean(axis=0)).max() < 0.05  # rounding to 8 bits
        assert np.abs(offset.mean(axis=0)).max() < digit_size / 4  # the ink's own centroid within its square


def test_digits_move_at_constant_speed_between_bounces_and_stay_inside():
    world = World(200, 48, 40, num_digits=2, digit_size=16, speed=2.5)
    train = simulated.splits(world, 5, 1).train
    for i in range(5):
        centres = train.state(i).centres
        assert centres.min() >= 8 and centres[..., 0].max() <= 32 and centres[..., 1].max() <= 40
        steps = np.linalg.norm(np.diff(centres, axis=1), axis=-1)
        assert steps.max() <= 2.5 + 1e-9
        straight = np.isclose(steps, 2.5)
        assert (
            straight.mean() > 0.75
        )  # a step that touches a wall is shorter; one wall or the other every 7 steps or more
        turns = (np.diff(np.sign(np.diff(centres, axis=1)), axis=1) != 0).any(axis=(1, 2))
        assert turns.all()


def test_two_digits_are_the_brighter_of_two_single_ones():
    world = World(12, 32, 32, num_digits=2, digit_size=14)
    train = simulated.splits(world, 4, 1).train
    ink = moving_digits.enlarged_digits(14)
    for i in range(4):
        state = train.state(i)
        expected = np.zeros((12, 32, 32))
        for image, path in zip(state.images, state.centres, strict=True):
            for frame, (x, y) in enumerate(path - 7):
                canvas = np.zeros((32, 32))
                canvas[:14, :14] = ink[image]
                moved = ndimage.shift(canvas, (y, x), order=1, mode="grid-constant")  # scipy's own linear interpolation
                expected[frame] = np.maximum(expected[frame], moved)
        assert np.abs(train[i]["video"][..., 0] - 255 * expected).max() < 0.51


def test_the_splits_share_no_image_and_have_all_digits():
    """Both cover every class, and between them every image of the file."""
    world = World(1, 16, 16, num_digits=2, digit_size=8)
    made = simulated.splits(world, 2500, 900)
    used = {
        name: {row for i in range(len(split)) for row in split.state(i).images.tolist()}
        for name, split in (("train", made.train), ("validation", made.validation))
    }
    assert not used["train"] & used["validation"]
    assert len(used["train"] | used["validation"]) > 1700
    classes = moving_digits.load_digits()[1]
    for rows in used.values():
        assert {int(digit) for digit in classes[sorted(rows)]} == set(range(10))


@pytest.mark.parametrize("num_digits, num_classes", [(1, 10), (2, 55)])
def test_labels_name_the_digits_that_are_shown(num_digits, num_classes):
    train = simulated.splits(World(1, 20, 20, num_digits=num_digits), 2000, 1).train
    assert len(train.class_names) == num_classes
    classes = moving_digits.load_digits()[1]
    labels = []
    for i in range(300):
        shown = sorted(classes[train.state(i).images].tolist())
        labels.append(int(train[i]["label"]))
        assert train.class_names[labels[-1]] == " and ".join(map(str, shown))
        said = train.caption(i)
        assert [int(word) for word in said.split() if word.isdigit()] == shown
        assert ("an 8" in said) == (8 in shown) and "a 8" not in said
        assert said.endswith(" moves" if num_digits == 1 else " move")
    if num_digits == 1:
        digits = [int(train.state(i).digits[0]) for i in range(2000)]
        assert stats.chisquare(np.bincount(digits, minlength=10)).pvalue > 0.01


def test_starts_and_directions_are_uniform():
    world = World(2, 64, 64, num_digits=1, digit_size=22, speed=0.5)
    train = simulated.splits(world, 2000, 1).train
    centres = np.stack([train.state(i).centres[0] for i in range(1000)])
    for axis in range(2):
        assert stats.kstest(centres[:, 0, axis], stats.uniform(11, 42).cdf).pvalue > 0.01
    step = centres[:, 1] - centres[:, 0]
    inside = np.isclose(np.linalg.norm(step, axis=1), 0.5)
    angle = np.arctan2(step[inside, 1], step[inside, 0])
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01


def test_clips_are_functions_of_seed_split_and_index():
    world = World(4, 32, 32)
    one, two, other = (simulated.splits(world, 10, 10, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.train[7]["video"], two.train[7]["video"])
    assert np.array_equal(one.train[7]["video"], one.train.example(7, np.random.default_rng(0))["video"])
    assert not np.array_equal(one.train[7]["video"], other.train[7]["video"])
    assert not np.array_equal(one.train.state(7).centres, one.validation.state(7).centres)
    assert one.train.fingerprint == two.train.fingerprint
    prints = {one.train.fingerprint, one.validation.fingerprint, other.train.fingerprint}
    assert len(prints) == 3
    longer = simulated.splits(World(9, 32, 32), 10, 10, seed=3).train  # a longer clip begins as the short one
    assert np.array_equal(longer[7]["video"][:4], one.train[7]["video"])


def test_enlarged_digits_are_scipys_splines_and_keep_the_shape():
    """Two routes: our separable weights against scipy's zoom of a whole image; and back to 8x8 by averaging."""
    images, _ = moving_digits.load_digits()
    for side in (8, 13, 22, 32):
        ink = moving_digits.enlarged_digits(side)
        for i in (0, 17, 900):
            zoomed = ndimage.zoom(images[i] / 16, side / 8, order=3, mode="grid-constant", grid_mode=True)
            assert np.abs(ink[i] - np.clip(zoomed, 0, 1)).max() < 1e-5
    back = moving_digits.enlarged_digits(32).reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.corrcoef(back.ravel(), images.ravel())[0, 1] > 0.98
    assert np.array_equal(np.rint(16 * moving_digits.enlarged_digits(8)), images)


def test_the_file_is_the_one_that_the_attribution_names():
    """scikit-learn documents 1,797 images, 64 attributes, integers 0-16, and UCI these numbers of each class."""
    text = moving_digits.FILE.with_suffix("").with_suffix(".md").read_text()
    assert hashlib.sha256(moving_digits.FILE.read_bytes()).hexdigest() in text
    for word in ("Creative Commons Attribution 4.0", "Alpaydin", "Kaynak"):
        assert word in text
    images, classes = moving_digits.load_digits()
    assert images.shape == (1797, 8, 8) and images.max() == 16
    assert np.bincount(classes).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    with gzip.open(moving_digits.FILE, "rt") as file:
        assert len(file.readline().split(",")) == 65


def test_impossible_worlds_are_explained():
    with pytest.raises(ValueError, match="num_digits must be 1 or 2, got 3"):
        World(8, 64, 64, num_digits=3)
    with pytest.raises(ValueError, match="digits of 22 pixels cannot move in a frame of 16x64"):
        World(8, 16, 64, digit_size=22)
    with pytest.raises(ValueError, match=r"speed must be in \[0, 8\].*got 9"):
        World(8, 16, 16, digit_size=8, speed=9.0)
    with pytest.raises(ValueError, match="num_frames=0"):
        World(0, 64, 64)
    with pytest.raises(ValueError, match="one clip or more"):
        simulated.splits(World(8, 64, 64), 0, 10)
    train = simulated.splits(World(8, 64, 64), 5, 5).train
    for index in (-1, 5):
        with pytest.raises(IndexError, match="of 5"):
            train[index]
