"""Held-out clips in batches: each once, in order, whatever the batch."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vdm import build, validation


@pytest.mark.parametrize("count", [5, 8, 13])
def test_every_clip_is_there_once_and_none_that_fills_up_a_batch(count):
    experiment, beats = build.experiment(tiny.get_config()), []
    assert experiment.config.evaluation.batch_size == 8
    source = experiment.splits.validation

    def of_batch(params, batch):
        means = batch["video"].astype(jnp.float32).mean(axis=(1, 2, 3, 4))
        return {"index": batch["index"], "levels": jnp.stack([means, 2 * means])}

    found = validation.over_clips(experiment, of_batch, {}, source, count, lambda: beats.append(1))
    means = [source[index]["video"].mean() for index in range(count)]
    np.testing.assert_array_equal(found["index"], np.arange(count))
    np.testing.assert_allclose(found["levels"], [means, 2 * np.array(means)], rtol=1e-6)
    assert len(beats) == -(-count // 8) and found["levels"].dtype == np.float64
