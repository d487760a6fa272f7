"""Randomness is derived, never carried: every draw is a function of (seed, purpose, step, global example index, frame).

No process, device or shard index enters, so any mesh, any number of hosts and any restart give the same numbers, bit
for bit. The generator is Threefry-2x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a pure
function of key and counter.
"""

import enum
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from vdm.types import ExampleKeys, Key, Video

_APART = 0x9E3779B1  # odd, so that no two numbers below 2^32 give one seed; far from the seeds that people choose


class Purpose(enum.IntEnum):
    """What a draw is for. A number is never used again nor changed: published runs depend on it."""

    INIT = 0  # parameters
    TIME = 1  # the noise level of a training clip
    NOISE = 2  # the noise of a training clip
    DROPOUT = 3  # inside the network
    LABEL_DROPOUT = 4  # whether a training clip's label is replaced by the null class
    VALIDATION_NOISE = 5  # fixed over the whole run: use step 0
    SAMPLE_PRIOR = 6  # where a sampled clip starts from
    SAMPLE_NOISE = 7  # what a stochastic sampler adds; the step is the sampler's
    DEQUANTISATION = 8  # where in its bin a pixel of a training clip lies
    VALIDATION_DEQUANTISATION = 9  # the same of a validation clip; use step 0
    LIKELIHOOD_NOISE = 10  # of a held-out clip; the step is the level's index
    LIKELIHOOD_LEVEL = 11  # where in its stratum a level lies; the step is its index
    LIKELIHOOD_PROBE = 12  # of a divergence; the step is the probe's index
    LIKELIHOOD_DEQUANTISATION = 13  # where in its bin a pixel of a held-out clip lies; use step 0
    SELECTION_NOISE = 14  # of a clip that settings are chosen by; the step is the level's index
    SELECTION_LEVEL = 15  # where in its stratum a level lies; the step is its index
    SELECTION_DEQUANTISATION = 16  # where in its bin a pixel lies; use step 0
    TASK = 17  # which frames of a training clip are given
    VALIDATION_TASK = 18  # of a held-out clip; use step 0
    SELECTION_TASK = 19  # of a clip that settings are chosen by; use step 0


def key(seed: int, purpose: Purpose, step: Int[Array, ""] | int = 0) -> Key:
    """The key of one purpose in one step.

    Args:
      seed: of the run, `config.seed`; in [0, 2^32).
      purpose: what the draw is for.
      step: of the optimiser (or of the sampler), in [0, 2^32); may be traced.

    Raises:
      ValueError: if the seed is outside [0, 2^32).
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; it must lie in [0, 2^32), the range in which all seeds differ")
    run = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(run, purpose), step)


def varied(seed: int, number: int) -> int:
    """The seed of a part that is drawn anew: `seed` itself for number 0, else another one for each number.

    Raises:
      ValueError: a negative number.
    """
    if number < 0:
        raise ValueError(f"config.vary has {number}; its numbers are 0 or more")
    return (seed + _APART * number) % 2**32


def example_noise(key: Key, indices: Int[Array, "batch"], num_frames: int, shape: tuple[int, int, int]) -> Video:
    """Standard normal noise of which every frame depends on (key, example index, frame) alone.

    Args:
      key: of the purpose and step.
      indices: global index of every example, [batch], in [0, 2^32).
      num_frames: of a clip.
      shape: (height, width, channels) of a frame.

    Returns:
      float32 [batch, num_frames, height, width, channels].
    """

    def frame_noise(example_key: Key, frame: Int[Array, ""]) -> Float[Array, "height width channels"]:
        bits = _words(jax.random.fold_in(example_key, frame), math.prod(shape))
        return _normal(bits).reshape(shape)

    def clip_noise(index: Int[Array, ""]) -> Float[Array, "frames height width channels"]:
        example_key = jax.random.fold_in(key, index)
        return jax.vmap(frame_noise, (None, 0))(example_key, jnp.arange(num_frames))

    return jax.vmap(clip_noise)(indices)


def example_uniform(key: Key, indices: Int[Array, "batch"]) -> Float[Array, "batch"]:
    """One number in (0, 1) per example, never 0 nor 1, that depends on (key, example index) alone.

    Args:
      key: of the purpose and step.
      indices: global index of every example, [batch], in [0, 2^32).

    Returns:
      float32 [batch].
    """
    return jax.vmap(lambda index: _open_unit(_words(jax.random.fold_in(key, index), 1))[0])(indices)


def example_keys(key: Key, indices: Int[Array, "batch"]) -> ExampleKeys:
    """A key per example that depends on (key, example index) alone, for what a network draws itself."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def _words(key: Key, count: int) -> UInt[Array, "count"]:
    """`count` random 32-bit words.

    A split is one Threefry evaluation per new key and its key data are both words of the result, where
    `jax.random.bits` keeps one of them: half the work, a third of the time on a CPU. The key must not be folded or
    split elsewhere.
    """
    pairs = jax.random.key_data(jax.random.split(key, (count + 1) // 2))
    return pairs.reshape(-1)[:count]


def _open_unit(bits: UInt[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Words to the lattice (k + 1/2) / 2^23, k in [0, 2^23): symmetric about 1/2, and exact in float32."""
    return (bits >> 9).astype(jnp.float32) * 2.0**-23 + 2.0**-24


def _normal(bits: UInt[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Words to standard normals by the inverse of the normal's distribution function; the lattice ends at +-5.3."""
    return math.sqrt(2) * jax.lax.erf_inv(2 * _open_unit(bits) - 1)
