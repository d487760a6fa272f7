"""Samplers that all arms of a comparison share: networks are sampled alike, and what is not alike is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from configs import entries
from tests import tiny
from vdm import arms, build, evaluate, sample
from vdm.diffusion import schedules
from vdm.runtime import random
from vdm.runtime.random import Purpose


def config_of(schedule="vp_linear", evaluations=3, **sampling):
    config = tiny.get_config()
    config.schedule.name, config.name = schedule, schedule
    config.objective.target = "x0"
    config.scores.samplings = ("common",)
    with config.unlocked():
        config.scores.sampling.common = entries.common_sampling(evaluations, -8.0, 8.0)
    config.scores.sampling.common.update(sampling)
    return config


def drawn(experiment):
    params = experiment.init(random.key(0, Purpose.INIT))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape, np.float32), params)
    return sample.make_draw(experiment)(params, 4).astype(int)


@pytest.mark.feature("O20")
def test_one_network_gives_the_same_clips_by_a_common_sampler_whatever_its_schedule():
    """VP schedules differ in the time at which they reach a level, and in nothing else."""
    made = [build.experiment(config_of(schedule)) for schedule in ("vp_linear", "cosine")]
    one, two = (drawn(build.samplings(each)["common"]) for each in made)
    assert np.ptp(one) > 50, "the clips are all grey"
    assert np.abs(one - two).max() <= 1, "rounding to 8 bits apart, they are the same"
    own = [drawn(each) for each in made]
    assert np.abs(own[0] - own[1]).mean() > 1, "by their own samplers they differ"


@pytest.mark.feature("O20")
@pytest.mark.parametrize("evaluations", [2, 5])
def test_a_common_sampler_takes_as_many_evaluations_as_were_asked_for(evaluations):
    experiment = build.experiment(config_of(evaluations=evaluations))
    sampled = build.samplings(experiment)["common"]
    assert sampled.sampler.num_evaluations == evaluations
    assert sampled.config.sampler.name == "ddim" and experiment.config.sampler.name == "heun"


def test_scores_name_the_sampling_and_say_what_it_was():
    experiment = build.experiment(config_of())
    metrics = evaluate.oracle_metrics(experiment, np.zeros((4, 4, 8, 8, 3), np.uint8))
    shared = [evaluate.of_sampling(one, "common", build.samplings(experiment)["common"]) for one in metrics]
    own = [evaluate.of_sampling(one, evaluate.OWN, experiment) for one in metrics]
    assert shared[0].name == "valid clips, common" and own[0].name == "valid clips"
    assert [one.quantity for one in shared] == [one.name for one in own]
    assert shared[0].protocol["sampler"]["num_steps"] == 2 and shared[0].protocol["network_evaluations"] == 3
    assert "sampler" not in own[0].protocol  # it may be another one in another arm, if it takes as many evaluations
    assert own[0].protocol["network_evaluations"] == experiment.sampler.num_evaluations == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: scores.update(samplings=("other",)), "config.scores.samplings is 'other'; it must be one of"),
        (lambda scores: scores.sampling.common.update(name="dddim"), "scores.sampling.common: .*'dddim'; .* one of"),
        (lambda scores: scores.sampling.common.spacing.common.update(log_snr_min=-90.0), "scores.sampling.common: "),
        (lambda scores: scores.sampling.common.spacing.update(names="x"), "scores.sampling.common: .*names"),
        (lambda scores: replace(scores, {"spacing": "x"}), "scores.sampling.common: "),
        (lambda scores: replace(scores, {"guidance": None}), "scores.sampling.common: "),
        (lambda scores: rename(scores, "up/down"), r"has 'up/down': it is part of names of files"),
        (lambda scores: rename(scores, "own"), "has 'own'"),
    ],
)
def test_a_sampling_that_cannot_be_is_refused(change, message):
    config = config_of()
    with config.unlocked():
        change(config.scores)
    with pytest.raises(ValueError, match=message):
        build.samplings(build.experiment(config))


def replace(scores, changes):
    del scores.sampling["common"]
    scores.sampling["common"] = changes


def rename(scores, name):
    scores.sampling[name] = scores.sampling.common
    scores.samplings = (name,)


@pytest.mark.feature("O20")
def test_arms_whose_scores_could_not_be_compared_are_refused():
    config, other = config_of(), config_of("cosine")
    arms.check_samplings([build.experiment(config), build.experiment(other)])
    other.sampler.num_steps = 3
    with pytest.raises(ValueError, match="network evaluations a clip, 5 in vp_linear and 7 in cosine"):
        arms.check_samplings([build.experiment(config), build.experiment(other)])
    other.sampler.name = "adaptive"
    with pytest.raises(ValueError, match="5 in vp_linear and what a solver wants in cosine"):
        arms.check_samplings([build.experiment(config), build.experiment(other)])
    other.sampler.update(name="ddim", num_steps=4)  # another sampler of its own, at as many evaluations
    arms.check_samplings([build.experiment(config), build.experiment(other)])
    with config.unlocked():
        del config.scores.sampling.common["threshold"]
    with other.unlocked():
        del other.scores.sampling.common["threshold"]
    other.sampler.threshold.name = "dynamic"
    with pytest.raises(ValueError, match=r"sampling.common is another sampler in vp_linear than in cosine \(.*thresho"):
        arms.check_samplings([build.experiment(config), build.experiment(other)])


@pytest.mark.feature("O20")
@pytest.mark.parametrize("evaluations", [8, 256])
def test_a_chain_is_sampled_at_the_very_levels_of_a_continuous_schedule(evaluations):
    chain, continuous = (
        build.samplings(build.experiment(config_of(schedule, evaluations)))["common"]
        for schedule in ("ddpm_linear", "vp_linear")
    )
    levels = [
        np.asarray(schedules.log_snr(each.objective.schedule, each.sampler.times)) for each in (chain, continuous)
    ]
    np.testing.assert_allclose(levels[0], levels[1], atol=2e-3)
    np.testing.assert_allclose(levels[1], np.linspace(-8, 8, evaluations), atol=2e-3)
