"""Samplers: step rules, the time grids and the one loop that carries them. `loop` tells how they fit."""

from vdm.diffusion.samplers.ancestral import Ancestral, LearnedAncestral
from vdm.diffusion.samplers.ddim import Ddim
from vdm.diffusion.samplers.edm import StochasticHeun
from vdm.diffusion.samplers.flow import AdaptiveFlow, Euler, EulerMaruyama, Heun, ReverseDiffusion
from vdm.diffusion.samplers.langevin import AnnealedLangevin, PredictorCorrector
from vdm.diffusion.samplers.loop import (
    Multistep,
    Sampler,
    Solver,
    Step,
    check_start,
    integrate,
    invert,
    num_evaluations,
    prior,
    sample,
)
from vdm.diffusion.samplers.multistep import DpmSolver, UniPC
from vdm.diffusion.samplers.replacement import Replacement

__all__ = [
    "AdaptiveFlow",
    "Ancestral",
    "AnnealedLangevin",
    "Ddim",
    "DpmSolver",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "LearnedAncestral",
    "Multistep",
    "PredictorCorrector",
    "Replacement",
    "ReverseDiffusion",
    "Sampler",
    "Solver",
    "Step",
    "StochasticHeun",
    "UniPC",
    "check_start",
    "integrate",
    "invert",
    "num_evaluations",
    "prior",
    "sample",
]
