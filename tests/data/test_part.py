"""Clips that are set aside: the last of the validation split, and in it no more."""

import numpy as np
import pytest

from data.sources import moving_shapes, simulated
from data.sources.part import set_aside

SPLITS = simulated.splits(moving_shapes.World(4, 8, 8, radius=1.5), num_train=4, num_validation=10, seed=0)


@pytest.mark.feature("O20")
def test_the_last_clips_are_set_aside_and_no_clip_is_in_both():
    made = set_aside(SPLITS, 3)
    assert (len(made.validation), len(made.selection)) == (7, 3)
    parts = [made.validation[i]["video"] for i in range(7)] + [made.selection[i]["video"] for i in range(3)]
    np.testing.assert_array_equal(np.stack(parts), np.stack([SPLITS.validation[i]["video"] for i in range(10)]))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(made.selection.example(1, rng)["video"], SPLITS.validation[8]["video"])
    assert made.train is SPLITS.train and set_aside(SPLITS, 0) is SPLITS


def test_parts_have_fingerprints_of_their_own():
    one, two = set_aside(SPLITS, 3), set_aside(SPLITS, 4)
    prints = [part.fingerprint for made in (one, two) for part in (made.validation, made.selection)]
    assert len({*prints, SPLITS.validation.fingerprint}) == 5
    assert set_aside(SPLITS, 3).selection.fingerprint == one.selection.fingerprint


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_clip_outside(index):
    with pytest.raises(IndexError, match=f"clip {index} of 3"):
        set_aside(SPLITS, 3).selection[index]


@pytest.mark.parametrize("count", [-1, 10, 11])
def test_something_must_be_left_to_validate_on(count):
    with pytest.raises(ValueError, match=f"num_selection is {count}, and the validation split has 10 clips"):
        set_aside(SPLITS, count)
