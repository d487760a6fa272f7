"""What is summed up between two lines of the log, against sums by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runtime import toy
from vdm.diffusion.objectives import Losses
from vdm.runtime import mesh as meshes
from vdm.runtime.step import NO_STEP, Window, train_step

PUSH = 0.5  # the gradient of every bias


def losses_of(values, log_snr, bias_term=lambda bias: PUSH * bias.sum()):
    """Losses of given values, with a gradient that is known and no value of its own."""

    def losses(params):
        term = bias_term(params["layer"]["bias"])
        loss = jnp.asarray(values, jnp.float32) + term - jax.lax.stop_gradient(term)
        return Losses(loss=loss, x0_error=loss, noise_error=loss), jnp.asarray(log_snr, jnp.float32)

    return losses


@pytest.fixture
def state():
    return toy.init_state(meshes.make_mesh(devices=jax.devices()[:1]))


def test_losses_are_averaged_within_buckets_of_log_snr_and_over_all(state):
    log_snr = [[-9.0, -9.0], [-6.5, -6.5], [-5.0, -3.2], [1.0, 1.5], [99.0, 99.0]]  # of two frames each
    window = Window.empty()
    state, window = train_step(state, window, losses_of([1.0, 2.0, 4.0, 8.0, 16.0], log_snr), toy.make_optimizer())
    state, window = train_step(state, window, losses_of([3.0, 3.0, 3.0, 3.0, 3.0], log_snr), toy.make_optimizer())
    scalars = window.scalars()
    losses = {name.removeprefix("train/loss "): value for name, value in scalars.items() if "loss " in name}
    assert losses == pytest.approx(
        {
            "log_snr below -6": (1 + 2 + 3 + 3) / 4,
            "log_snr -6 to -4": (4 + 3) / 2,  # of the clip's mean level
            "log_snr 0 to 2": (8 + 3) / 2,
            "log_snr above 6": (16 + 3) / 2,
        }
    )
    assert scalars["train/loss"] == pytest.approx((31 + 15) / 10)
    assert scalars["train/gradient_norm"] == pytest.approx(PUSH * np.sqrt(toy.CHANNELS))  # before clipping
    assert scalars["train/clipped_share"] == 1.0  # the norm of 2.45 is above 1
    assert int(window.first_bad_step) == NO_STEP


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_the_first_step_that_is_not_finite_is_named(bad, state):
    window = Window.empty()
    for step in range(5):
        broken = step in (2, 4)
        values = [np.nan if broken and bad == "loss" else 1.0]
        # the square root's slope is infinite at 0, where its value is 0
        root = (lambda bias: jnp.sqrt(0.0 * bias).sum()) if broken and bad == "gradient" else (lambda bias: 0 * bias[0])
        state, window = train_step(state, window, losses_of(values, [[0.0]], root), toy.make_optimizer())
    assert int(window.first_bad_step) == 2
