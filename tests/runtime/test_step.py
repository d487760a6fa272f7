"""What is summed up between two lines of the log, against sums by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runtime import toy
from vdm.diffusion.objectives import Losses
from vdm.runtime import mesh as meshes
from vdm.runtime.step import NO_STEP, Window, microbatches, train_step

PUSH = 0.5  # the gradient of every bias


def losses_of(values, log_snr, bias_term=lambda bias: PUSH * bias.sum()):
    """Losses of given values, with a gradient that is known and no value of its own."""

    def losses(params, examples):
        term = bias_term(params["layer"]["bias"])
        loss = jnp.asarray(values, jnp.float32) + term - jax.lax.stop_gradient(term)
        return Losses(loss=loss, x0_error=loss, noise_error=loss), jnp.asarray(log_snr, jnp.float32)

    return losses


def one_step(state, window, losses_of, batch_size):
    return train_step(state, window, losses_of, (), toy.make_optimizer(), importance=jnp.ones(batch_size))


@pytest.fixture
def state():
    return toy.init_state(meshes.make_mesh(devices=jax.devices()[:1]))


def test_losses_are_averaged_within_buckets_of_log_snr_and_over_all(state):
    log_snr = [[-9.0, -9.0], [-6.5, -6.5], [-5.0, -3.2], [1.0, 1.5], [99.0, 99.0]]  # of two frames each
    window = Window.empty()
    state, window = one_step(state, window, losses_of([1.0, 2.0, 4.0, 8.0, 16.0], log_snr), 5)
    state, window = one_step(state, window, losses_of([3.0, 3.0, 3.0, 3.0, 3.0], log_snr), 5)
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
        state, window = one_step(state, window, losses_of(values, [[0.0]], root), 1)
    assert int(window.first_bad_step) == 2


def test_a_microbatch_has_every_count_th_row():
    parts = microbatches({"row": jnp.arange(12), "pair": jnp.arange(24).reshape(12, 2)}, 3)
    np.testing.assert_array_equal(parts["row"], [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
    np.testing.assert_array_equal(parts["pair"][1, 2], [14, 15])


@pytest.mark.feature("R8")
def test_microbatches_make_the_step_of_the_whole_batch(state):
    """Losses, importance and log-SNR that differ from example to example, quadratic in the parameters."""
    random = np.random.default_rng(0)
    scale, importance = (jnp.asarray(random.uniform(0.5, 2.0, 12), jnp.float32) for _ in range(2))
    log_snr = jnp.asarray(np.tile(np.linspace(-9.0, 9.0, 12)[:, None], (1, 2)), jnp.float32)

    def losses_of(params, examples):
        scale, log_snr = examples
        loss = scale * jnp.sum((params["layer"]["bias"] - scale[:, None]) ** 2, axis=1)
        return Losses(loss=loss, x0_error=loss, noise_error=loss), log_snr

    def step(count):
        seen = []
        after, window = train_step(
            state,
            Window.empty(),
            losses_of,
            (scale, log_snr),
            toy.make_optimizer(),
            importance=importance,
            observe=lambda memory, losses: seen.append(losses),
            num_microbatches=count,
        )
        return after.opt_state[0].mu["layer"]["bias"], window.scalars(), seen[0]

    whole = step(1)
    assert np.abs(whole[0]).max() > 1e-3
    for count in (2, 3, 12):
        moments, scalars, losses = step(count)
        np.testing.assert_allclose(moments, whole[0], rtol=1e-6)
        np.testing.assert_allclose(losses, whole[2], rtol=1e-6)  # in the order of the batch
        assert scalars == pytest.approx(whole[1], rel=1e-6)
