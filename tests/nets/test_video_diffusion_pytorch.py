"""Our network as video-diffusion-pytorch's: its outputs and gradients, recorded by experiments/speed/reference.py."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed import reference
from tests.nets import tiny
from vdm.nets import video_diffusion_pytorch as peer
from vdm.nets.unet3d import UNet3DConfig, unet3d
from vdm.types import Condition

SIZES = [pytest.param(size, marks=pytest.mark.slow) if size == "main" else size for size in reference.SIZES]


def config_of(dim, multipliers):
    levels = tuple(range(len(multipliers)))
    return UNet3DConfig(3, 3, dim, multipliers, attention_levels=levels, **peer.PARTS)


@functools.cache
def told(size):
    """Config, state dict of the stated weights, recorded output, norms and products of gradients."""
    with np.load(reference.FILE) as stored:
        facts, output = json.loads(str(stored[f"{size}/told"])), stored[f"{size}/output"]
    config = config_of(*reference.SIZES[size][:2])
    rotary = peer.to_state_dict(tiny.params(config), config)
    weights = {
        name: rotary[name] if name.endswith("freqs") else reference.weight(name, tuple(shape))
        for name, shape in facts["shapes"].items()
    }
    return config, weights, output, facts["norms"], facts["products"]


def log_snr_of(steps):
    """Nichol & Dhariwal's chain of betas, as the peer has it, in float64."""
    times = np.arange(1001) / 1000
    kept = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.cumprod(1 - np.clip(1 - kept[1:] / kept[:-1], 0, 0.9999))
    return np.log(kept[steps] / (1 - kept[steps]))


def ours(video):
    """[clips, channels, frames, height, width] -> ours."""
    return jnp.moveaxis(jnp.asarray(video), 1, -1)


@functools.cache
def computed(size):
    config, weights, *_ = told(size)
    net = unet3d(config)
    noisy, noise = map(ours, reference.clips(size))
    frames = noisy.shape[1]
    log_snr = jnp.tile(jnp.asarray(log_snr_of(list(reference.STEPS)), jnp.float32)[:, None], (1, frames))
    index = jnp.tile(jnp.arange(frames), (len(noisy), 1))

    @jax.jit
    def loss_and_gradient(params):
        def loss(params):
            output = net.apply(params, noisy, log_snr, index, Condition()).value
            return jnp.mean((output - noise) ** 2), output

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, output), gradient = loss_and_gradient(jax.tree.map(jnp.asarray, peer.from_state_dict(weights, config)))
    return reference.thinned(np.moveaxis(np.asarray(output), -1, 1)), peer.to_state_dict(gradient, config)


@pytest.mark.parametrize("size", SIZES)
def test_outputs_are_the_peers(size):
    _, _, recorded, *_ = told(size)
    np.testing.assert_allclose(computed(size)[0], recorded, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_the_peers(size):
    """A gradient's norm, and its product with a drawn direction, whose error is that of the gradient times one."""
    *_, norms, products = told(size)
    found = computed(size)[1]
    assert norms.keys() == {name for name in found if not name.endswith("freqs")}
    for name, norm in norms.items():
        direction = reference.drawn(f"{name} direction", found[name].shape)
        assert abs(np.linalg.norm(found[name].astype(np.float64)) - norm) < 1e-4 * norm + 1e-6, name
        assert abs(float(np.vdot(direction, found[name])) - products[name]) < 5e-4 * norm + 1e-6, name


def test_a_state_dict_comes_back_as_it_was():
    config, weights, *_ = told("three_levels")
    back = peer.to_state_dict(peer.from_state_dict(weights, config), config)
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_what_is_no_state_dict_of_the_config_is_refused():
    config, weights, *_ = told("three_levels")
    with pytest.raises(ValueError, match=r"no 'init_conv\.bias'"):
        peer.from_state_dict({name: each for name, each in weights.items() if name != "init_conv.bias"}, config)
    with pytest.raises(ValueError, match=r"more than .* needs: null_cond_emb"):
        peer.from_state_dict(weights | {"null_cond_emb": np.zeros((1, 4), np.float32)}, config)
    with pytest.raises(ValueError, match="rotary frequencies"):
        rotary = next(name for name in weights if name.endswith("freqs"))
        peer.from_state_dict(weights | {rotary: 2 * weights[rotary]}, config)
    with pytest.raises(ValueError, match=r"\['bias'\] \(8,\) where \(16,\) is needed"):
        peer.from_state_dict(weights | {"init_conv.bias": weights["init_conv.bias"][:8]}, config)
    with pytest.raises(ValueError, match=r"missing where"):
        peer.to_state_dict({}, config)
    with pytest.raises(ValueError, match=r"no such parts: \{'norm': 'group'\}"):
        peer.from_state_dict(weights, dataclasses.replace(config, norm="group"))
