"""Seeds of parts: each draws its part anew and leaves the others to the last bit."""

import contextlib

import jax
import numpy as np
import pytest

from tests import tiny
from vdm import build, steps
from vdm.runtime import random
from vdm.runtime.random import Purpose

PARTS = ("init", "train", "sample", "evaluation")


def experiment_of(part="init", number=0):
    config = tiny.get_config()
    config.vary[part] = number
    return build.experiment(config)


def drawn(experiment):
    """What every part begins with: parameters, a batch of the data, and the first words of every purpose."""
    with contextlib.closing(steps.device_batches(experiment, 3)) as batches:
        batch = np.asarray(next(batches)["video"])
    words = {part: [] for part in PARTS}
    for purpose in Purpose:
        words[build.PARTS[purpose]].append(np.asarray(jax.random.key_data(experiment.key(purpose, 5))))
    words["the data's order"] = [batch]
    return {
        part: np.concatenate([np.ravel(leaf).astype(np.uint32) for leaf in leaves]) for part, leaves in words.items()
    }


@pytest.mark.feature("O20")
@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_drawn_anew_and_no_other(part):
    before, after = drawn(experiment_of()), drawn(experiment_of(part, 1))
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == ({part, "the data's order"} if part == "train" else {part})


def test_nothing_varied_is_the_seed_itself_and_every_number_another():
    assert random.varied(7, 0) == 7
    seeds = {random.varied(seed, number) for seed in range(50) for number in range(50)}
    assert len(seeds) == 2500 and all(0 <= seed < 2**32 for seed in seeds)
    with pytest.raises(ValueError, match=r"config\.vary has -1"):
        random.varied(0, -1)
