import numpy as np
import pytest
from scipy import stats

from vdm.records import statistics


def _pairs(both, only_first, only_second, neither):
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    return first, np.repeat([True, False, True, False], [both, only_first, only_second, neither])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_at_the_examples_of_newcombe(successes, trials, low, high):
    """Newcombe 1998, Statistics in Medicine 17:857-872, Table I, method 3."""
    interval = statistics.proportion(successes, trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@pytest.mark.parametrize("successes", [0, 1, 7, 16])
def test_wilson_is_scipys(successes):
    ours = statistics.proportion(successes, 16, confidence=0.9)
    theirs = stats.binomtest(successes, 16).proportion_ci(0.9, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_paired_interval_at_published_examples():
    """(36, 12, 2, 0): Newcombe 1998, Statistics in Medicine 17:2635-2650, Table II, method 10.

    (1, 1, 7, 12): Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33:2850-2875, airway reactivity of children.
    """
    interval = statistics.paired_proportion_difference(*_pairs(36, 12, 2, 0))
    assert [round(value, 4) for value in (interval.estimate, interval.low, interval.high)] == [0.2, 0.0569, 0.3404]
    interval = statistics.paired_proportion_difference(*_pairs(1, 1, 7, 12))
    assert [round(value, 3) for value in (interval.low, interval.high)] == [-0.507, -0.026]


def test_the_paired_interval_turns_with_its_arms_and_narrows_with_their_agreement():
    first, second = _pairs(60, 12, 5, 23)
    forward, back = (
        statistics.paired_proportion_difference(first, second),
        statistics.paired_proportion_difference(second, first),
    )
    assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low))
    loose = statistics.paired_proportion_difference(first, np.random.default_rng(0).permutation(second))
    assert forward.high - forward.low < 0.8 * (loose.high - loose.low)
    same = statistics.paired_proportion_difference(first, first)
    assert same.low < 0.0 < same.high
    always = np.ones(50, bool)
    assert statistics.paired_proportion_difference(always, ~always).high == 1.0


@pytest.mark.parametrize("interval", ["proportion", "mean"])
def test_paired_intervals_cover_as_often_as_they_say(interval):
    """Two arms that often succeed on the same noise; 400 experiments of 100 pairs: 95 % within 4 standard errors."""
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        shared, own = generator.normal(size=100), generator.normal(size=(2, 100))
        first, second = shared + own[0] > 0.3, shared + own[1] > -0.1
        if interval == "proportion":
            difference = statistics.paired_proportion_difference(first, second)
        else:
            difference = statistics.mean(first.astype(float) - second.astype(float), seed=0)
        truth = stats.norm.sf(0.3 / np.sqrt(2)) - stats.norm.sf(-0.1 / np.sqrt(2))
        hits += difference.low <= truth <= difference.high
    assert abs(hits / 400 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


def test_the_bootstrap_of_many_values_is_the_normal_interval():
    values = np.random.default_rng(2).normal(3.0, 2.0, size=2000)
    interval = statistics.mean(values, seed=0)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(2000)
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)
    assert interval == statistics.mean(values, seed=0)


def test_the_mean_of_few_has_students_interval():
    # the tables' t(0.975) with 2 degrees of freedom is 4.303; the standard deviation of 1, 2, 3 is 1
    found = statistics.mean_of_few(np.array([1.0, 2.0, 3.0]))
    assert found.estimate == 2.0
    assert [found.low, found.high] == pytest.approx([2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5], abs=1e-3)
    with pytest.raises(ValueError, match="at least 2 values"):
        statistics.mean_of_few(np.array([1.0]))


def test_verdicts_follow_the_interval():
    assert statistics.verdict(statistics.Interval(0.2, 0.01, 0.4)) == "separated"
    assert statistics.verdict(statistics.Interval(-0.2, -0.4, -0.01)) == "separated"
    assert statistics.verdict(statistics.Interval(0.2, -0.01, 0.4)) == "not separated"
    assert statistics.verdict(statistics.Interval(0.2, 0.0, 0.4)) == "not separated"


def test_pixel_correlation_is_pearsons_per_clip():
    first, second = np.random.default_rng(3).integers(0, 256, size=(2, 5, 3, 4, 4, 3), dtype=np.uint8)
    second[0], second[1], second[2] = first[0] // 2, 255 - first[1], 7
    correlation = statistics.pixel_correlation(first, second)
    expected = [
        stats.pearsonr(first[i].ravel().astype(float), second[i].ravel().astype(float))[0] for i in (0, 1, 3, 4)
    ]
    np.testing.assert_allclose(correlation[[0, 1, 3, 4]], expected, atol=1e-12)
    assert correlation[1] == pytest.approx(-1.0)
    assert np.isnan(correlation[2])


def test_what_has_no_interval_is_refused():
    with pytest.raises(ValueError, match="at least one trial; given 0 of 0"):
        statistics.proportion(0, 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.proportion(1, 2, confidence=95.0)
    with pytest.raises(ValueError, match="1 not finite"):
        statistics.mean(np.array([1.0, np.nan]), seed=0)
    with pytest.raises(ValueError, match="low <= estimate <= high"):
        statistics.Interval(0.0, 0.1, 0.2)
