import numpy as np
import pytest

from vdm.metrics.paths import fit_reflecting_path, reflect

LOW, HIGH = np.array([2.0, 3.0]), np.array([13.0, 27.0])


def drawn_paths(count: int, num_frames: int, max_speed: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    start, velocity = rng.uniform(LOW, HIGH, (count, 2)), rng.uniform(-max_speed, max_speed, (count, 2))
    straight = start[:, None] - LOW + velocity[:, None] * np.arange(num_frames)[:, None]
    mirrored = (HIGH - LOW) / np.pi * np.arccos(np.cos(np.pi * straight / (HIGH - LOW)))
    return start, velocity, LOW + mirrored


def test_reflection_is_the_triangle_wave():
    u = np.linspace(-50, 50, 1001)
    np.testing.assert_allclose(reflect(u, 7.0), 7 / np.pi * np.arccos(np.cos(np.pi * u / 7)), atol=1e-6)


@pytest.mark.feature("M12")
@pytest.mark.parametrize("num_frames", [8, 16])
def test_exact_paths_are_found_with_their_bounces(num_frames):
    start, velocity, positions = drawn_paths(300, num_frames, max_speed=4.0)
    fitted_start, fitted_velocity, path = fit_reflecting_path(positions, LOW, HIGH, max_speed=4.5)
    np.testing.assert_allclose(path, positions, atol=1e-6)
    np.testing.assert_allclose(fitted_start, start, atol=1e-6)
    np.testing.assert_allclose(fitted_velocity, velocity, atol=1e-6)


@pytest.mark.feature("M12")
def test_the_fit_is_never_worse_than_the_truth_and_as_good_as_its_four_numbers_allow():
    _, velocity, positions = drawn_paths(400, 8, max_speed=2.0)
    noise = 0.1 * np.random.default_rng(1).standard_normal(positions.shape)
    _, fitted, path = fit_reflecting_path(positions + noise, LOW, HIGH, max_speed=4.0)
    squares = np.sum((path - positions - noise) ** 2, (1, 2))
    assert np.all(squares <= np.sum(noise**2, (1, 2)) + 1e-9)
    # 16 numbers, 4 fitted: the squares follow 0.01 times a chi-square of 12 degrees of freedom.
    assert squares.mean() / 0.01 == pytest.approx(12, rel=0.06)
    # Variance of a slope: sigma^2 / sum (t - mean t)^2; a start near a wall may flip its sign.
    error = np.abs(np.abs(fitted) - np.abs(velocity))
    assert np.sqrt(np.mean(error**2)) == pytest.approx(0.1 / np.sqrt(42), rel=0.1)


def test_the_result_of_a_clip_does_not_depend_on_its_batch():
    _, _, positions = drawn_paths(150, 8, max_speed=2.0)
    whole = fit_reflecting_path(positions, LOW, HIGH, max_speed=4.0)
    for part, value in zip(fit_reflecting_path(positions[99:101], LOW, HIGH, max_speed=4.0), whole, strict=True):
        np.testing.assert_allclose(part, value[99:101], atol=1e-9)
