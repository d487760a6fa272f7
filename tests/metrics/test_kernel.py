"""The kernel distance and the inception score against sums written out, and against what they must be."""

import itertools
import math

import numpy as np
import pytest

from vdm.metrics import inception_score, kernel


@pytest.mark.feature("M4")
def test_equals_the_sum_over_all_pairs():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(23, 5)), rng.normal(size=(27, 5)) + 0.3

    def k(x, y):
        return (float(np.dot(x, y)) / 5 + 1) ** 3

    within_first = [k(x, y) for x, y in itertools.permutations(first, 2)]
    within_second = [k(x, y) for x, y in itertools.permutations(second, 2)]
    across = [k(x, y) for x, y in itertools.product(first, second)]
    expected = np.mean(within_first) + np.mean(within_second) - 2 * np.mean(across)
    assert kernel.discrepancy(first, second) == pytest.approx(expected, rel=1e-12)
    assert kernel.distance(first, second).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.feature("M4")
def test_is_zero_on_average_for_one_distribution_and_says_how_far_it_strays():
    rng = np.random.default_rng(1)
    found = [kernel.distance(*rng.normal(size=(2, 60, 6))) for _ in range(100)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 4 * values.std(ddof=1) / math.sqrt(len(values))
    assert (values < 0).any()
    shifted = [kernel.distance(rng.normal(size=(60, 6)) + 0.5, rng.normal(size=(80, 6))) for _ in range(60)]
    spread = np.std([one.value for one in shifted], ddof=1)
    assert np.mean([one.standard_error for one in shifted]) == pytest.approx(spread, rel=0.3)
    assert min(one.value for one in shifted) > 0


def test_kernel_refusals():
    with pytest.raises(ValueError, match="different extractors"):
        kernel.distance(np.ones((30, 3)), np.ones((30, 4)))
    with pytest.raises(ValueError, match="at least 20 clips in both sets; given 19"):
        kernel.distance(np.ones((30, 3)), np.ones((19, 3)))


@pytest.mark.feature("M5")
def test_inception_score_of_certain_classes_is_their_number():
    certain = np.where(np.eye(7, dtype=bool)[np.arange(70) % 7], 200.0, 0.0)
    assert inception_score.inception_score(certain, num_splits=10) == pytest.approx((7.0, 0.0))
    # one class only, or no opinion at all
    assert inception_score.inception_score(certain[np.zeros(70, int)])[0] == pytest.approx(1.0)
    assert inception_score.inception_score(np.zeros((70, 7)))[0] == pytest.approx(1.0)


@pytest.mark.feature("M5")
def test_inception_score_of_a_known_channel():
    """Clips of two classes, each told rightly with probability p: exp of the mutual information, log 2 - H(p)."""
    p = 0.8
    logits = np.log(np.array([[p, 1 - p], [1 - p, p]] * 10))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    mean, std = inception_score.inception_score(logits, num_splits=2)
    assert mean == pytest.approx(2 * math.exp(-entropy))
    assert std == pytest.approx(0.0)
    # parts are scored apart: of one class each they say nothing
    sorted_by_class = np.repeat(logits[:2], 10, axis=0)
    assert inception_score.inception_score(sorted_by_class, num_splits=2)[0] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="cannot be split into 30 parts"):
        inception_score.inception_score(logits, num_splits=30)
