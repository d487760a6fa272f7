"""The learning rate by hand, Adam's first step, clipping as a projection, the average as a geometric series."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runtime import toy
from vdm.nets import sharding
from vdm.runtime import mesh, optimizer, random, state


@pytest.mark.feature("R1")
def test_learning_rate_goldens():
    # By hand: a fifth of 0.5 per step up to it, then cos^2(pi n / 16) of it, n steps after the first at the peak.
    rate = optimizer.warmup_cosine(0.5, warmup_steps=5, decay_steps=8)
    given = [float(rate(step)) for step in range(15)]
    warmup = [0.1, 0.2, 0.3, 0.4, 0.5]
    decay = [0.5 * np.cos(np.pi * n / 16) ** 2 for n in range(1, 9)]
    np.testing.assert_allclose(given, [*warmup, *decay, 0, 0], atol=1e-7)


def test_learning_rate_without_warmup_or_decay_is_constant():
    rate = optimizer.warmup_cosine(0.5, warmup_steps=0, decay_steps=0)
    assert [float(rate(step)) for step in (0, 1, 10**6)] == [0.5, 0.5, 0.5]
    assert float(optimizer.warmup_cosine(0.5, warmup_steps=0, decay_steps=4)(0)) == 0.5


@pytest.mark.parametrize("bad", [{"peak": 0.0}, {"warmup_steps": -1}, {"decay_steps": -1}])
def test_learning_rate_refuses(bad):
    with pytest.raises(ValueError, match="learning rate"):
        optimizer.warmup_cosine(**{"peak": 1.0, "warmup_steps": 0, "decay_steps": 0, **bad})


@pytest.mark.parametrize(
    "bad",
    [{"clip_norm": 0.0}, {"ema_decay": 1.0}, {"ema_decay": -0.1}, {"ema_decay_short": 0.95}, {"ema_decay_short": -0.1}],
)
def test_optimizer_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        toy.make_optimizer(**bad)


@pytest.mark.feature("R1")
def test_average_is_the_geometric_series():
    decay, start = 0.9, 5.0
    params = [3.0, -1.0, 2.0, 7.0, 0.5]
    ema = {"kernel": jnp.array(start)}
    for value in params:
        ema = optimizer.average(ema, {"kernel": jnp.array(value)}, decay)
    steps = len(params)
    series = sum((1 - decay) * decay ** (steps - 1 - n) * value for n, value in enumerate(params))
    np.testing.assert_allclose(ema["kernel"], decay**steps * start + series, rtol=1e-6)


@pytest.mark.parametrize(("max_norm", "factor"), [(13.0, 1.0), (20.0, 1.0), (6.5, 0.5)])
def test_clipping_scales_to_the_norm_and_keeps_the_direction(max_norm, factor):
    gradients = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([12.0])}  # 3-4-12-13
    clipped, norm = optimizer.clip_by_norm(gradients, max_norm)
    assert float(norm) == 13
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, factor * old, rtol=1e-6), clipped, gradients)


def test_clipping_does_not_hide_what_is_not_finite():
    clipped, norm = optimizer.clip_by_norm({"kernel": jnp.array([jnp.nan, 1.0])}, 1.0)
    assert np.isnan(norm) and np.isnan(clipped["kernel"]).any()


def step_from_zero(transform, gradients, params):
    updates, _ = transform.update(gradients, transform.init(params), params)
    return jax.tree.map(np.asarray, updates)


def test_first_step_of_adam_is_the_learning_rate_against_the_sign():
    # the bias of rank 2 is a table of relative positions
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((1, 2))}
    gradients = {"kernel": jnp.array([[1.0, -2.0], [30.0, -4.0]]), "bias": jnp.array([[0.5, -0.5]])}
    rate = optimizer.warmup_cosine(0.1, warmup_steps=2, decay_steps=0)
    numbers = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-12}
    updates = step_from_zero(optimizer.adam(rate, **numbers), gradients, params)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -0.05 * np.sign(g), rtol=1e-5), updates, gradients)
    decayed = step_from_zero(optimizer.adamw(rate, **numbers, weight_decay=0.2), gradients, params)
    np.testing.assert_allclose(decayed["kernel"] - updates["kernel"], np.full((2, 2), -0.05 * 0.2), rtol=1e-4)
    np.testing.assert_array_equal(decayed["bias"], updates["bias"])


@pytest.mark.feature("R1")
def test_a_step_counts_what_it_clipped_and_reports_the_norm():
    here = mesh.make_mesh()
    train_state = toy.init_state(here)
    gradient = jax.tree.map(jnp.zeros_like, train_state.params)
    apply = jax.jit(lambda s, g: state.apply_gradients(s, g, toy.make_optimizer(clip_norm=1.0)))
    norms = [0.5, 2.0, 1.0, 3.0]
    for norm in norms:
        gradient["layer"]["bias"] = jnp.zeros(toy.CHANNELS).at[0].set(norm)
        train_state, scalars = apply(train_state, gradient)
        assert scalars["gradient_norm"] == norm and scalars["clipped"] == (norm > 1)
    assert train_state.step == 4 and train_state.num_clipped == 2 and scalars["clipped_share"] == 0.5
    np.testing.assert_allclose(scalars["learning_rate"], 0.1, rtol=1e-6)


@pytest.mark.feature("R1")
def test_a_second_average_forgets_sooner():
    here = mesh.make_mesh()
    two = toy.make_optimizer(ema_decay_short=0.5)
    train_state = state.init_state(toy.init, two, random.key(0, random.Purpose.INIT), here, sharding.UNET_RULES)
    expected = np.asarray(train_state.params["layer"]["kernel"], np.float64)
    gradient = jax.tree.map(jnp.ones_like, train_state.params)
    for _ in range(5):
        train_state, _ = state.apply_gradients(train_state, gradient, two)
        expected = 0.5 * expected + 0.5 * np.asarray(train_state.params["layer"]["kernel"])
    np.testing.assert_allclose(train_state.ema_short["layer"]["kernel"], expected, atol=1e-6)
    behind = [
        np.abs(average["layer"]["kernel"] - train_state.params["layer"]["kernel"]).mean()
        for average in (train_state.ema_short, train_state.ema)
    ]
    assert 0 < behind[0] < behind[1]
    assert toy.init_state(here).ema_short == ()


@pytest.mark.feature("R1")
def test_training_lowers_the_loss_and_the_average_follows():
    here = mesh.make_mesh()
    step, train_state = toy.make_step(here), toy.init_state(here)
    ema = np.asarray(train_state.ema["layer"]["kernel"], np.float64)
    losses = []
    for _ in range(60):
        train_state, scalars = step(train_state)
        losses.append(float(scalars["loss"]))
        ema = 0.9 * ema + 0.1 * np.asarray(train_state.params["layer"]["kernel"])
    assert np.mean(losses[-10:]) < 0.1 * np.mean(losses[:3])
    np.testing.assert_allclose(train_state.ema["layer"]["kernel"], ema, atol=1e-6)


def test_the_average_starts_at_the_parameters_in_memory_of_its_own():
    train_state = toy.init_state(mesh.make_mesh())
    params, ema = train_state.params["layer"]["kernel"], train_state.ema["layer"]["kernel"]
    np.testing.assert_array_equal(params, ema)
    assert params.unsafe_buffer_pointer() != ema.unsafe_buffer_pointer()
