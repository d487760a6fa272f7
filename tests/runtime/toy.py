"""A model of two parameters, linear regression, with the state and the train step that a real network would have."""

import functools

import jax
import jax.numpy as jnp

from vdm.nets import sharding
from vdm.runtime import optimizer, random, state

CHANNELS = 24  # the kernel has more than 1 KiB, below which orbax keeps an array inside its index
IDENTITY = {"seed": 0, "network": {"channels": CHANNELS}}


def init(key):
    return {"layer": {"kernel": jax.random.normal(key, (CHANNELS, CHANNELS)), "bias": jnp.zeros(CHANNELS)}}


def make_optimizer(clip_norm=1.0, ema_decay=0.9, ema_decay_short=0.0):
    rate = optimizer.warmup_cosine(0.1, warmup_steps=3, decay_steps=0)
    adam = optimizer.adam(rate, beta1=0.9, beta2=0.99, epsilon=1e-8)
    return optimizer.Optimizer(adam, rate, clip_norm, ema_decay, ema_decay_short)


def init_state(mesh):
    key = random.key(0, random.Purpose.INIT)
    return state.init_state(init, make_optimizer(), key, mesh, sharding.UNET_RULES)


def abstract_state(mesh):
    return state.abstract_state(init, make_optimizer(), mesh, sharding.UNET_RULES)


@functools.cache
def make_step(mesh):
    """The jitted step: donates the state, draws its data by the step, so a resumed run sees the same data."""
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(mesh))

    def step(train_state):
        key = random.key(0, random.Purpose.NOISE, train_state.step)
        inputs = random.example_noise(key, jnp.arange(64), 1, (1, 1, CHANNELS)).reshape(64, CHANNELS)

        def loss(params):
            outputs = inputs @ params["layer"]["kernel"] + params["layer"]["bias"]
            return jnp.mean((outputs - jnp.sin(inputs)) ** 2)

        value, gradients = jax.value_and_grad(loss)(train_state.params)
        after, scalars = state.apply_gradients(train_state, gradients, make_optimizer())
        return after, {"loss": value, **scalars}

    return jax.jit(step, donate_argnums=0, out_shardings=(places, None))
