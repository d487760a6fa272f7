import math

import pytest

from vdm.metrics.intervals import wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (3, 7), (7, 7), (102, 256), (1, 10_000)])
def test_the_limits_are_where_the_score_test_just_rejects(successes, trials):
    low, high = wilson(successes, trials)
    share = successes / trials
    assert 0 <= low <= share <= high <= 1 and low < high
    for limit in {low, high} - {0.0, 1.0}:
        assert abs(share - limit) == pytest.approx(1.96 * math.sqrt(limit * (1 - limit) / trials))


def test_published_example():
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I: 81 of 263, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_other_shares_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, trials)
