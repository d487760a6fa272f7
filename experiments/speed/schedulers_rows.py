"""What is compared with diffusers' schedulers, in the lines of the table of schedulers.md, and why the two differ.

Where they do, a row says from which call on; a row beside it makes the one change that the cause names, and agrees.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from experiments.speed.schedulers_ours import Row
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


@dataclasses.dataclass(frozen=True)
class Part:
    """A line of the table.

    Attributes:
      theirs, ours: by their names.
      cause: of what differs, and whose it is; {name} stands for the size of the difference in the run of that name, or
        for one of `schedulers_ours.numbers`.
      rows: (run of theirs, ours).
      float32: where no row says how far the two are apart.
    """

    theirs: str
    ours: str
    cause: str
    source: str = ""
    rows: tuple[tuple[str, Row], ...] = ()
    float32: str = ""


def uniform(num_steps: int, t_min: float) -> Callable:
    return functools.partial(grids.uniform, num_steps=num_steps, t_min=t_min)


def handed(*numbers: float) -> Callable:
    """Times that no grid of ours gives."""
    return lambda schedule: jnp.asarray(np.array(numbers))


TRAILING, TRAILING_IN_6 = (functools.partial(grids.trailing, num_steps=count) for count in (4, 5))
LINSPACE, LINSPACE_IN_4, LINSPACE_IN_5 = (uniform(count, 1e-3) for count in (5, 3, 4))
MULTISTEP = uniform(4, 0.2008)  # theirs take the first n of n + 1 equally spaced steps
MULTISTEP_IN_6 = handed(1.0, 0.833, 0.667, 0.501, 0.334, 0.167)
LEADING = handed(0.801, 0.601, 0.401, 0.201, 0.001)
WITHOUT_NOISIEST = handed(0.996, 0.797, 0.598, 0.399, 0.2)
KARRAS = functools.partial(grids.karras, num_steps=4, t_min=1e-3, rho=7.0)
EVEN_LOG_SNR = functools.partial(grids.log_snr, num_steps=4, t_min=1e-3)
WHOLE_RANGE = handed(1.0, 0.75, 0.5, 0.25, 0.0)  # grids stop before t = 0, which EDM alone can visit
OF_STEPS = uniform(4, 1 / 5)
DYNAMIC, STATIC, NARROW = thresholds.dynamic(99.5), thresholds.static(-1.0, 1.0), thresholds.static(-0.5, 0.5)
LOWER, UPPER, SECOND, SECOND_SDE = Ancestral(0.0), Ancestral(1.0), DpmSolver(2, False), DpmSolver(2, True)

_DDPM = (
    Part(
        "`betas`, `alphas_cumprod`: linear, squaredcos_cap_v2, `rescale_betas_zero_snr`",
        "`ddpm_linear`, `ddpm_cosine`, `zero_terminal`",
        "Theirs: `1 - alphas_cumprod` in float32 has lost digits of sigma^2 near data",
        float32="below",
    ),
    Part("`add_noise`, `get_velocity`", "`process.diffuse`, target `v`", "nothing", float32="not compared"),
    Part(
        "DDPM, `fixed_small`, `fixed_large`; noise, x0, v; linspace",
        "`ancestral`, `variance_interpolation` 0, 1; `uniform`",
        "nothing",
        "Ho et al. 2020",
        (
            ("ddpm small linear noise", Row("linear", LOWER, LINSPACE)),
            ("ddpm small cosine x0", Row("cosine", LOWER, LINSPACE)),
            ("ddpm small linear v", Row("linear", LOWER, LINSPACE)),
            ("ddpm large linear x0", Row("linear", UPPER, LINSPACE)),
            ("ddpm large cosine v", Row("cosine", UPPER, LINSPACE)),
            ("ddpm every step", Row("short", LOWER, uniform(5, 1 / 6))),
        ),
    ),
    Part(
        "... noise on cosine",
        "the same",
        "Neither's: alpha is {alpha of cosine at T} at T, where float32 loses more than four digits of x0 on any side",
        rows=(("ddpm large cosine noise", Row("cosine", UPPER, LINSPACE, published=1e-3)),),
    ),
    Part(
        "DDPM, trailing (or any last timestep above 0)",
        "`ancestral`, `trailing`",
        "**Theirs, a bug**: noise is added in the last step, for the test is t > 0 and not whether the step ends at "
        "the clip. `fixed_small`: of variance 1e-20 (the clip of the variance; {ddpm small trailing} here). "
        "`fixed_large`: of all of beta = 1 - alpha_bar, {ddpm large trailing} here in 5 steps, standard deviation "
        "{sigma of linear at T/50} in 50",
        "Ho et al. 2020, algorithm 2: z = 0 in the last step",
        (
            ("ddpm small trailing", Row("linear", LOWER, TRAILING, differs=5)),
            ("ddpm small trailing, quiet end", Row("linear", LOWER, TRAILING)),
            ("ddpm large trailing", Row("linear", UPPER, TRAILING, differs=5)),
            ("ddpm large trailing, quiet end", Row("linear", UPPER, TRAILING)),
            ("ddpm zero snr, quiet end", Row("linear zero", LOWER, TRAILING)),
        ),
    ),
    Part(
        "DDPM `learned_range`",
        "`learned_ancestral`",
        "nothing; share = (theirs + 1)/2",
        "Nichol and Dhariwal 2021",
        (("ddpm learned range", Row("linear", LearnedAncestral(), LINSPACE)),),
    ),
    Part(
        "DDPM `clip_sample`",
        "`threshold.static`",
        "nothing",
        rows=(("ddpm clipped", Row("linear", LOWER, LINSPACE, NARROW)),),
    ),
    Part(
        "DDPM `thresholding`",
        "`threshold.dynamic`",
        "Theirs: the default `sample_max_value` = 1 makes it a static clip to [-1, 1] ({ddpm dynamic}); with a large "
        "one they agree",
        "Saharia et al. 2022",
        (
            ("ddpm dynamic", Row("linear", LOWER, LINSPACE, DYNAMIC, differs=5)),
            ("ddpm dynamic", Row("linear", LOWER, LINSPACE, STATIC)),
            ("ddpm dynamic, unbounded", Row("linear", LOWER, LINSPACE, DYNAMIC)),
        ),
    ),
    Part(
        "leading spacing (DDPM's and DDIM's default)",
        "times handed over; we have no such grid",
        "Theirs: starts below T (timestep 800 in 5 steps) from N(0, I), where there still is signal ({ddpm leading} "
        "from `trailing`)",
        "Lin et al. 2023, table 2",
        (
            ("ddpm leading", Row("linear", LOWER, TRAILING, differs=0)),
            ("ddpm leading", Row("linear", LOWER, LEADING)),
        ),
    ),
)

_DDIM = (
    Part(
        "DDIM, eta 0, 0.5, 1; zero SNR",
        "`ddim`, `trailing`",
        "nothing",
        "Song, Meng and Ermon 2021",
        (
            ("ddim eta 0", Row("linear", Ddim(0.0), TRAILING)),
            ("ddim eta 1 v", Row("linear", Ddim(1.0), TRAILING)),
            ("ddim eta 0.5 leading", Row("cosine", Ddim(0.5), LEADING)),
            ("ddim zero snr", Row("linear zero", Ddim(0.0), TRAILING)),
        ),
    ),
    Part(
        "DDIM `set_alpha_to_one=False`",
        "`ddim` by `integrate`",
        "Theirs ends with the sample at the first level, noise and all, ours reads x0 off ({ddim to the first level} "
        "apart)",
        rows=(
            ("ddim to the first level", Row("linear", Ddim(0.0), LEADING, differs=5)),
            ("ddim to the first level", Row("linear", Ddim(0.0), LEADING, ends="level", idle=4)),
            ("ddim eta 1 to the first level", Row("linear", Ddim(1.0), LEADING, ends="level", idle=4)),
        ),
    ),
    Part(
        "DDIM linspace; trailing where n does not divide T",
        "`ddim`, `uniform`, `trailing`",
        "**Theirs, a bug** (diffusers#9261, #11347, #12633): a step goes down by T // n even where the next timestep "
        "is another one; {ddim linspace} and {ddim trailing in 6} here. Agrees when told the gap to the next timestep",
        rows=(
            ("ddim linspace", Row("linear", Ddim(0.0), LINSPACE, differs=1)),
            ("ddim linspace, gaps", Row("linear", Ddim(0.0), LINSPACE)),
            ("ddim trailing in 6", Row("linear", Ddim(0.0), TRAILING_IN_6, differs=1)),
            ("ddim trailing in 6, gaps", Row("linear", Ddim(0.0), TRAILING_IN_6)),
        ),
    ),
    Part(
        "DDIM `clip_sample`",
        "`ddim`, `threshold.static`",
        "Theirs: x0 is clipped and recombined with a noise that does not fit it ({ddim clipped}); "
        "`use_clipped_model_output=True` agrees",
        rows=(
            ("ddim clipped", Row("linear", Ddim(0.0), TRAILING, NARROW, differs=3)),
            ("ddim clipped, noise too", Row("linear", Ddim(0.0), TRAILING, NARROW)),
        ),
    ),
    Part(
        "DDIMInverse",
        "`samplers.invert`",
        "Theirs: the network is told the level that the step goes to ({ddim inverse}), ours where the sample is. "
        "Theirs makes a first step that goes nowhere",
        "Song, Meng and Ermon 2021; Dhariwal and Nichol 2021, appendix F",
        (
            ("ddim inverse", Row("linear", Ddim(0.0), LEADING, ends="noise", differs=1, idle=0)),
            ("ddim inverse, own level", Row("linear", Ddim(0.0), LEADING, ends="noise", idle=0)),
        ),
    ),
)

_MULTISTEP = (
    Part(
        "DPMSolverMultistep `dpmsolver++` 1, 2 (midpoint), `sde-dpmsolver++` 1, 2",
        "`dpm_solver`, `uniform`, `trailing`",
        "Neither's: halves are rounded to the even index, theirs of 0..T-1, ours of 1..T: a level one step apart in "
        "6 steps ({dpm in 6})",
        "Lu et al. 2022",
        (
            ("dpm order 1", Row("linear", DpmSolver(1, False), MULTISTEP)),
            ("dpm order 2", Row("linear", SECOND, MULTISTEP)),
            ("dpm in 6", Row("linear", SECOND, uniform(5, 0.1675), differs=1)),
            ("dpm in 6", Row("linear", SECOND, MULTISTEP_IN_6)),
            ("dpm order 2 cosine v", Row("cosine", SECOND, TRAILING)),
            ("dpm sde order 1", Row("linear", DpmSolver(1, True), MULTISTEP)),
            ("dpm sde order 2 cosine v", Row("cosine", SECOND_SDE, TRAILING)),
        ),
    ),
    Part(
        '... `final_sigmas_type="sigma_min"`',
        "`dpm_solver` by `integrate`",
        "Theirs by choice: `lower_order_final` makes the last of fewer than 15 steps one of order 1 "
        "({dpm to sigma_min}); ours stays of order 2. No effect where the end is sigma = 0",
        rows=(
            ("dpm to sigma_min", Row("linear", SECOND, LINSPACE, ends="level", differs=5)),
            ("dpm to sigma_min, order 2", Row("linear", SECOND, LINSPACE, ends="level", published=1e-4)),
        ),
    ),
    Part(
        "... `lambda_min_clipped`",
        "times handed over",
        "Theirs by choice: the noisiest levels are left out ({dpm clipped log-SNR})",
        rows=(
            ("dpm clipped log-SNR", Row("cosine", SECOND, MULTISTEP, differs=0)),
            ("dpm clipped log-SNR", Row("cosine", SECOND, WITHOUT_NOISIEST)),
        ),
    ),
    Part(
        "... `use_karras_sigmas`, `use_lu_lambdas`",
        "`karras`, `log_snr`; times handed over",
        "Theirs: levels lie between the chain's and the network is told the nearest step of it; ours moves the level "
        "itself there ({dpm karras}, {dpm even log-SNR}). The steps told are those of our grids",
        "Karras et al. 2022",
        (
            ("dpm karras", Row("linear", SECOND, KARRAS, differs=1)),
            ("dpm karras, own level", Row("linear", SECOND, None, published=1e-4)),
            ("dpm even log-SNR", Row("linear", SECOND, EVEN_LOG_SNR, differs=1)),
            ("dpm even log-SNR, own level", Row("linear", SECOND, None, published=1e-4)),
        ),
    ),
    Part(
        "... `rescale_betas_zero_snr`",
        "`zero_terminal`; levels handed over",
        "**Theirs**: alpha_bar is 2^-24 at T, not 0, and smaller at the three steps before T: log-SNR rises there. "
        "Ours starts without signal ({dpm zero snr} apart)",
        "Lin et al. 2023",
        (
            ("dpm zero snr", Row("linear zero", SECOND, TRAILING, differs=0)),
            ("dpm zero snr", Row("linear zero", SECOND, None)),
        ),
    ),
    Part(
        "UniPC `bh2`, order 2",
        "`unipc`",
        "Ours: the first correction has the exact weight phi_2(-h)/phi_1(-h) = 1/2 + h/12 + ..., theirs "
        '"a simplified version", 1/2 ({unipc}). What it weighs is of order h^2, so the two differ by order h^3',
        "Zhao et al. 2023",
        (
            ("unipc", Row("linear", UniPC(), MULTISTEP, differs=2)),
            ("unipc, exact first", Row("linear", UniPC(), MULTISTEP)),
            ("unipc cosine v, exact first", Row("cosine", UniPC(), TRAILING)),
        ),
    ),
)

_SIGMAS = (
    Part(
        "Heun",
        "`stochastic_heun`, churn 0",
        "Theirs: timesteps between the chain's, with sigma interpolated linearly; ours are moved to the nearest level "
        "({heun between steps}). No churn in theirs",
        "Karras et al. 2022",
        (
            ("heun", Row("linear", StochasticHeun(0.0), LINSPACE_IN_4, published=1e-4)),
            ("heun v trailing", Row("linear", StochasticHeun(0.0), TRAILING)),
            ("heun between steps", Row("linear", StochasticHeun(0.0), LINSPACE_IN_5, differs=1)),
            ("heun between steps", Row("linear", StochasticHeun(0.0), None, published=1e-4)),
        ),
    ),
    Part(
        "EulerDiscrete",
        "`ddim`, eta 0",
        "nothing",
        rows=(("euler", Row("linear", Ddim(0.0), LINSPACE_IN_4)),),
    ),
    Part(
        "EulerAncestral",
        "`ancestral`",
        "nothing",
        rows=(("euler ancestral v trailing", Row("linear", LOWER, TRAILING)),),
    ),
    Part(
        "EDMEuler, EDMDPMSolverMultistep (both forms)",
        "`edm` schedule, target `edm`; `ddim`, `dpm_solver`",
        "Ours: grids do not reach t = 0, which is sigma_min; times handed over",
        "Karras et al. 2022",
        (
            ("edm euler", Row("edm", Ddim(0.0), WHOLE_RANGE)),
            ("edm dpm order 2", Row("edm", SECOND, WHOLE_RANGE)),
            ("edm dpm sde order 2", Row("edm", SECOND_SDE, WHOLE_RANGE)),
        ),
    ),
    Part(
        "FlowMatchEuler, FlowMatchHeun",
        "`flow`; `euler`, `heun`",
        "nothing; their network is shown xt, ours xt at unit variance",
        rows=(
            ("flow euler", Row("flow", Euler(), LINSPACE_IN_5)),
            ("flow heun", Row("flow", Heun(), LINSPACE_IN_5)),
        ),
    ),
    Part(
        "ScoreSdeVe, predictor",
        "`smld`; `reverse_diffusion`",
        "Theirs: the network is told a sigma that is not quite the step's (`sampling_eps`; {ve predictor})",
        "Song et al. 2021",
        (
            ("ve predictor", Row("smld", ReverseDiffusion(), OF_STEPS, differs=1)),
            ("ve predictor, own level", Row("smld", ReverseDiffusion(), OF_STEPS)),
        ),
    ),
    Part(
        "`init_noise_sigma`",
        "`samplers.prior`",
        "DDPM, DDIM and EDM start with the variance of noisy data of unit variance, Heun on linspace, "
        "flow and VE with sigma^2 as ours. Ours for EDM is the paper's; DDPM's paper has 1",
        "Karras et al. 2022; Ho et al. 2020",
        float32="below, in float64",
    ),
)

PARTS = _DDPM + _DDIM + _MULTISTEP + _SIGMAS
ROWS = {name + " differs" * (row.differs is not None): (name, row) for part in PARTS for name, row in part.rows}
STARTS = {  # run -> schedule, time, whether theirs has the variance of noisy data of unit variance, alpha^2 + sigma^2
    "heun": ("linear", 1.0, False),
    "ddim zero snr": ("linear zero", 1.0, False),
    "flow euler": ("flow", 1.0, False),
    "ve predictor": ("smld", 1.0, False),
    "ddpm small linear noise": ("linear", 1.0, True),
    "ddpm leading": ("linear", 0.801, True),
    "edm euler": ("edm", 1.0, True),
}
