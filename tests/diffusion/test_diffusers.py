"""Our schedules and samplers beside diffusers', whose runs experiments/speed/reference_schedulers.py has recorded.

Both sides have the same network, start and noises. Compared are the clips that the network is shown at every call, the
log-SNRs that it is told, and the clip at the end. Where the two differ, a row says from which call on; the row after it
makes the one change that the comment above them states, and agrees.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed import schedulers as theirs
from experiments.speed.reference import drawn
from vdm.diffusion import objectives, process, samplers, schedules, targets, times, weightings
from vdm.diffusion.guidance import thresholds
from vdm.diffusion.samplers import (
    Ancestral,
    Ddim,
    DpmSolver,
    Euler,
    Heun,
    LearnedAncestral,
    ReverseDiffusion,
    StochasticHeun,
    UniPC,
    grids,
)
from vdm.types import Prediction

VIDEO = (2, 1, 1, 1, 3)  # the shape of theirs as video: a pixel of theirs is a channel
PRECISE = 5e-12  # where both sides compute in float64

SCHEDULES = {
    "linear": schedules.ddpm_linear(1000, 1e-4, 0.02),
    "cosine": schedules.ddpm_cosine(1000, 0.008, 0.999),
    "short": schedules.ddpm_linear(6, 0.005, 0.6),
    "edm": schedules.edm(0.002, 80.0, 7.0),
    "flow": schedules.flow(),
    "smld": schedules.smld(5, 0.01, 50.0),
}
SCHEDULES |= {f"{name} zero": schedules.zero_terminal(SCHEDULES[name]) for name in ("linear", "cosine")}


def uniform(num_steps, t_min):
    return functools.partial(grids.uniform, num_steps=num_steps, t_min=t_min)


def handed(*numbers):
    """Times that no grid of ours gives."""
    return lambda schedule: jnp.asarray(np.array(numbers))


TRAILING, TRAILING_IN_6 = (functools.partial(grids.trailing, num_steps=count) for count in (4, 5))
LINSPACE, LINSPACE_IN_4, LINSPACE_IN_5 = (uniform(count, 1e-3) for count in (5, 3, 4))
MULTISTEP = uniform(4, 0.2008)  # theirs take the first n of n + 1 equally spaced steps
LEADING = handed(0.801, 0.601, 0.401, 0.201, 0.001)
KARRAS = functools.partial(grids.karras, num_steps=4, t_min=1e-3, rho=7.0)
EVEN_LOG_SNR = functools.partial(grids.log_snr, num_steps=4, t_min=1e-3)
WHOLE_RANGE = handed(1.0, 0.75, 0.5, 0.25, 0.0)  # grids stop before t = 0, which EDM alone can visit
FREE, DYNAMIC = thresholds.none(), thresholds.dynamic(99.5)
STATIC, NARROW = thresholds.static(-1.0, 1.0), thresholds.static(-0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class Row:
    """Ours beside a run of theirs.

    Attributes:
      schedule: one of SCHEDULES.
      grid: the times, of the schedule; None: those of the levels that theirs has visited.
      ends: what theirs ends with. "clip" is read off at the last level, "level" is the sample there, "noise" the sample
        that an inversion leaves at the first level.
      differs: the first call whose clip differs; the clip at the end counts as one more. None: none does.
      idle: a call of theirs before a step that goes nowhere, which ours does not make.
      published: how far theirs in float32 may be from ours in float64.
    """

    schedule: str
    sampler: Any
    grid: Callable | None
    threshold: thresholds.Threshold = FREE
    ends: str = "clip"
    differs: int | None = dataclasses.field(default=None, compare=False)
    idle: int | None = dataclasses.field(default=None, compare=False)
    published: float = dataclasses.field(default=1e-5, compare=False)


LOWER, UPPER, SECOND, SECOND_SDE = Ancestral(0.0), Ancestral(1.0), DpmSolver(2, False), DpmSolver(2, True)
ROWS = [
    ("ddpm small linear noise", Row("linear", LOWER, LINSPACE)),
    ("ddpm small cosine x0", Row("cosine", LOWER, LINSPACE)),
    ("ddpm small linear v", Row("linear", LOWER, LINSPACE)),
    # alpha is 5e-5 at the first level: float32 loses more than four digits of x0 there, on any side
    ("ddpm large cosine noise", Row("cosine", UPPER, LINSPACE, published=1e-3)),
    ("ddpm large linear x0", Row("linear", UPPER, LINSPACE)),
    ("ddpm large cosine v", Row("cosine", UPPER, LINSPACE)),
    ("ddpm learned range", Row("linear", LearnedAncestral(), LINSPACE)),
    ("ddpm clipped", Row("linear", LOWER, LINSPACE, NARROW)),
    ("ddpm dynamic, unbounded", Row("linear", LOWER, LINSPACE, DYNAMIC)),
    ("ddpm every step", Row("short", LOWER, uniform(5, 1 / 6))),
    # sample_max_value is 1, which makes of their dynamic threshold a static one
    ("ddpm dynamic", Row("linear", LOWER, LINSPACE, DYNAMIC, differs=5)),
    ("ddpm dynamic", Row("linear", LOWER, LINSPACE, STATIC)),
    # leading spacing starts below T, where there still is signal
    ("ddpm leading", Row("linear", LOWER, TRAILING, differs=0)),
    ("ddpm leading", Row("linear", LOWER, LEADING)),
    # noise is added in the last step where it starts above the first level: with a variance of 1e-20, or all of beta
    ("ddpm small trailing", Row("linear", LOWER, TRAILING, differs=5)),
    ("ddpm small trailing, quiet end", Row("linear", LOWER, TRAILING)),
    ("ddpm large trailing", Row("linear", UPPER, TRAILING, differs=5)),
    ("ddpm large trailing, quiet end", Row("linear", UPPER, TRAILING)),
    ("ddpm zero snr, quiet end", Row("linear zero", LOWER, TRAILING)),
    ("ddim eta 0", Row("linear", Ddim(0.0), TRAILING)),
    ("ddim eta 1 v", Row("linear", Ddim(1.0), TRAILING)),
    ("ddim eta 0.5 leading", Row("cosine", Ddim(0.5), LEADING)),
    ("ddim zero snr", Row("linear zero", Ddim(0.0), TRAILING)),
    # set_alpha_to_one=False: the end is the sample at the first level, noise and all
    ("ddim to the first level", Row("linear", Ddim(0.0), LEADING, differs=5)),
    ("ddim to the first level", Row("linear", Ddim(0.0), LEADING, ends="level", idle=4)),
    ("ddim eta 1 to the first level", Row("linear", Ddim(1.0), LEADING, ends="level", idle=4)),
    # a step goes down by T // n even where the next timestep is another one
    ("ddim linspace", Row("linear", Ddim(0.0), LINSPACE, differs=1)),
    ("ddim linspace, gaps", Row("linear", Ddim(0.0), LINSPACE)),
    ("ddim trailing in 6", Row("linear", Ddim(0.0), TRAILING_IN_6, differs=1)),
    ("ddim trailing in 6, gaps", Row("linear", Ddim(0.0), TRAILING_IN_6)),
    # x0 is clipped, but the noise that it is recombined with is not made to fit
    ("ddim clipped", Row("linear", Ddim(0.0), TRAILING, NARROW, differs=3)),
    ("ddim clipped, noise too", Row("linear", Ddim(0.0), TRAILING, NARROW)),
    # the network is told the level that a step goes to
    ("ddim inverse", Row("linear", Ddim(0.0), LEADING, ends="noise", differs=1, idle=0)),
    ("ddim inverse, own level", Row("linear", Ddim(0.0), LEADING, ends="noise", idle=0)),
    ("dpm order 1", Row("linear", DpmSolver(1, False), MULTISTEP)),
    ("dpm order 2", Row("linear", SECOND, MULTISTEP)),
    # of timesteps halfway between two steps theirs rounds to the even index from 0 to T - 1, ours from 1 to T
    ("dpm in 6", Row("linear", SECOND, uniform(5, 0.1675), differs=1)),
    ("dpm in 6", Row("linear", SECOND, handed(1.0, 0.833, 0.667, 0.501, 0.334, 0.167))),
    ("dpm order 2 cosine v", Row("cosine", SECOND, TRAILING)),
    ("dpm sde order 1", Row("linear", DpmSolver(1, True), MULTISTEP)),
    ("dpm sde order 2 cosine v", Row("cosine", SECOND_SDE, TRAILING)),
    # lambda_min_clipped leaves out the noisiest levels
    ("dpm clipped log-SNR", Row("cosine", SECOND, MULTISTEP, differs=0)),
    ("dpm clipped log-SNR", Row("cosine", SECOND, handed(0.996, 0.797, 0.598, 0.399, 0.2))),
    # lower_order_final: the last of fewer than 15 steps is of order 1
    ("dpm to sigma_min", Row("linear", SECOND, LINSPACE, ends="level", differs=5)),
    ("dpm to sigma_min, order 2", Row("linear", SECOND, LINSPACE, ends="level", published=1e-4)),
    # the levels lie between the chain's, and the network is told the nearest one of the chain
    ("dpm karras", Row("linear", SECOND, KARRAS, differs=1)),
    ("dpm karras, own level", Row("linear", SECOND, None, published=1e-4)),
    ("dpm even log-SNR", Row("linear", SECOND, EVEN_LOG_SNR, differs=1)),
    ("dpm even log-SNR, own level", Row("linear", SECOND, None, published=1e-4)),
    # zero terminal SNR is not 0 but 2^-24
    ("dpm zero snr", Row("linear zero", SECOND, TRAILING, differs=0)),
    ("dpm zero snr", Row("linear zero", SECOND, None)),
    # the first correction has the weight 1/2, ours phi_2(-h)/phi_1(-h)
    ("unipc", Row("linear", UniPC(), MULTISTEP, differs=2)),
    ("unipc, exact first", Row("linear", UniPC(), MULTISTEP)),
    ("unipc cosine v, exact first", Row("cosine", UniPC(), TRAILING)),
    ("heun", Row("linear", StochasticHeun(0.0), LINSPACE_IN_4, published=1e-4)),
    ("heun v trailing", Row("linear", StochasticHeun(0.0), TRAILING)),
    # timesteps lie between the chain's, with sigma interpolated; ours are moved to the nearest level
    ("heun between steps", Row("linear", StochasticHeun(0.0), LINSPACE_IN_5, differs=1)),
    ("heun between steps", Row("linear", StochasticHeun(0.0), None, published=1e-4)),
    ("euler", Row("linear", Ddim(0.0), LINSPACE_IN_4)),
    ("euler ancestral v trailing", Row("linear", LOWER, TRAILING)),
    ("edm euler", Row("edm", Ddim(0.0), WHOLE_RANGE)),
    ("edm dpm order 2", Row("edm", SECOND, WHOLE_RANGE)),
    ("edm dpm sde order 2", Row("edm", SECOND_SDE, WHOLE_RANGE)),
    ("flow euler", Row("flow", Euler(), LINSPACE_IN_5)),
    ("flow heun", Row("flow", Heun(), LINSPACE_IN_5)),
    # the network is told a sigma that is not quite the step's
    ("ve predictor", Row("smld", ReverseDiffusion(), uniform(4, 1 / 5), differs=1)),
    ("ve predictor, own level", Row("smld", ReverseDiffusion(), uniform(4, 1 / 5))),
]


@functools.cache
def stored():
    with np.load(theirs.FILE) as file:
        return {name: file[name] for name in file.files}


@functools.cache
def recorded():
    """Of every run: the clips shown [calls + 1, 2, 3], precise and published, log-SNRs, timesteps and start."""
    found, clips, calls = {}, 0, 0
    for name, told in json.loads(str(stored()["told"]))["runs"].items():
        count = len(told["timesteps"])
        shown = {kind: stored()[kind][clips : clips + count + 1] for kind in ("precise", "published")}
        found[name] = told | shown | {"log_snrs": stored()["log_snrs"][calls : calls + count]}
        clips, calls = clips + count + 1, calls + count
    return found


def drawn_video(name):
    return jnp.asarray(drawn(name, theirs.SHAPE).reshape(VIDEO), jnp.float64)


@functools.cache
def objective(target, data_std):
    made = targets.TARGETS[target](data_std)
    unit = weightings.WEIGHTINGS["unit"](data_std)
    return objectives.Objective(schedules.cosine(-20.0, 20.0), made, unit, times.Uniform(1e-3), data_std)


@functools.cache
def ours(row, target, data_std, log_snrs):
    """(clips shown [calls + 1, 2, 3], log-SNRs [calls]), the last clip being that at the end."""
    shown, told = [], []

    def predict(xt, log_snr):
        shown.append(xt)
        told.append(log_snr[0, 0])
        return Prediction(*theirs.network(jnp, xt, process.spread(log_snr), target, data_std))

    schedule = SCHEDULES[row.schedule]
    denoiser = row.threshold(objectives.denoiser(objective(target, data_std), predict))
    with jax.enable_x64(True):
        grid = row.grid(schedule) if row.grid else schedules.time_of(schedule, jnp.asarray(np.unique(log_snrs)))
        noises = [drawn_video(f"noise {index}") for index in range(grid.size)]
        started_at = grid[::-1] if row.ends == "noise" else grid
        start = samplers.prior(schedule, started_at, drawn_video("start"))
        with jax.disable_jit():  # the network meets numbers, and nothing is compiled for one run
            if row.ends == "noise":
                end = samplers.invert(denoiser, schedule, grid, start)
            else:
                carry = samplers.sample if row.ends == "clip" else samplers.integrate
                end = carry(denoiser, schedule, row.sampler, grid, start, lambda index: noises[int(index)])
    return np.stack([*shown, end]).reshape(-1, 2, 3), np.array(told)


@pytest.mark.parametrize(
    ("name", "row"), [pytest.param(*row, id=row[0] + " differs" * (row[1].differs is not None)) for row in ROWS]
)
def test_samplers_are_diffusers(name, row):
    run, record = theirs.RUNS[name], recorded()[name]
    of_levels = None if row.grid else tuple(record["log_snrs"])
    shown, log_snrs = ours(row, run.target, run.data_std, of_levels)
    precise, published, told = (
        array if row.idle is None else np.delete(array, row.idle, axis=0)
        for array in (record["precise"], record["published"], record["log_snrs"])
    )
    error = np.abs(shown - precise).max(axis=(1, 2))
    if row.differs is None:
        assert error.max() < PRECISE
        assert np.abs(shown - published).max() < row.published
        np.testing.assert_allclose(log_snrs, told, rtol=PRECISE, atol=PRECISE)
    else:
        assert error[: row.differs].max(initial=0.0) < PRECISE
        assert error[row.differs] > 10 * PRECISE


@pytest.mark.parametrize(("name", "grid"), [("dpm karras", KARRAS), ("dpm even log-SNR", EVEN_LOG_SNR)])
def test_rounded_levels_are_diffusers(name, grid):
    """The steps of the chain next to levels that lie between: those that its network is told."""
    with jax.enable_x64(True):
        steps = np.asarray(grid(SCHEDULES["linear"])) * 1000 - 1
    np.testing.assert_allclose(steps, recorded()[name]["timesteps"], atol=PRECISE)


STARTS = [  # theirs N(0, sigma^2) as ours, or with the variance of noisy data of unit variance, alpha^2 + sigma^2
    ("heun", "linear", 1.0, False),
    ("ddim zero snr", "linear zero", 1.0, False),
    ("flow euler", "flow", 1.0, False),
    ("ve predictor", "smld", 1.0, False),
    ("ddpm small linear noise", "linear", 1.0, True),
    ("ddpm leading", "linear", 0.801, True),
    ("edm euler", "edm", 1.0, True),
]


@pytest.mark.parametrize(("name", "schedule", "t", "of_data"), STARTS, ids=[row[0] for row in STARTS])
def test_starts_are_diffusers(name, schedule, t, of_data):
    with jax.enable_x64(True):
        ours = float(samplers.prior(SCHEDULES[schedule], jnp.asarray([t]), jnp.ones(VIDEO))[0, 0, 0, 0, 0])
        alpha = float(SCHEDULES[schedule].alpha(jnp.asarray(t)))
    scale = alpha if theirs.RUNS[name].scheduler.startswith("Heun") else 1.0  # its sample is xt / alpha
    start = scale * recorded()[name]["start"]
    assert start == pytest.approx(np.hypot(alpha, ours) if of_data else ours, rel=PRECISE)
    assert (abs(start - ours) > 1e-6) == of_data


@jax.jit
def alpha_and_sigma(schedule, t):
    return schedule.alpha(t), schedule.sigma(t)


@functools.cache
def parts(name, precise):
    """(alpha, sigma) of a chain at the stored steps, in float64 or float32."""
    with jax.enable_x64(precise):
        t = jnp.asarray((np.arange(0, 1000, theirs.EVERY) + 1) / 1000)
        return tuple(np.asarray(part) for part in alpha_and_sigma(SCHEDULES[name], t))


@pytest.mark.parametrize("name", theirs.SCHEDULES)
def test_schedules_are_diffusers(name):
    """Near data theirs takes 1 - alphas_cumprod in float32 and loses digits of sigma^2, which ours does not."""
    alpha, sigma = parts(name, True)
    alpha_32, sigma_32 = parts(name, False)
    precise, published = (stored()[f"{name}/{which}"] for which in ("precise", "published"))
    np.testing.assert_allclose(alpha**2, precise, rtol=1e-12)
    np.testing.assert_allclose(sigma**2, 1.0 - precise, rtol=5e-11)
    np.testing.assert_allclose(published, precise, rtol=2e-5)
    np.testing.assert_allclose(alpha_32**2, precise, rtol=1e-5)
    np.testing.assert_allclose(sigma_32**2, 1.0 - precise, rtol=1e-6)
    assert np.abs((1.0 - published) / (1.0 - precise) - 1.0).max() > 1e-4


def test_zero_terminal_snr_of_the_multistep_solvers_is_above_the_levels_before_it():
    """2^-24 stands in place of 0 at T, while the schedule has less than that at the three steps before."""
    multistep = stored()["linear zero/multistep"]
    np.testing.assert_allclose(multistep[:-1], parts("linear zero", True)[0][:-1] ** 2, rtol=1e-5)
    with jax.enable_x64(True):
        alpha = np.asarray(alpha_and_sigma(SCHEDULES["linear zero"], jnp.linspace(0.889, 1.0, 112))[0])
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
