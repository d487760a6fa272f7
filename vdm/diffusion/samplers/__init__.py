"""Samplers: step rules (ancestral, ddim, flow), the time grids and the one loop that carries them. `loop` tells how
they fit.
"""

from vdm.diffusion.samplers.ancestral import Ancestral
from vdm.diffusion.samplers.ddim import Ddim
from vdm.diffusion.samplers.flow import Euler, EulerMaruyama, Heun
from vdm.diffusion.samplers.loop import Step, integrate, num_evaluations, prior, sample

__all__ = [
    "Ancestral",
    "Ddim",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Step",
    "integrate",
    "num_evaluations",
    "prior",
    "sample",
]
