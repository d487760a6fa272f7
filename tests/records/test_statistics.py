import numpy as np
import pytest
from scipy import stats

from vdm.records import statistics
from vdm.records.comparison import OverSeeds, corrected, paired


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


def test_a_p_value_agrees_with_its_interval_and_with_a_table():
    """t = 12.706 with 1 degree of freedom and t = 2.776 with 4 are the 5 % points of Student's table."""
    for num, table in ((2, 12.706), (5, 2.776)):
        spread = np.linspace(-1, 1, num)
        error = spread.std(ddof=1) / np.sqrt(num)
        values = spread + table * error
        assert statistics.p_values_of_few(values[None]) == pytest.approx(0.05, rel=1e-3)
        assert statistics.mean_of_few(values).low == pytest.approx(0, abs=1e-3)
    assert statistics.p_values_of_few(np.array([[0.0] * 3, [1.0] * 3])).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="at least 2 values"):
        statistics.p_values_of_few(np.ones((2, 1)))


def test_holm_s_own_procedure():
    """Step down: 0.01 and 0.02 of four survive 0.05 only as long as each smaller one did."""
    assert statistics.holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([0.03]) == pytest.approx([0.03])
    assert statistics.holm([]) == ()


@pytest.mark.feature("O20")
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_equal_arms_are_called_separated_in_at_most_one_study_of_twenty(seeds):
    """10,000 studies of 10 equal arms whose results share what the seed does to all of them."""
    rng = np.random.default_rng(seeds)
    first, second = np.triu_indices(10, 1)
    false, covered = 0, 0
    for _ in range(10_000):
        results = rng.normal(size=seeds) + rng.normal(size=(10, seeds))
        p_values = statistics.p_values_of_few(results[first] - results[second])
        false += min(statistics.holm(p_values)) <= 0.05
        interval = statistics.mean_of_few(results[0] - results[1])
        covered += interval.low <= 0 <= interval.high
    assert false <= 550
    assert 9_400 <= covered <= 9_600


@pytest.mark.feature("O20")
@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("samples", [64, 100, 200])
def test_coarse_results_are_not_separated_by_ties(seeds, samples):
    """Shares of so few samples: the differences of a pair are often equal, which is no certainty.

    Those of 64 are exact in binary, those of 100 and 200 are equal but for rounding.
    """
    rng = np.random.default_rng(seeds)
    first, second = np.triu_indices(10, 1)
    false = 0
    for _ in range(2_000):
        results = rng.binomial(samples, 0.5, size=(10, seeds)) / samples
        false += min(statistics.holm(statistics.p_values_of_few(results[first] - results[second]))) <= 0.05
    assert false <= 0.055 * 2_000


def test_equal_differences_have_neither_an_interval_nor_a_verdict():
    """0.3 - 0.2 and 0.2 - 0.1: equal, and 2.8e-17 apart."""
    (entry,) = paired("x", {"one": (0.3, 0.2), "two": (0.2, 0.1)}, "%")
    assert len(set(entry.by_seed)) == 2, "the two differences are the same bits: this shows nothing"
    assert entry.verdict == "not separated" and entry.difference.limits(str) == "all equal"
    (entry,) = corrected([entry])
    assert (entry.p_value, entry.verdict) == (1.0, "not separated")
    assert statistics.mean_of_few(np.zeros(3)).is_tie and not statistics.mean_of_few(np.array([0.0, 1e-9])).is_tie


@pytest.mark.feature("O20")
def test_a_broken_arm_is_separated_from_every_other():
    rng = np.random.default_rng(0)
    results = rng.normal(size=5) + 0.1 * rng.normal(size=(4, 5))
    results[3] -= 2.0
    pairs = [(i, j) for i in range(4) for j in range(i)]
    entries = [OverSeeds("x", str(i), str(j), tuple(results[i] - results[j]), "") for i, j in pairs]
    verdicts = {(entry.first, entry.second): entry.verdict for entry in corrected(entries)}
    assert {pair for pair, verdict in verdicts.items() if verdict == "separated"} == {
        ("3", "0"),
        ("3", "1"),
        ("3", "2"),
    }
