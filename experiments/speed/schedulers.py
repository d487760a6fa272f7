"""Runs of diffusers' schedulers, and the network that they and our samplers are handed: what both sides of the
comparison read. `reference_schedulers` records theirs, tests/diffusion/test_diffusers.py carries out ours.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).parents[2] / "tests" / "diffusion" / "arrays" / "diffusers.npz"
SHAPE = (2, 3, 1, 1)  # [clips, pixels, 1, 1]: to diffusers images of one pixel with three channels
MEAN, VARIANCE, TILT = 1.2, 0.09, 0.3  # of the data: N(+-MEAN, VARIANCE) in the ratio e^TILT : e^-TILT
EDM_STD = 0.5  # sigma_data of the EDM schedulers
EVERY = 9  # every 9th step of a schedule is stored: 0, 9, ..., 999


@dataclasses.dataclass(frozen=True)
class Run:
    """A scheduler of diffusers from its first step to its last.

    Attributes:
      scheduler: its class.
      options: of its constructor.
      target: what the network predicts, by our name; theirs stands in `options`.
      step: further arguments of `step`.
      num_steps: given to set_timesteps.
      told: the level that the network knows. "own": of the sample that it is shown; "timestep": of the chain's step in
        `timesteps`; "arrival": of the level that an inverse step goes to; "continuous": of the sigmas of the VE
        scheduler, which are not the discrete ones that it steps between.
      change: one thing that is done otherwise than in diffusers. "gaps": a DDIM step goes to the next timestep, not
        down by T // num_inference_steps; "quiet end": DDPM adds no noise in the last step; "exact first": the first
        correction of UniPC has the weight phi_2(-h)/phi_1(-h), not 1/2.
    """

    scheduler: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    target: str = "noise"
    step: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_steps: int = 5
    told: str = "own"
    change: str = ""

    @property
    def data_std(self) -> float:
        return EDM_STD if self.scheduler.startswith("EDM") else 1.0


_COSINE = {"beta_schedule": "squaredcos_cap_v2"}
_X0, _V = {"prediction_type": "sample"}, {"prediction_type": "v_prediction"}
_LEADING, _TRAILING, _LINSPACE = ({"timestep_spacing": name} for name in ("leading", "trailing", "linspace"))
_LARGE = {"variance_type": "fixed_large"}
_ZERO = {"rescale_betas_zero_snr": True, **_V, **_TRAILING}
_DDPM_LINEAR = {"beta_start": 1e-4, "beta_end": 0.02}  # Heun's defaults are Stable Diffusion's
_FREE, _NARROW = {"clip_sample": False}, {"clip_sample_range": 0.5}
_EVEN = {**_FREE, **_LINSPACE}
_TO_FIRST = {"set_alpha_to_one": False, **_FREE, **_LEADING}
_SDE, _SIGMA_MIN = {"algorithm_type": "sde-dpmsolver++"}, {"final_sigmas_type": "sigma_min"}


def _chain_runs() -> dict[str, Run]:
    ddpm, ddim, inverse = "DDPMScheduler", "DDIMScheduler", "DDIMInverseScheduler"
    short = {"num_train_timesteps": 6, "beta_start": 0.005, "beta_end": 0.6}
    large, small = {**_LARGE, **_FREE, **_TRAILING}, {**_FREE, **_TRAILING}
    return {
        "ddpm small linear noise": Run(ddpm, _EVEN, num_steps=6),
        "ddpm small cosine x0": Run(ddpm, {**_COSINE, **_X0, **_EVEN}, "x0", num_steps=6),
        "ddpm small linear v": Run(ddpm, {**_V, **_EVEN}, "v", num_steps=6),
        "ddpm large cosine noise": Run(ddpm, {**_COSINE, **_LARGE, **_EVEN}, num_steps=6),
        "ddpm large linear x0": Run(ddpm, {**_X0, **_LARGE, **_EVEN}, "x0", num_steps=6),
        "ddpm large cosine v": Run(ddpm, {**_COSINE, **_LARGE, **_V, **_EVEN}, "v", num_steps=6),
        "ddpm learned range": Run(ddpm, {"variance_type": "learned_range", **_EVEN}, num_steps=6),
        "ddpm clipped": Run(ddpm, {**_NARROW, **_LINSPACE}, num_steps=6),
        "ddpm dynamic": Run(ddpm, {"thresholding": True, **_LINSPACE}, num_steps=6),
        "ddpm dynamic, unbounded": Run(ddpm, {"thresholding": True, "sample_max_value": 1e9, **_LINSPACE}, num_steps=6),
        "ddpm every step": Run(ddpm, {**short, **_FREE}, num_steps=6),
        "ddpm leading": Run(ddpm, {**_FREE, **_LEADING}),
        "ddpm small trailing": Run(ddpm, small),
        "ddpm small trailing, quiet end": Run(ddpm, small, change="quiet end"),
        "ddpm large trailing": Run(ddpm, large),
        "ddpm large trailing, quiet end": Run(ddpm, large, change="quiet end"),
        "ddpm zero snr, quiet end": Run(ddpm, {**_FREE, **_ZERO}, "v", change="quiet end"),
        "ddim eta 0": Run(ddim, {**_FREE, **_TRAILING}),
        "ddim eta 1 v": Run(ddim, {**_FREE, **_V, **_TRAILING}, "v", {"eta": 1.0}),
        "ddim eta 0.5 leading": Run(ddim, {**_COSINE, **_FREE, **_LEADING}, step={"eta": 0.5}),
        "ddim to the first level": Run(ddim, _TO_FIRST),
        "ddim eta 1 to the first level": Run(ddim, _TO_FIRST, step={"eta": 1.0}),
        "ddim linspace": Run(ddim, _EVEN, num_steps=6),
        "ddim linspace, gaps": Run(ddim, _EVEN, num_steps=6, change="gaps"),
        "ddim trailing in 6": Run(ddim, {**_FREE, **_TRAILING}, num_steps=6),
        "ddim trailing in 6, gaps": Run(ddim, {**_FREE, **_TRAILING}, num_steps=6, change="gaps"),
        "ddim clipped": Run(ddim, {**_NARROW, **_TRAILING}),
        "ddim clipped, noise too": Run(ddim, {**_NARROW, **_TRAILING}, step={"use_clipped_model_output": True}),
        "ddim zero snr": Run(ddim, {**_FREE, **_ZERO}, "v"),
        "ddim inverse": Run(inverse, _TO_FIRST, told="arrival"),
        "ddim inverse, own level": Run(inverse, _TO_FIRST),
    }


def _multistep_runs() -> dict[str, Run]:
    dpm, unipc = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
    cosine_v = {**_COSINE, **_V, **_TRAILING}
    return {
        "dpm order 1": Run(dpm, {"solver_order": 1}),
        "dpm order 2": Run(dpm),
        "dpm in 6": Run(dpm, num_steps=6),
        "dpm order 2 cosine v": Run(dpm, cosine_v, "v"),
        "dpm sde order 1": Run(dpm, {**_SDE, "solver_order": 1}),
        "dpm sde order 2 cosine v": Run(dpm, {**_SDE, **cosine_v}, "v"),
        "dpm clipped log-SNR": Run(dpm, {**_COSINE, "lambda_min_clipped": -5.1}),
        "dpm to sigma_min": Run(dpm, _SIGMA_MIN),
        "dpm to sigma_min, order 2": Run(dpm, {**_SIGMA_MIN, "lower_order_final": False}),
        "dpm karras": Run(dpm, {"use_karras_sigmas": True}, told="timestep"),
        "dpm karras, own level": Run(dpm, {"use_karras_sigmas": True}),
        "dpm even log-SNR": Run(dpm, {"use_lu_lambdas": True}, told="timestep"),
        "dpm even log-SNR, own level": Run(dpm, {"use_lu_lambdas": True}),
        "dpm zero snr": Run(dpm, _ZERO, "v"),
        "unipc": Run(unipc),
        "unipc, exact first": Run(unipc, change="exact first"),
        "unipc cosine v, exact first": Run(unipc, cosine_v, "v", change="exact first"),
    }


def _sigma_runs() -> dict[str, Run]:
    heun, euler, edm = "HeunDiscreteScheduler", "EulerDiscreteScheduler", "EDMDPMSolverMultistepScheduler"
    ve = "ScoreSdeVeScheduler", {"sigma_max": 50.0}, "score"
    return {
        "heun": Run(heun, _DDPM_LINEAR, num_steps=4),
        "heun v trailing": Run(heun, {**_DDPM_LINEAR, **_V, **_TRAILING}, "v"),
        "heun between steps": Run(heun, _DDPM_LINEAR),
        "euler": Run(euler, num_steps=4),
        "euler ancestral v trailing": Run("EulerAncestralDiscreteScheduler", {**_V, **_TRAILING}, "v"),
        "edm euler": Run("EDMEulerScheduler", target="edm"),
        "edm dpm order 2": Run(edm, target="edm"),
        "edm dpm sde order 2": Run(edm, _SDE, "edm"),
        "flow euler": Run("FlowMatchEulerDiscreteScheduler", target="flow"),
        "flow heun": Run("FlowMatchHeunDiscreteScheduler", target="flow"),
        "ve predictor": Run(*ve, told="continuous"),
        "ve predictor, own level": Run(*ve),
    }


RUNS = _chain_runs() | _multistep_runs() | _sigma_runs()
SCHEDULES = {"linear": {}, "cosine": _COSINE, "linear zero": _ZERO, "cosine zero": _COSINE | _ZERO}


def network(xp: ModuleType, shown: Any, log_snr: Any, target: str, data_std: float) -> tuple[Any, Any]:
    """What a perfect network says of a clip at unit variance.

    Args:
      xp: numpy or jax.numpy.
      shown: xt / sqrt(alpha^2 data_std^2 + sigma^2).
      log_snr: of a shape that broadcasts with it.

    Returns:
      (value, share): the target's, and where the log variance of a step stands between the lower one (0) and the upper
      one (1).
    """
    alpha, sigma = 1.0 / xp.sqrt(1.0 + xp.exp(-log_snr)), 1.0 / xp.sqrt(1.0 + xp.exp(log_snr))
    x = shown * xp.sqrt((alpha * data_std) ** 2 + sigma**2)
    variance = VARIANCE * alpha**2 + sigma**2
    x0 = (VARIANCE * alpha * x + sigma**2 * MEAN * xp.tanh(MEAN * alpha * x / variance + TILT)) / variance
    noise = (x - alpha * x0) / sigma
    values = {
        "x0": lambda: x0,
        "noise": lambda: noise,
        "score": lambda: noise,
        "v": lambda: alpha * noise - sigma * x0,
        "flow": lambda: noise - x0,
        "edm": lambda: _edm_output(xp, x0, x / alpha, sigma / alpha, data_std),
    }
    return values[target](), 0.5 + 0.5 * xp.tanh(x)


def _edm_output(xp: ModuleType, x0: Any, x: Any, sigma: Any, data_std: float) -> Any:
    """F of Karras et al. 2022, equation 7, where x = x0 + sigma noise."""
    total = sigma**2 + data_std**2
    return (x0 - data_std**2 / total * x) / (sigma * data_std / xp.sqrt(total))
