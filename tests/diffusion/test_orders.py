"""Orders of convergence of every sampler, in float64: of the deterministic ones to the exact map of the flow, of the
stochastic ones to the variances of the marginal (weak order), both exact on independent pixels.
"""

import jax
import numpy as np
import pytest

from tests.diffusion.affine import final_variance, flow_errors, marginal, order
from vdm.diffusion import schedules
from vdm.diffusion.samplers import (
    Ancestral,
    Ddim,
    DpmSolver,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    ReverseDiffusion,
    StochasticHeun,
    UniPC,
)

VP = schedules.vp_linear(0.1, 20.0)
DDPM = schedules.ddpm_linear(1000, 1e-4, 0.02)

DETERMINISTIC = {  # sampler, order, numbers of steps, tolerance of the order
    "S5-euler": (Euler(), 1, (400, 800), 0.1),
    "S5-heun": (Heun(), 2, (100, 200), 0.12),
    "S2-ddim": (Ddim(0.0), 1, (250, 500), 0.1),
    "S5-dpm_solver_1": (DpmSolver(1, False), 1, (250, 500), 0.1),
    "S5-dpm_solver_2": (DpmSolver(2, False), 2, (200, 400), 0.15),
    "S5-unipc": (UniPC(), 3, (400, 800), 0.4),
    "O15-stochastic_heun": (StochasticHeun(0.0), 2, (100, 200), 0.12),
}


@pytest.mark.parametrize(
    ("sampler", "expected", "sizes", "tolerance"),
    [pytest.param(*row, id=name, marks=pytest.mark.feature(name.split("-")[0])) for name, row in DETERMINISTIC.items()],
)
def test_deterministic_samplers_converge_at_their_order(sampler, expected, sizes, tolerance):
    with jax.enable_x64(True):
        errors = flow_errors(sampler, VP, sizes, t_min=0.05)
    np.testing.assert_allclose(order(sizes, errors), expected, atol=tolerance)
    assert np.abs(errors[-1]).max() < 0.03


STOCHASTIC = {  # sampler, weak order, numbers of steps, tolerance
    "S1-lower": (Ancestral(0.0), 1, (400, 800), 0.15),
    "S1-upper": (Ancestral(1.0), 1, (400, 800), 0.15),
    "S9-between": (Ancestral(0.3), 1, (400, 800), 0.15),
    "S2-full_eta": (Ddim(1.0), 1, (400, 800), 0.15),
    "S4-euler_maruyama": (EulerMaruyama(), 1, (1000, 2000), 0.15),
    "S4-reverse_diffusion": (ReverseDiffusion(), 1, (1000, 2000), 0.15),
    "S5-dpm_solver_sde_1": (DpmSolver(1, True), 1, (400, 800), 0.15),
    "S5-dpm_solver_sde_2": (DpmSolver(2, True), 2, (400, 800), 0.25),
}


@pytest.mark.parametrize(
    ("sampler", "expected", "sizes", "tolerance"),
    [pytest.param(*row, id=name, marks=pytest.mark.feature(name.split("-")[0])) for name, row in STOCHASTIC.items()],
)
def test_stochastic_samplers_converge_at_their_weak_order(sampler, expected, sizes, tolerance):
    """The variance they end with goes to the marginal's as steps are added."""
    with jax.enable_x64(True):
        ends = [final_variance(sampler, VP, np.linspace(1.0, 1e-2, size + 1), marginal(VP, 1.0) ** 2) for size in sizes]
    errors = np.asarray(ends) / marginal(VP, 1e-2) ** 2 - 1.0
    np.testing.assert_allclose(order(sizes, errors), expected, atol=tolerance)
    assert np.abs(errors[-1]).max() < 0.06


@pytest.mark.feature("S2")
def test_subsequences_of_a_chain_err_in_proportion_to_their_stride():
    """The full chain, and every tenth level of it."""
    with jax.enable_x64(True):
        errors = np.abs(flow_errors(Ddim(0.0), DDPM, (95, 950), t_min=0.05))
    assert errors[1].max() < 2e-3
    np.testing.assert_allclose(errors[0] / errors[1], 10.0, rtol=0.3)


@pytest.mark.feature("S6")
def test_a_corrector_repairs_a_coarse_predictor():
    times, start = np.linspace(1.0, 1e-2, 51), marginal(VP, 1.0) ** 2
    with jax.enable_x64(True):
        alone = final_variance(ReverseDiffusion(), VP, times, start)
        corrected = final_variance(PredictorCorrector("reverse_diffusion", 0.16, 4), VP, times, start, draws=5)
    errors = [np.abs(end / marginal(VP, 1e-2) ** 2 - 1.0) for end in (alone, corrected)]
    assert np.all(errors[1] < 0.8 * errors[0]), errors
