"""The smallest network with every kind of part, at parameters that hide nothing: at init the zero kernels would."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vdm.nets.unet3d import UNet3DConfig, unet3d
from vdm.types import Condition

BATCH, FRAMES, SIZE = 2, 4, 8
CONFIG = UNet3DConfig(
    channels_in=3,
    channels_out=3,
    channels=8,
    multipliers=(1, 2),
    num_blocks=1,
    attention_levels=(1,),
    head_dim=8,
    groups=4,
    patch=2,
    num_classes=3,
    skips="blocks",
)

SMALL = dataclasses.replace(CONFIG, multipliers=(1,), attention_levels=(), num_classes=None)  # attention in the middle


@functools.cache
def network(config=CONFIG):
    """The network and its jitted `apply(params, xt, log_snr, frame_index, condition, keys=None) -> value`."""
    net = unet3d(config)
    return net, jax.jit(lambda *args, keys=None: net.apply(*args, keys=keys).value)


@functools.cache
def fresh(config=SMALL):
    """Parameters as training begins with them."""
    return jax.jit(network(config)[0].init)(jax.random.key(0))


@functools.cache
def params(config=CONFIG):
    net, _ = network(config)
    return randomised(jax.eval_shape(net.init, jax.random.key(0)))


def randomised(tree, seed=0):
    """Numbers of the scale of a trained network: kernels that keep the variance, scales about one."""
    generator = np.random.default_rng(seed)  # numpy: jax would compile every shape

    def draw(leaf):
        noise = generator.standard_normal(leaf.shape, np.float32)
        return jnp.asarray(noise / np.sqrt(leaf.size / leaf.shape[-1]) if leaf.ndim > 1 else 1 + 0.3 * noise)

    return jax.tree.map(draw, tree)


def inputs(batch=BATCH, frames=FRAMES, seed=1):
    """xt, log_snr (another in every frame), frame_index."""
    key_x, key_level = jax.random.split(jax.random.key(seed))
    xt = jax.random.normal(key_x, (batch, frames, SIZE, SIZE, 3))
    log_snr = 4 * jax.random.normal(key_level, (batch, frames))
    return xt, log_snr, jnp.tile(jnp.arange(frames), (batch, 1))


def images(*flags, label=None):
    return Condition(is_image=jnp.array(flags), label=label)
