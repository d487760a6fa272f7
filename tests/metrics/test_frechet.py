"""The Frechet distance against closed forms, an independent square root, and its own bias."""

import numpy as np
import pytest
import scipy.linalg

from vdm.metrics import frechet, jackknife, moments
from vdm.metrics.moments import Moments


def gaussian(mean, covariance, count=1_000) -> Moments:
    """Moments whose unbiased covariance is given."""
    return Moments(count, np.asarray(mean, float), np.asarray(covariance, float) * (count - 1))


def random_covariance(rng, d):
    factor = rng.normal(size=(d, d))
    return factor @ factor.T / d


@pytest.mark.feature("M1")
def test_closed_forms():
    rng = np.random.default_rng(0)
    covariance, shift = random_covariance(rng, 6), rng.normal(size=6)
    start = gaussian(np.zeros(6), covariance)
    assert frechet.distance(start, start) == pytest.approx(0, abs=1e-12)
    assert frechet.distance(start, gaussian(shift, covariance)) == pytest.approx(np.sum(shift**2), abs=1e-12)
    # (C 4C)^(1/2) = 2 C: tr(C) + 4 tr(C) - 4 tr(C)
    assert frechet.distance(start, gaussian(np.zeros(6), 4 * covariance)) == pytest.approx(np.trace(covariance))
    # covariances that commute: the sum over axes of squared differences of standard deviations
    one, two = rng.uniform(0.1, 2, 6), rng.uniform(0.1, 2, 6)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    aligned = [gaussian(np.zeros(6), turn @ np.diag(std**2) @ turn.T) for std in (one, two)]
    assert frechet.distance(*aligned) == pytest.approx(np.sum((one - two) ** 2))


@pytest.mark.feature("M1")
def test_agrees_with_another_square_root_and_is_symmetric():
    rng = np.random.default_rng(1)
    one, two = random_covariance(rng, 12), random_covariance(rng, 12)
    root = scipy.linalg.sqrtm(one @ two)  # of Schur's kind: another algorithm, of a matrix that is not symmetric
    expected = np.trace(one) + np.trace(two) - 2 * np.trace(root).real
    first, second = gaussian(np.zeros(12), one), gaussian(np.zeros(12), two)
    assert frechet.distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet.distance(second, first) == pytest.approx(expected, rel=1e-9)


@pytest.mark.feature("M1")
def test_fewer_vectors_than_dimensions():
    """Two sets of 3 vectors in 400 dimensions, in planes that share one direction, have a distance known by hand."""
    first = np.zeros((3, 400))
    second = np.zeros((3, 400))
    first[:, :2] = [[1, 0], [-1, 0], [0, 0]]  # variance 1 along axis 0
    second[:, 1:3] = [[2, 0], [-2, 0], [0, 0]]  # variance 4 along axis 1: no direction is shared
    assert frechet.distance(moments.of(first), moments.of(second)) == pytest.approx(5, abs=1e-9)
    along = np.zeros((3, 400))
    along[:, 0] = [2, -2, 0]  # the same direction, twice the deviation
    assert frechet.distance(moments.of(first), moments.of(along)) == pytest.approx(1, abs=1e-9)
    assert frechet.distance(moments.of(first), moments.of(first + 3.0)) == pytest.approx(400 * 9, rel=1e-12)


def test_the_estimators_differ_by_their_divisor():
    features = np.random.default_rng(2).normal(size=(5, 3)), np.random.default_rng(3).normal(size=(5, 3))
    centred = [moments.of(part - part.mean(0)) for part in features]
    unbiased, biased = (frechet.distance(*centred, estimator) for estimator in ("N-1", "N"))
    assert biased == pytest.approx(unbiased * 4 / 5)


@pytest.mark.feature("M2")
def test_moments_do_not_depend_on_the_parts():
    features = np.random.default_rng(4).normal(size=(101, 7)).astype(np.float32) + 100.0
    whole = moments.of(features)
    parts = moments.total(moments.of(part) for part in np.array_split(features, 9))
    assert parts.count == 101
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(parts.scatter, whole.scatter, rtol=0, atol=1e-10)
    covariance = whole.scatter / whole.divisor("N-1")
    np.testing.assert_allclose(covariance, np.cov(features.astype(np.float64), rowvar=False), atol=1e-12)


