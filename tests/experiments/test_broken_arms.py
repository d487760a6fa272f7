"""Arms that are subtly wrong come last: trained, sampled and compared like sound ones on a video whose law is known."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.solvers import rows, training
from experiments.solvers.networks import Perceptron
from experiments.solvers.worlds import GaussianVideo
from vdm.diffusion import objectives, schedules
from vdm.diffusion.samplers import Ancestral, ancestral, grids, loop
from vdm.diffusion.targets import NOISE
from vdm.diffusion.weightings import Weighting
from vdm.metrics import frechet, moments
from vdm.metrics.moments import Moments
from vdm.records import comparison

WORLD = GaussianVideo(3, 1, 2)
SETTING = training.Setting(WORLD, Perceptron(6, 64))
SOUND = ("vp_sde", "cosine_v", "edm")
NUM_SEEDS, NUM_CLIPS, NUM_STEPS = 5, 2048, 64


class StaleSignal(Ancestral):
    """alpha_t stands where alpha_s belongs."""

    def __call__(self, denoiser, schedule, xt, t, s, noise):
        here, there = schedules.level(schedule, t), schedules.level(schedule, s)
        wrong = dataclasses.replace(there, alpha=here.alpha)
        return ancestral._step(denoiser(xt, here), xt, wrong, here, jnp.zeros(()), noise(0))


def inverted(row):
    """The noise's errors weigh 1: those of x0 weigh SNR. Here they weigh 1/SNR."""
    weighting = Weighting("inverted", NOISE, lambda schedule, t: -2 * schedules.log_snr(schedule, t))
    return dataclasses.replace(row, objective=dataclasses.replace(row.objective, weighting=weighting))


def distances(row, step):
    """Of samples from the true law, seed by seed; all arms have the same keys."""
    study, keys = training.Study(SETTING, row), jax.random.split(jax.random.key(0), (2, NUM_SEEDS))
    states, _ = training.train(study, training.start(study, keys[0]), keys[1], training.measuring_points(WORLD))

    @jax.jit
    def draw(params, key):
        schedule, shape = row.objective.schedule, (NUM_CLIPS, *WORLD.shape)
        times = grids.common(schedule, NUM_STEPS, -8.0, 8.0)
        first, others = jax.random.split(key)
        start = loop.prior(schedule, times, jax.random.normal(first, shape))
        denoiser = objectives.denoiser(row.objective, SETTING.network.predict(params))
        noise = lambda i: jax.random.normal(jax.random.fold_in(others, i), shape)  # noqa: E731
        return loop.sample(denoiser, schedule, step, times, start, noise)

    exact = Moments(NUM_CLIPS, np.zeros(len(WORLD.covariance)), (NUM_CLIPS - 1) * WORLD.covariance)
    for seed in range(NUM_SEEDS):
        params = jax.tree.map(lambda leaf: leaf[seed], states.average)  # noqa: B023
        clips = np.asarray(draw(params, keys[1][seed]), np.float64).reshape(NUM_CLIPS, -1)
        yield frechet.distance(moments.of(clips), exact)


@pytest.mark.slow
@pytest.mark.feature("O20")
def test_broken_arms_come_last_at_every_seed():
    by_name = {row.name: row for row in rows.rows(WORLD.rms)}
    found = {name: list(distances(by_name[name], Ancestral())) for name in SOUND}
    broken = {
        "alpha_t for alpha_s": list(distances(by_name["cosine_v"], StaleSignal())),
        "inverted weight": list(distances(inverted(by_name["vp_sde"]), Ancestral())),
    }
    for seed in range(NUM_SEEDS):
        worst = max(values[seed] for values in found.values())
        assert worst < 0.1 < min(values[seed] for values in broken.values())
    entries = comparison.corrected(list(comparison.paired("distance", found | broken, "")))
    verdicts = {(entry.first, entry.second): entry.verdict for entry in entries}
    assert all(verdicts[pair] == "separated" for pair in itertools.product(SOUND, broken))
