"""Proposals of noise levels: the objective stays, the variance falls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from vdm.diffusion import schedules
from vdm.diffusion.proposals import Independent, LossAware, Stratified, as_measure
from vdm.diffusion.times import Grid, LogNormalSigma, LogSnrUniform, Uniform

ROWS = jnp.arange(8)
AWARE = LossAware(num_buckets=16, decay=0.5, uniform_share=0.1)


def loss(u):
    """Spans two orders of magnitude, as unweighted losses do."""
    return 5.0 * jnp.exp(-6.0 * u) + 0.01


MEAN = 5.0 * (1 - np.exp(-6.0)) / 6.0 + 0.01


def batches(proposal, memory, num=4000):
    """(u, importance) [batch of rows] of many steps with one memory."""
    uniform = jnp.asarray(np.random.default_rng(0).uniform(size=(num, 8)), jnp.float32)
    return jax.jit(jax.vmap(lambda uniform: proposal.draw(memory, uniform, ROWS)))(uniform)


def learned_memory():
    memory = AWARE.first()
    u = (jnp.arange(512) + 0.5) / 512
    for _ in range(12):
        memory = AWARE.observe(memory, u, loss(u))
    return memory


@pytest.mark.feature("O17")
@pytest.mark.parametrize("proposal", [Independent(), Stratified(), AWARE], ids=lambda p: type(p).__name__)
def test_each_number_alone_has_its_density(proposal):
    """Kolmogorov-Smirnov distance of every row to the density that the importance names, below the 0.1 % point."""
    memory = learned_memory() if proposal is AWARE else proposal.first()
    u, importance = map(np.asarray, batches(proposal, memory))
    density = np.ones(16) if proposal is not AWARE else np.asarray(AWARE.density(memory))
    np.testing.assert_allclose(importance, 1 / density[(u * 16).astype(int)], rtol=1e-5)
    cumulative = np.interp(np.sort(u, axis=0), np.arange(17) / 16, np.concatenate([[0], np.cumsum(density) / 16]))
    empirical = (np.arange(len(u)) + 0.5) / len(u)
    assert np.abs(cumulative - empirical[:, None]).max() < 1.95 / np.sqrt(len(u)) + 1e-3
    assert u.min() >= 0.0 and u.max() < 1.0


@pytest.mark.feature("O17")
def test_the_mean_stays_and_the_variance_falls():
    """Variance ratios below 0.5 against independent draws: stratified, and loss-aware far below that."""
    variance = {}
    rows = {"independent": (Independent(), ()), "stratified": (Stratified(), ()), "aware": (AWARE, learned_memory())}
    for name, (proposal, memory) in rows.items():
        u, importance = batches(proposal, memory)
        means = np.asarray((importance * loss(u)).mean(axis=1), np.float64)
        assert abs(means.mean() - MEAN) < 5 * means.std() / np.sqrt(len(means)), name
        variance[name] = means.var()
    assert variance["stratified"] < 0.5 * variance["independent"]
    assert variance["aware"] < 0.5 * variance["stratified"]


@pytest.mark.feature("O17")
def test_a_stratified_batch_is_evenly_spaced():
    u = np.sort(np.asarray(batches(Stratified(), ())[0]), axis=1)
    np.testing.assert_allclose(np.diff(u, axis=1), 1 / 8, atol=1e-6)


@pytest.mark.feature("O17")
def test_single_examples_of_the_loss_aware_proposal_vary_less():
    """Not by stratification alone: the variance of one importance-weighted loss."""
    u, importance = batches(AWARE, learned_memory())
    aware = np.asarray(importance * loss(u))[:, 0]
    alone = np.asarray(loss(batches(Independent(), ())[0]))[:, 0]
    assert aware.var() < 0.3 * alone.var()


@pytest.mark.feature("O17")
def test_what_a_bucket_remembers():
    """The decayed mean of squared losses, without the bias of its start; buckets not visited keep theirs; density in
    proportion to the root mean square, once all have been seen.
    """
    proposal = LossAware(num_buckets=2, decay=0.5, uniform_share=0.2)
    memory = proposal.first()
    np.testing.assert_array_equal(proposal.density(memory), 1.0)
    memory = proposal.observe(memory, jnp.asarray([0.1, 0.3]), jnp.asarray([3.0, 1.0]))  # squares 9 and 1: 5
    np.testing.assert_allclose(memory, [[2.5, 0.0], [0.5, 0.0]])
    np.testing.assert_array_equal(proposal.density(memory), 1.0)
    memory = proposal.observe(memory, jnp.asarray([0.9]), jnp.asarray([1.0]))
    np.testing.assert_allclose(memory, [[2.5, 0.5], [0.5, 0.5]])
    ratio = np.sqrt(5.0)
    expected = 0.2 + 0.8 * np.array([ratio, 1.0]) / ((ratio + 1) / 2)
    np.testing.assert_allclose(proposal.density(memory), expected, rtol=1e-6)
    memory = proposal.observe(memory, jnp.asarray([0.9]), jnp.asarray([1.0]))  # the same again is no news
    np.testing.assert_allclose(proposal.density(memory), expected, rtol=1e-6)
    poisoned = proposal.observe(memory, jnp.asarray([0.9]), jnp.asarray([jnp.nan]))
    np.testing.assert_array_equal(proposal.density(poisoned), 1.0)


@pytest.mark.parametrize("options", [(1, 0.9, 0.1), (4, 1.0, 0.1), (4, 0.9, 0.0), (4, 0.9, 1.5)])
def test_impossible_proposals_are_refused(options):
    with pytest.raises(ValueError, match="loss_aware needs num_buckets >= 2"):
        LossAware(*options)


COSINE = schedules.cosine(-20.0, 20.0)
UNIFORM = LogSnrUniform(-8.0, 8.0)


@pytest.mark.feature("O17", "O15")
def test_levels_come_as_often_as_another_measure_has_them():
    """A tenth evenly over log-SNR, the rest as EDM's log-normal sigma within the own range; Kolmogorov-Smirnov."""
    proposal = as_measure(COSINE, UNIFORM, LogNormalSigma(-1.2, 1.2), own_share=0.1)
    u, importance = (np.asarray(numbers, np.float64) for numbers in batches(proposal, ()))
    means = (importance * np.exp(u)).mean(axis=1)
    assert abs(means.mean() - (np.e - 1)) < 4 * means.std() / np.sqrt(len(means)) < 0.1
    u = u.ravel()
    log_snr = np.sort(-8.0 + 16.0 * u)  # the own measure falls in t, so it rises in log-SNR
    low, high = norm.cdf([-8.0, 8.0], 2.4, 2.4)
    expected = 0.1 * (log_snr + 8.0) / 16.0 + 0.9 * (norm.cdf(log_snr, 2.4, 2.4) - low) / (high - low)
    assert np.abs(expected - (np.arange(u.size) + 0.5) / u.size).max() < 5e-3
    assert importance.max() <= 10.0 + 1e-3, "a draw in ten is of the own measure"


@pytest.mark.feature("O17")
def test_a_measure_that_proposes_itself_draws_evenly():
    proposal = as_measure(COSINE, UNIFORM, UNIFORM, own_share=0.1)
    np.testing.assert_allclose(proposal.mass, np.diff(proposal.ends), atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "own", "other", "share", "match"),
    [
        (COSINE, UNIFORM, UNIFORM, 0.0, "own_share in"),
        (COSINE, Grid(100), UNIFORM, 0.1, "two continuous measures"),
        (COSINE, UNIFORM, Grid(100), 0.1, "two continuous measures"),
        (schedules.learned(64, -10.0, 10.0), Uniform(0.0), UNIFORM, 0.1, "not learned"),
        (COSINE, LogSnrUniform(-8.0, -7.0), LogSnrUniform(7.0, 8.0), 0.1, "visits no level"),
    ],
)
def test_measures_that_cannot_propose_are_refused(schedule, own, other, share, match):
    with pytest.raises(ValueError, match=match):
        as_measure(schedule, own, other, share)
