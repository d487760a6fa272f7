"""Our schedules and samplers beside diffusers', whose runs experiments/speed/reference_schedulers.py has recorded.

experiments/speed/schedulers_rows.py says which run is compared with what of ours, and where the two differ; how far
they are apart there is that of the record from which experiments/speed/schedulers.md is written.
"""

import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed import schedulers as theirs
from experiments.speed import schedulers_ours as ours
from experiments.speed.reference import drawn
from experiments.speed.schedulers_ours import SCHEDULES, parts, recorded, stored
from experiments.speed.schedulers_rows import EVEN_LOG_SNR, KARRAS, PARTS, ROWS, STARTS
from experiments.speed.schedulers_table import record
from vdm.diffusion import process, schedules, targets

PRECISE = 5e-12  # where both sides compute in float64
RECORD = record()


def to_two_digits(number):
    return pytest.approx(number, rel=0.02)


@pytest.mark.parametrize("key", ROWS)
def test_samplers_are_diffusers(key):
    (_, row), stated = ROWS[key], RECORD["rows"][key]
    found = ours.distances(*ROWS[key])
    if row.differs is None:
        assert max(found["float64"], found["log_snrs"], stated["float64"], stated["log_snrs"]) < PRECISE
        assert found["float32"] < row.published
        assert found["float32"] == to_two_digits(stated["float32"])
    else:
        assert max(found["before"], stated["before"]) < PRECISE
        assert found["first"] > 10 * PRECISE
        assert found["first"] == to_two_digits(stated["first"])
        assert found["largest"] == to_two_digits(stated["largest"])


def test_the_record_is_of_these_runs():
    assert RECORD["versions"] == ours.told()["versions"]
    assert RECORD["rows"].keys() == ROWS.keys()
    assert {name for name, _ in ROWS.values()} == theirs.RUNS.keys()
    assert RECORD["numbers"] == to_two_digits(ours.numbers())


def test_causes_name_every_difference():
    for part in PARTS:
        named = {field for _, field, _, _ in string.Formatter().parse(part.cause) if field}
        assert named - RECORD["numbers"].keys() == {name for name, row in part.rows if row.differs is not None}


@pytest.mark.parametrize(("name", "grid"), [("dpm karras", KARRAS), ("dpm even log-SNR", EVEN_LOG_SNR)])
def test_rounded_levels_are_diffusers(name, grid):
    """The steps of the chain next to levels that lie between: those that its network is told."""
    with jax.enable_x64(True):
        steps = np.asarray(grid(SCHEDULES["linear"])) * 1000 - 1
    np.testing.assert_allclose(steps, recorded()[name]["timesteps"], atol=PRECISE)


@pytest.mark.parametrize("name", STARTS)
def test_starts_are_diffusers(name):
    """Theirs N(0, sigma^2) as ours, or with the variance of noisy data of unit variance, alpha^2 + sigma^2."""
    schedule, t, of_data = STARTS[name]
    found = ours.deviations(name, schedule, t)
    assert found["theirs"] == pytest.approx(found["of data" if of_data else "ours"], rel=PRECISE)
    assert (abs(found["theirs"] - found["ours"]) > 1e-6) == of_data
    assert RECORD["starts"][name] == pytest.approx(found, rel=1e-7)


@pytest.mark.parametrize("name", theirs.SCHEDULES)
def test_schedules_are_diffusers(name):
    """Near data theirs takes 1 - alphas_cumprod in float32 and loses digits of sigma^2, which ours does not."""
    found, stated = ours.relative_errors(name), RECORD["schedules"][name]
    for each in (found, stated):
        assert each["ours in float64, alpha^2"] < 1e-12
        assert each["ours in float64, sigma^2"] < 5e-11
        assert each["ours, alpha^2"] < 1e-5
        assert each["ours, sigma^2"] < 1e-6
    assert found["theirs, alpha^2"] < 2e-5
    assert found["theirs, sigma^2"] > 1e-4
    for what in ("theirs, alpha^2", "theirs, sigma^2"):
        assert found[what] == to_two_digits(stated[what])


def test_zero_terminal_snr_of_the_multistep_solvers_is_above_the_levels_before_it():
    """2^-24 stands in place of 0 at T, while the schedule has less than that at the three steps before."""
    multistep = stored()["linear zero/multistep"]
    np.testing.assert_allclose(multistep[:-1], parts("linear zero", True)[0][:-1] ** 2, rtol=1e-5)
    with jax.enable_x64(True):
        alpha = np.asarray(ours.alpha_and_sigma(SCHEDULES["linear zero"], jnp.linspace(0.889, 1.0, 112))[0])
    assert multistep[-1] == 2.0**-24
    np.testing.assert_array_equal(alpha**2 < multistep[-1], np.arange(112) >= 108)
    assert alpha[-1] == 0.0


@jax.jit
def noisy_and_velocity(schedule, t, x0, noise):
    level = schedules.level(schedule, t)
    return process.diffuse(x0, noise, level), targets.value_of(targets.V, x0, noise, level)


@pytest.mark.parametrize("name", theirs.SCHEDULES)
def test_noisy_clips_and_velocities_are_diffusers(name):
    """Of three clips at the steps 0, 500 and 999."""
    with jax.enable_x64(True):
        x0, noise = (jnp.asarray(drawn(each, (3, 3)).reshape(3, 1, 1, 1, 3), jnp.float64) for each in ("x0", "noise"))
        noisy, v = noisy_and_velocity(SCHEDULES[name], jnp.asarray([[0.001], [0.501], [1.0]]), x0, noise)
    np.testing.assert_allclose(np.reshape(noisy, (3, 3)), stored()[f"{name}/noisy"], atol=PRECISE)
    np.testing.assert_allclose(np.reshape(v, (3, 3)), stored()[f"{name}/v"], atol=PRECISE)
