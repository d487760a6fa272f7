"""Two small networks in plain JAX, float32: a linear map gated by the noise level, and a multilayer perceptron."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdm.diffusion.objectives import Predict
from vdm.types import Key, LogSnr, Params, Prediction, Video

CENTRES = np.linspace(-12.0, 12.0, 13)
WIDTH = 2.0


class SmallNetwork(Protocol):
    def init(self, key: Key) -> Params: ...

    def predict(self, params: Params) -> Predict: ...


def features(log_snr: Float[Array, "batch"]) -> Float[Array, "batch centres"]:
    """Bumps in log-SNR, clipped to [-12, 12], that add up to one."""
    distance = (jnp.clip(log_snr, CENTRES[0], CENTRES[-1])[:, None] - jnp.asarray(CENTRES, log_snr.dtype)) / WIDTH
    return jax.nn.softmax(-0.5 * distance**2, axis=-1)


@dataclasses.dataclass(frozen=True)
class GatedLinear:
    """y = sum_j bump_j(log_snr) W_j x, zero at first: every loss is convex in its parameters, and the exact denoiser of
    a Gaussian is within its reach but for the smoothness of the bumps.
    """

    size: int

    def init(self, key: Key) -> Params:
        return {"weights": jnp.zeros((CENTRES.size, self.size, self.size))}

    def predict(self, params: Params) -> Predict:
        def predict(xt: Video, log_snr: LogSnr) -> Prediction:
            x, gates = xt.reshape(xt.shape[0], -1), features(log_snr[:, 0])
            every = (x @ params["weights"].transpose(1, 0, 2).reshape(self.size, -1)).reshape(x.shape[0], -1, self.size)
            return Prediction(jnp.einsum("bj,bjd->bd", gates, every).reshape(xt.shape))

        return predict


@dataclasses.dataclass(frozen=True)
class Perceptron:
    """Two hidden layers (SiLU) on the clip and the bumps; the last layer starts at zero."""

    size: int
    hidden: int

    def init(self, key: Key) -> Params:
        first, second = jax.random.split(key)
        fan_in = self.size + CENTRES.size
        return {
            "first": jax.random.normal(first, (fan_in, self.hidden)) / math.sqrt(self.size),
            "second": jax.random.normal(second, (self.hidden, self.hidden)) / math.sqrt(self.hidden),
            "last": jnp.zeros((self.hidden, self.size)),
            "bias": jnp.zeros((2, self.hidden)),
        }

    def predict(self, params: Params) -> Predict:
        def predict(xt: Video, log_snr: LogSnr) -> Prediction:
            x = jnp.concatenate([xt.reshape(xt.shape[0], -1), features(log_snr[:, 0])], axis=1)
            for name, bias in zip(("first", "second"), params["bias"], strict=True):
                x = jax.nn.silu(x @ params[name] + bias)
            return Prediction((x @ params["last"]).reshape(xt.shape))

        return predict
