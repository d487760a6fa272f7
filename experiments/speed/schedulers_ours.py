"""Our side of the comparison with diffusers' schedulers: our samplers' runs, and how far they are from those recorded.

Both sides have the same network, start and noises. Compared are the clips that the network is shown at every call, the
log-SNRs that it is told, and the clip at the end.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed.reference import drawn
from experiments.speed.schedulers import EVERY, FILE, RUNS, SHAPE, network
from vdm.diffusion import objectives, process, samplers, schedules, targets, times, weightings
from vdm.diffusion.guidance import thresholds
from vdm.diffusion.schedules import Schedule
from vdm.types import Prediction

VIDEO = (2, 1, 1, 1, 3)  # the shape of theirs as video: a pixel of theirs is a channel
SCHEDULES: dict[str, Schedule] = {
    "linear": schedules.ddpm_linear(1000, 1e-4, 0.02),
    "cosine": schedules.ddpm_cosine(1000, 0.008, 0.999),
    "short": schedules.ddpm_linear(6, 0.005, 0.6),
    "edm": schedules.edm(0.002, 80.0, 7.0),
    "flow": schedules.flow(),
    "smld": schedules.smld(5, 0.01, 50.0),
}
SCHEDULES |= {f"{name} zero": schedules.zero_terminal(SCHEDULES[name]) for name in ("linear", "cosine")}

FREE = thresholds.none()


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


@functools.cache
def stored() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return {name: file[name] for name in file.files}


def told() -> dict[str, Any]:
    """Theirs: `versions`, and of `runs` the timesteps and the standard deviation of the start."""
    return json.loads(str(stored()["told"]))


@functools.cache
def recorded() -> dict[str, dict[str, Any]]:
    """Of every run: the clips shown [calls + 1, 2, 3], precise and published, log-SNRs, timesteps and start."""
    found, clips, calls = {}, 0, 0
    for name, run in told()["runs"].items():
        count = len(run["timesteps"])
        shown = {kind: stored()[kind][clips : clips + count + 1] for kind in ("precise", "published")}
        found[name] = run | shown | {"log_snrs": stored()["log_snrs"][calls : calls + count]}
        clips, calls = clips + count + 1, calls + count
    return found


def distances(name: str, row: Row) -> dict[str, float]:
    """The largest distances between any two numbers.

    Returns:
      Where theirs and ours are to differ, `before`: of the clips before the first one that does, `first`: of that one,
      and `largest`: of all. Else `float64` and `float32`: of theirs in that precision from ours in float64, and
      `log_snrs`, which are relative where they are above 1.
    """
    run, record = RUNS[name], recorded()[name]
    of_levels = None if row.grid else tuple(record["log_snrs"])
    shown, log_snrs = _ours(row, run.target, run.data_std, of_levels)
    precise, published, known = (
        array if row.idle is None else np.delete(array, row.idle, axis=0)
        for array in (record["precise"], record["published"], record["log_snrs"])
    )
    error = np.abs(shown - precise).max(axis=(1, 2))
    if row.differs is not None:
        before, first = error[: row.differs].max(initial=0.0), error[row.differs]
        return {"before": float(before), "first": float(first), "largest": float(error.max())}
    same = log_snrs == known  # infinite ones too
    apart = np.abs(np.where(same, 0.0, log_snrs) - np.where(same, 0.0, known)) / np.maximum(1.0, np.abs(known))
    float32 = np.abs(shown - published).max()
    return {"float64": float(error.max()), "float32": float(float32), "log_snrs": float(apart.max())}


@functools.cache
def _ours(row: Row, target: str, data_std: float, log_snrs: tuple[float, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """(clips shown [calls + 1, 2, 3], log-SNRs [calls]), the last clip being that at the end."""
    shown, told = [], []

    def predict(xt: Any, log_snr: Any) -> Prediction:
        shown.append(xt)
        told.append(log_snr[0, 0])
        return Prediction(*network(jnp, xt, process.spread(log_snr), target, data_std))

    schedule = SCHEDULES[row.schedule]
    denoiser = row.threshold(objectives.denoiser(_objective(target, data_std), predict))
    with jax.enable_x64(True):
        grid = row.grid(schedule) if row.grid else schedules.time_of(schedule, jnp.asarray(np.unique(log_snrs)))
        noises = [_drawn_video(f"noise {index}") for index in range(grid.size)]
        started_at = grid[::-1] if row.ends == "noise" else grid
        start = samplers.prior(schedule, started_at, _drawn_video("start"))
        with jax.disable_jit():  # the network meets numbers, and nothing is compiled for one run
            if row.ends == "noise":
                end = samplers.invert(denoiser, schedule, grid, start)
            else:
                carry = samplers.sample if row.ends == "clip" else samplers.integrate
                end = carry(denoiser, schedule, row.sampler, grid, start, lambda index: noises[int(index)])
    return np.stack([*shown, end]).reshape(-1, 2, 3), np.array(told)


@functools.cache
def _objective(target: str, data_std: float) -> objectives.Objective:
    made = targets.TARGETS[target](data_std)
    unit = weightings.WEIGHTINGS["unit"](data_std)
    return objectives.Objective(schedules.cosine(-20.0, 20.0), made, unit, times.Uniform(1e-3), data_std)


def _drawn_video(name: str) -> jax.Array:
    return jnp.asarray(drawn(name, SHAPE).reshape(VIDEO), jnp.float64)


def deviations(name: str, schedule: str, t: float) -> dict[str, float]:
    """Of the noise that a run starts from: theirs, ours, and of noisy data of unit variance there."""
    with jax.enable_x64(True):
        ours = float(samplers.prior(SCHEDULES[schedule], jnp.asarray([t]), jnp.ones(VIDEO))[0, 0, 0, 0, 0])
        alpha = float(SCHEDULES[schedule].alpha(jnp.asarray(t)))
    scale = alpha if RUNS[name].scheduler.startswith("Heun") else 1.0  # its sample is xt / alpha
    return {"theirs": scale * recorded()[name]["start"], "ours": ours, "of data": float(np.hypot(alpha, ours))}


@jax.jit
def alpha_and_sigma(schedule: Schedule, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    return schedule.alpha(t), schedule.sigma(t)


@functools.cache
def parts(name: str, precise: bool) -> tuple[np.ndarray, ...]:
    """(alpha, sigma) of a chain at the stored steps, in float64 or float32."""
    with jax.enable_x64(precise):
        t = jnp.asarray((np.arange(0, 1000, EVERY) + 1) / 1000)
        return tuple(np.asarray(part) for part in alpha_and_sigma(SCHEDULES[name], t))


def relative_errors(name: str) -> dict[str, float]:
    """Of a chain's alpha^2 and sigma^2, from theirs in float64: ours in float64, theirs and ours in float32."""
    precise, published = (stored()[f"{name}/{which}"] for which in ("precise", "published"))
    errors = {"theirs, alpha^2": _off(published, precise), "theirs, sigma^2": _off(1.0 - published, 1.0 - precise)}
    for which, in_float64 in {"ours": False, "ours in float64": True}.items():
        alpha, sigma = (part.astype(np.float64) for part in parts(name, in_float64))
        errors[f"{which}, alpha^2"] = _off(alpha**2, precise)
        errors[f"{which}, sigma^2"] = _off(sigma**2, 1.0 - precise)
    return errors


def _off(found: np.ndarray, truth: np.ndarray) -> float:
    """The largest relative error; 0 is to be 0."""
    return float((np.abs(found - truth) / np.where(truth == 0.0, np.finfo(np.float64).tiny, truth)).max())


def numbers() -> dict[str, float]:
    """Further ones that schedulers.md names: of the runs, and in causes."""
    steps = [run.num_steps for run in RUNS.values()]
    rms = [float(np.sqrt(np.mean(run["precise"] ** 2))) for run in recorded().values()]
    with jax.enable_x64(True):
        end, last = SCHEDULES["cosine"].alpha(jnp.asarray(1.0)), SCHEDULES["linear"].sigma(jnp.asarray(1 / 50))
    return {
        "runs": len(RUNS),
        "fewest steps": min(steps),
        "most steps": max(steps),
        "smallest rms": min(rms),
        "largest rms": max(rms),
        "alpha of cosine at T": float(end),
        "sigma of linear at T/50": float(last),
    }
