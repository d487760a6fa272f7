"""What diffusers' schedulers give for stated predictions, for tests/diffusion, which have no PyTorch.

    .venv-peers/bin/python -m experiments.speed.reference_schedulers

`schedulers` states the runs and the network; starts and noises are drawn by numpy from their names. Stored is what the
network is shown at every call, the log-SNR there, and the clip at the end.

diffusers casts to float32 in many places, so every run is recorded twice: `published` as it is, on float32, and
`precise` with float32 read as float64 in the scheduler's module. In both the network knows the levels of the precise
run, as a network does that is told the number of a step.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import diffusers  # pyright: ignore[reportMissingImports]
import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from experiments.speed.reference import drawn
from experiments.speed.schedulers import EVERY, FILE, RUNS, SCHEDULES, SHAPE, Run, network


def levels(scheduler: Any, run: Run, index: int) -> tuple[float, float]:
    """(alpha, sigma) of the sample before a step, in the scheduler's own scale."""
    name, t = run.scheduler, scheduler.timesteps[index]
    if name.startswith("DDIMInverse"):
        gap = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        t = t if run.told == "arrival" else max(t - gap, 0)
    if name.startswith("DD") or run.told == "timestep":
        kept = float(scheduler.alphas_cumprod[int(t)])
        return kept**0.5, (1.0 - kept) ** 0.5
    if name == "ScoreSdeVeScheduler":
        own = scheduler.discrete_sigmas[int(t * (len(scheduler.timesteps) - 1))]
        return 1.0, float(own if run.told == "own" else scheduler.sigmas[index])
    sigma = float(scheduler.sigmas[index])
    if name.startswith("Flow"):
        return 1.0 - sigma, sigma
    alpha = 1.0 if name.startswith(("E", "Heun")) else (1.0 + sigma**2) ** -0.5
    return alpha, alpha * sigma


class _Double:
    """A module in which float32 is float64."""

    def __init__(self, module: ModuleType):
        self._module, self.float32 = module, module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextlib.contextmanager
def precision(module: Any, precise: bool) -> Iterator[None]:
    """Runs a scheduler's module as it is, or with float32 read as float64."""
    if not precise:
        yield
        return
    module.torch, module.np = _Double(torch), _Double(np)
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        module.torch, module.np = torch, np


class _Gap:
    """Stands where T // num_inference_steps is formed, and gives the gap to the next timestep."""

    def __init__(self, gap: int):
        self._gap = gap

    def __rfloordiv__(self, num_train_timesteps: int) -> int:
        return self._gap


def _correct_first_exactly(scheduler: Any) -> None:
    published = scheduler.multistep_uni_c_bh_update

    def corrected(*, this_sample: Any, order: int, **rest: Any) -> Any:
        with_half = published(this_sample=this_sample, order=order, **rest)
        if order > 1:
            return with_half
        before, now = (float(scheduler.sigmas[scheduler.step_index - i]) for i in (1, 0))
        h = np.log(before / now)
        weight = 1.0 / -np.expm1(-h) - 1.0 / h
        return this_sample + weight / 0.5 * (with_half - this_sample)

    scheduler.multistep_uni_c_bh_update = corrected


def recorded(run: Run, precise: bool, log_snrs: list[float]) -> tuple[np.ndarray, list[float], list[float], float]:
    """Runs a scheduler.

    Args:
      log_snrs: what the network knows at every call; empty: of the scheduler's own levels.

    Returns:
      (shown, log_snrs, timesteps, start): shown [calls + 1, 2, 3], the last one the clip at the end; start the standard
      deviation of noise that the scheduler asks for.
    """
    kind = getattr(diffusers, run.scheduler)
    module: Any = importlib.import_module(kind.__module__)
    dtype = torch.float64 if precise else torch.float32
    with precision(module, precise):
        module.randn_tensor = _drawing(run, dtype)
        scheduler = _prepared(kind, run)
        # all start from N(0, sigma^2) of their first level; the standard deviations that they ask for are stored apart
        x = levels(scheduler, run, 0)[1] * torch.from_numpy(drawn("start", SHAPE)).to(dtype)
        shown, known = [], []
        for index in range(len(scheduler.timesteps)):
            alpha, sigma = levels(scheduler, run, index)
            known.append(log_snrs[index] if log_snrs else float(2 * np.log(alpha / sigma)) if alpha else -np.inf)
            z, x = _step(scheduler, run, index, x, (alpha, sigma), known[-1])
            shown.append(z)
        shown.append(x.numpy())
        start = float(getattr(scheduler, "init_noise_sigma", 1.0))  # of flow's none: pipelines start from plain noise
        timesteps = scheduler.timesteps.tolist()
    return np.stack(shown).reshape(-1, *SHAPE[:2]), known, timesteps, start


