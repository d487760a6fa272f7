"""The named objectives: each is built, and its effective weight is that of the published formulas."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from configs import objectives as table
from vdm import build
from vdm.diffusion import objectives
from vdm.diffusion.objectives import Objective

LEVELS = np.linspace(-6.0, 6.0, 13)
SNR = np.exp(LEVELS)
SLOPE = np.pi / 2 - 2 * np.arctan(np.exp(-10.0))  # of the angle of Ho et al.'s cosine


def time_of_song(integral):
    """t at which B(t) = 0.1 t + 9.95 t^2, and beta there."""
    t = (-0.1 + np.sqrt(0.01 + 4 * 9.95 * integral)) / (2 * 9.95)
    return t, 0.1 + 19.9 * t


def vp_density(first):
    """Of log-SNR where t is uniform in (first, 1]: 1/|d log_snr/dt| at the t that has it."""
    integral = np.log1p(SNR**-1)  # alpha^2 = e^-B is sigmoid(log_snr)
    return -np.expm1(-integral) / time_of_song(integral)[1] / (1 - first)


def sub_vp_density(first):
    """The same for alpha = e^{-B/2}, sigma = 1 - e^-B."""
    root = SNR**0.5  # e^{-B/2} = root (1 - e^-B)
    kept = ((-1 / root + np.sqrt(1 / root**2 + 4)) / 2) ** 2
    return 1 / (time_of_song(-np.log(kept))[1] * (1 + 2 * kept / (1 - kept))) / (1 - first)


VP = vp_density(0.0)
FLOW_T = 1 / (1 + np.exp(LEVELS / 2))
CHAIN = 0.02  # they approach the SDE that they discretise at O(1/T), near the data last
EXPECTED = {  # and the tolerance
    "ddpm": (VP, CHAIN),
    "ddpm_vlb": (0.5, 2 * CHAIN),
    "ncsn": (999 / 1000 / (2 * np.log(5000.0)), 1e-3),
    "vp_sde": (vp_density(1e-5), 1e-3),
    "vp_sde_likelihood": (0.5 / (1 - 1e-5), 1e-3),
    "sub_vp_sde": (sub_vp_density(1e-5), 1e-3),
    "ve_sde": (1 / (2 * np.log(5000.0)) / (1 - 1e-5), 1e-3),
    "vlb": (0.5, 1e-3),
    "vdm": (0.5, 1e-3),
    "cosine_noise": (1 / (4 * SLOPE) / np.cosh(LEVELS / 2), 1e-3),
    "cosine_v": (np.exp(-LEVELS / 2) / (2 * SLOPE), 1e-3),
    "edm": ((1 + 1 / SNR) * norm.pdf(LEVELS, 2.4, 2.4), 2e-3),  # log_snr is -2 log(sigma/alpha); data_std is 1
    "min_snr": (VP * np.minimum(SNR, 5) / SNR, CHAIN),
    "p2": (VP / (1 + SNR), CHAIN),
    "sigmoid": (1 / (1 + SNR), 1e-3),
    "flow": (np.exp(-LEVELS / 2) / 2 / (1 - 1e-3), 1e-3),
    "rectified_flow": (  # logit t = -log_snr / 2, truncated at t = 1e-3
        (1 - FLOW_T) ** -2.0 * norm.pdf(LEVELS / 2) / 2 / norm.sf(np.log(1e-3 / 0.999)),
        1e-3,
    ),
}


@functools.cache
def built(name) -> Objective:
    config = table.get_config(name)
    return build.make_objective(config.objective, build.make_schedule(config.schedule))


@pytest.mark.feature("O11", "O18")
@pytest.mark.parametrize("name", EXPECTED)
def test_every_row_weighs_as_published(name):
    expected, tolerance = EXPECTED[name]
    got = objectives.effective_weight(built(name), jnp.asarray(LEVELS, jnp.float32))
    compared = slice(None) if tolerance < CHAIN else LEVELS <= 4.0
    np.testing.assert_allclose(got[compared], (expected * np.ones_like(LEVELS))[compared], rtol=tolerance)


@pytest.mark.feature("O11")
@pytest.mark.parametrize("name", table.ROWS)
def test_every_row_is_a_whole_experiment(name):
    experiment = build.experiment(table.get_config(name))
    assert experiment.config.name == f"objective_{name}"
    if name not in EXPECTED:  # those two change what EXPECTED cannot see
        assert experiment.objective.variance_weight or float(experiment.objective.schedule.alpha(jnp.ones(()))) == 0.0


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(ValueError, match="no objective is called 'dpm'; there are: ddpm, ddpm_vlb"):
        table.get_config("dpm")
