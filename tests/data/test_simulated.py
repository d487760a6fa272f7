"""A split of any world: what goes into its fingerprint, and what is refused. The worlds have tests of their own."""

import numpy as np
import pytest

from data.sources import moving_digits, moving_shapes, simulated

WORLDS = {"moving_shapes": moving_shapes.World(4, 16, 16), "moving_digits": moving_digits.World(4, 32, 32)}


@pytest.mark.parametrize("name", WORLDS)
def test_other_pixels_are_other_data(name, monkeypatch):
    """Another rendering of the same options, and for digits another file of images, change the fingerprint."""
    module = {"moving_shapes": moving_shapes, "moving_digits": moving_digits}[name]
    source = simulated.Simulated(WORLDS[name], "train", 5)
    prints = {source.fingerprint}
    monkeypatch.setattr(module, "RENDERING", 99)
    prints.add(source.fingerprint)
    if name == "moving_digits":
        monkeypatch.setattr(module, "_file_hash", lambda: "another file")
        prints.add(source.fingerprint)
    assert len(prints) == (3 if name == "moving_digits" else 2)


@pytest.mark.parametrize("name", WORLDS)
def test_a_clip_shows_its_state(name):
    source = simulated.Simulated(WORLDS[name], "validation", 5, seed=7)
    drawn = source.world.show(source.state(3), np.random.default_rng(0))
    np.testing.assert_array_equal(drawn["video"], source[3]["video"])
    assert source.class_names[drawn["label"]] == source.class_names[source[3]["label"]]


@pytest.mark.parametrize("wrong", [{"split": "test"}, {"num_clips": 0}, {"seed": -1}])
def test_impossible_splits_are_explained(wrong):
    with pytest.raises(ValueError, match=r"a split needs a name of .*got"):
        simulated.Simulated(WORLDS["moving_shapes"], **({"split": "train", "num_clips": 5} | wrong))
    with pytest.raises(IndexError, match="clip 5 of a split of 5"):
        simulated.Simulated(WORLDS["moving_shapes"], "train", 5)[5]