@pytest.mark.feature("M1")
def test_the_bias_falls_as_one_over_the_number_and_is_extrapolated_away():
    """Samples of two Gaussians whose distance is known: 16 equal axes, one of them shifted by 1."""
    rng = np.random.default_rng(5)
    d, shift = 16, np.eye(16)[0]
    estimates, finite = [], []
    for repeat in range(10):
        first, second = rng.normal(size=(512, 1, d)), rng.normal(size=(512, 1, d)) + shift
        curve = frechet.bias_curve(first, second, seed=repeat)
        assert curve.sizes == (512, 410, 341, 293, 256)
        estimates.append(curve.at_infinity)
        finite.append(curve.means[0])
    assert np.mean(finite) - 1 > 0.1  # biased
    standard_error = np.std(estimates, ddof=1) / np.sqrt(10)
    assert abs(np.mean(estimates) - 1) < 4 * standard_error < 0.15


@pytest.mark.feature("M1")
def test_published_bias_at_four_sizes():
    """Two samples of one Gaussian of 32 dimensions: 9.4, 2.3, 0.60 and 0.15 at N = 64, 256, 1024 and 4096."""
    rng = np.random.default_rng(6)
    for count, expected in ((64, 9.4), (256, 2.3), (1024, 0.60), (4096, 0.15)):
        found = [frechet.distance(*(moments.of(rng.normal(size=(count, 32))) for _ in range(2))) for _ in range(8)]
        assert np.mean(found) == pytest.approx(expected, rel=0.08)


def test_no_extrapolation_where_the_curve_is_no_line():
    rng = np.random.default_rng(7)
    curve = frechet.bias_curve(rng.normal(size=(60, 1, 16)), rng.normal(size=(60, 1, 16)), seed=0)
    assert curve.at_infinity is None


@pytest.mark.parametrize(("numbers", "times"), [((40, 40), 1 + 4 * 8), ((40, 41), 5 * 8)])
def test_what_is_one_subset_is_compared_once(numbers, times, monkeypatch):
    rng = np.random.default_rng(10)
    first, second = (rng.normal(size=(number, 2, 3)) for number in numbers)
    plain, calls = frechet.distance, []
    monkeypatch.setattr(frechet, "distance", lambda *given: calls.append(given) or plain(*given))
    curve = frechet.bias_curve(first, second, seed=0)
    assert len(calls) == times and [call[0].count for call in calls[-8:]] == [2 * 20] * 8
    if numbers == (40, 40):
        assert curve.means[0] == pytest.approx(plain(frechet.of_clips(first), frechet.of_clips(second)), rel=1e-9)


@pytest.mark.feature("M1")
def test_the_standard_error_is_that_of_repeated_samples():
    """Held to the spread of 60 fresh pairs of samples, in a case where the distance is mostly real, and one where it is
    mostly bias."""
    rng = np.random.default_rng(8)
    for shift in (0.0, 1.0):
        pairs = [(rng.normal(size=(200, 1, 8)) + shift, rng.normal(size=(160, 1, 8))) for _ in range(60)]
        found = [frechet.distance(*map(frechet.of_clips, pair)) for pair in pairs]
        said = np.mean([frechet.standard_error(*pair) for pair in pairs[:20]])
        assert said == pytest.approx(np.std(found, ddof=1), rel=0.35)


@pytest.mark.feature("M1")
def test_the_standard_error_knows_that_frames_of_a_clip_are_alike_and_that_clips_come_class_by_class():
    """100 clips of 8 nearly equal frames, of 10 classes in turn (as samples are drawn): classes of their own means."""
    rng = np.random.default_rng(9)
    means = 2 * rng.normal(size=(10, 4))

    def clips():
        own = means[np.arange(100) % 10] + 0.5 * rng.normal(size=(100, 4))
        return own[:, None] + 0.1 * rng.normal(size=(100, 8, 4))

    pairs = [(clips(), clips()) for _ in range(60)]
    found = [frechet.distance(*map(frechet.of_clips, pair)) for pair in pairs]
    said = np.mean([frechet.standard_error(*pair) for pair in pairs[:10]])
    # between too little (groups of single frames: 8 times) and what a sample without fixed classes would vary by
    assert np.std(found, ddof=1) < said < 4 * np.std(found, ddof=1)


def test_refusals():
    features = np.ones((4, 3))
    with pytest.raises(ValueError, match="1 of 4 feature vectors hold NaN or infinity, the first in row 2"):
        moments.of(np.where(np.arange(4)[:, None] == 2, np.nan, features))
    with pytest.raises(ValueError, match="different extractors"):
        frechet.distance(moments.of(features), moments.of(np.ones((4, 2))))
    with pytest.raises(ValueError, match="needs 2 feature vectors; given 1"):
        frechet.distance(moments.of(features[:1]), moments.of(features))
    with pytest.raises(ValueError, match="at least 20 clips"):
        frechet.standard_error(features[:, None], features[:, None])
    assert [len(rows) for rows in jackknife.groups(41)] == [3] + [2] * 19
