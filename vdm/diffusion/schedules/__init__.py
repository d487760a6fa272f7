"""Noise schedules: `schedule` says what one is and derives everything from it; families are continuous, chains have
steps, wrappers change another schedule, and `learned` is trained.
"""

from vdm.diffusion.schedules.chains import Chain, Discretised, chain, ddpm_cosine, ddpm_linear, discretised, smld
from vdm.diffusion.schedules.families import (
    EDM,
    VE,
    Cosine,
    Flow,
    SubVP,
    VPLinear,
    cosine,
    edm,
    flow,
    sub_vp,
    ve,
    vp_linear,
)
from vdm.diffusion.schedules.learned import Learned, between_fixed_ends, learned
from vdm.diffusion.schedules.schedule import (
    Schedule,
    diffusion_squared,
    drift,
    level,
    log_snr,
    log_snr_rate,
    prior_std,
    rates,
    time_of,
    time_of_unchecked,
)
from vdm.diffusion.schedules.wrappers import Shifted, ZeroTerminal, shifted, zero_terminal

__all__ = [
    "EDM",
    "VE",
    "Chain",
    "Cosine",
    "Discretised",
    "Flow",
    "Learned",
    "Schedule",
    "Shifted",
    "SubVP",
    "VPLinear",
    "ZeroTerminal",
    "between_fixed_ends",
    "chain",
    "cosine",
    "ddpm_cosine",
    "ddpm_linear",
    "diffusion_squared",
    "discretised",
    "drift",
    "edm",
    "flow",
    "learned",
    "level",
    "log_snr",
    "log_snr_rate",
    "prior_std",
    "rates",
    "shifted",
    "smld",
    "sub_vp",
    "time_of",
    "time_of_unchecked",
    "ve",
    "vp_linear",
    "zero_terminal",
]