def _drawing(run: Run, dtype: Any) -> Callable[..., Any]:
    """In place of diffusers' randn_tensor."""
    indices = iter(range(run.num_steps))

    def draw(shape: Any, **_: Any) -> Any:
        index = next(indices)
        noise = torch.from_numpy(drawn(f"noise {index}", SHAPE)).to(dtype)
        return 0.0 * noise if run.change == "quiet end" and index == run.num_steps - 1 else noise

    return draw


def _prepared(kind: Any, run: Run) -> Any:
    scheduler = kind(**run.options)
    scheduler.set_timesteps(run.num_steps)
    if run.scheduler == "ScoreSdeVeScheduler":
        scheduler.set_sigmas(run.num_steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    if run.change == "exact first":
        _correct_first_exactly(scheduler)
    return scheduler


def _step(
    scheduler: Any, run: Run, index: int, x: Any, level: tuple[float, float], log_snr: float
) -> tuple[np.ndarray, Any]:
    """One call of the network and one step: (shown, the sample after)."""
    t = scheduler.timesteps[index]
    alpha, sigma = level
    if run.scheduler.startswith(("Flow", "Score")):  # they show their networks xt as it is
        scaled = x / (alpha**2 + sigma**2) ** 0.5
    else:
        scaled = scheduler.scale_model_input(x, t)
    z = scaled.numpy().astype(np.float64)
    value, share = network(np, z, np.float64(log_snr), run.target, run.data_std)
    if "learned_range" in run.options.values():
        value = np.concatenate([value, 2.0 * share - 1.0], axis=1)
    prediction = torch.from_numpy(value).to(x.dtype)
    if run.change == "gaps":
        following = [*scheduler.timesteps.tolist(), -1][index + 1]
        scheduler.num_inference_steps = _Gap(int(t) - following)
    if run.scheduler != "ScoreSdeVeScheduler":
        return scaled.numpy(), scheduler.step(prediction, t, x, **run.step).prev_sample
    after = scheduler.step_pred(-prediction / sigma, t, x)
    is_last = index == len(scheduler.timesteps) - 1
    return scaled.numpy(), after.prev_sample_mean if is_last else after.prev_sample


def _schedules() -> dict[str, np.ndarray]:
    """alphas_cumprod of DDPM's schedules, and what its forward process and its velocity make of drawn arrays."""
    kind, made = diffusers.DDPMScheduler, {}
    module = importlib.import_module(kind.__module__)
    x0, noise = (torch.from_numpy(drawn(name, (3, 3))) for name in ("x0", "noise"))
    steps = torch.tensor([0, 500, 999])
    for name, options in SCHEDULES.items():
        for precise in (True, False):
            with precision(module, precise):
                scheduler = kind(**options)
                which = "precise" if precise else "published"
                made[f"{name}/{which}"] = scheduler.alphas_cumprod.numpy()[::EVERY]
                if precise:
                    made[f"{name}/noisy"] = scheduler.add_noise(x0.double(), noise.double(), steps).numpy()
                    made[f"{name}/v"] = scheduler.get_velocity(x0.double(), noise.double(), steps).numpy()
    multistep = diffusers.DPMSolverMultistepScheduler(**SCHEDULES["linear zero"])
    made["linear zero/multistep"] = multistep.alphas_cumprod.numpy()[::EVERY]
    return made


def main() -> None:
    told, precise, published, log_snrs = {}, [], [], []
    for name, run in RUNS.items():
        shown, known, timesteps, start = recorded(run, True, [])
        precise.append(shown)
        log_snrs.append(known)
        published.append(recorded(run, False, known)[0])
        told[name] = {"timesteps": timesteps, "start": start}
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    arrays: dict[str, Any] = {
        "precise": np.concatenate(precise),
        "published": np.concatenate(published),
        "log_snrs": np.concatenate(log_snrs),
        "told": json.dumps({"versions": versions, "runs": told}),
        **_schedules(),
    }
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
