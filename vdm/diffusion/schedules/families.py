"""Continuous schedules: variance-preserving, sub-variance-preserving, variance-exploding, EDM, cosine and flow."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vdm.types import register_tree


class _Continuous:
    @property
    def num_steps(self) -> None:
        return None


@register_tree
@dataclasses.dataclass(frozen=True)
class VPLinear(_Continuous):
    """The variance-preserving SDE with beta(t) = beta_min + t (beta_max - beta_min) (Song et al. 2021, appendix C)."""

    beta_min: float
    beta_max: float

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.exp(-0.5 * self._integral(t))

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.sqrt(-jnp.expm1(-self._integral(t)))

    def _integral(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))


@register_tree
@dataclasses.dataclass(frozen=True)
class SubVP(VPLinear):
    """The sub-VP SDE with the same beta(t): the standard deviation, not the variance, is 1 - exp(-integral of beta)."""

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -jnp.expm1(-self._integral(t))


@register_tree
@dataclasses.dataclass(frozen=True)
class VE(_Continuous):
    """The variance-exploding SDE: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t, which is Song's s(t): the
    data carry noise of sigma_min at t = 0 already.
    """

    sigma_min: float
    sigma_max: float

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.ones_like(t)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.sigma_min * jnp.exp(t * jnp.log(jnp.asarray(self.sigma_max / self.sigma_min, t.dtype)))


@register_tree
@dataclasses.dataclass(frozen=True)
class EDM(_Continuous):
    """alpha = 1, sigma^(1/rho) linear in t: equal steps in t are the levels of Karras et al. 2022, equation 5."""

    sigma_min: float
    sigma_max: float
    rho: float

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.ones_like(t)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        return (low + t * (high - low)) ** self.rho


@register_tree
@dataclasses.dataclass(frozen=True)
class Cosine(_Continuous):
    """alpha = cos(u), sigma = sin(u), u linear in t between the given log-SNRs (Ho et al. 2022, arXiv 2204.03458)."""

    log_snr_min: float
    log_snr_max: float

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        from_data, from_noise = self._angles(t)
        return jnp.where(t < 0.5, jnp.cos(from_data), jnp.sin(from_noise))

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        from_data, from_noise = self._angles(t)
        return jnp.where(t < 0.5, jnp.sin(from_data), jnp.cos(from_noise))

    def _angles(self, t: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """u and pi/2 - u: each half of the range is measured from its own end, where a small angle is exact."""
        clean = jnp.arctan(jnp.exp(jnp.asarray(-0.5 * self.log_snr_max, t.dtype)))  # u at t = 0
        noisy = jnp.arctan(jnp.exp(jnp.asarray(0.5 * self.log_snr_min, t.dtype)))  # pi/2 - u at t = 1
        slope = 0.5 * jnp.pi - clean - noisy
        return clean + slope * t, noisy + slope * (1.0 - t)


@register_tree
@dataclasses.dataclass(frozen=True)
class Flow(_Continuous):
    """alpha = 1 - t, sigma = t: straight paths (Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023); no signal at
    t = 1.
    """

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1.0 - t

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return t


def vp_linear(beta_min: float, beta_max: float) -> VPLinear:
    """Song et al. 2021 take 0.1 and 20.

    Raises:
      ValueError: not 0 < beta_min <= beta_max.
    """
    return VPLinear(*_betas("vp_linear", beta_min, beta_max))


def sub_vp(beta_min: float, beta_max: float) -> SubVP:
    """Song et al. 2021 take 0.1 and 20. Raises as `vp_linear`."""
    return SubVP(*_betas("sub_vp", beta_min, beta_max))


def ve(sigma_min: float, sigma_max: float) -> VE:
    """Song et al. 2021 take 0.01 and 50 for CIFAR-10, in their units [0, 1].

    Raises:
      ValueError: not 0 < sigma_min < sigma_max.
    """
    return VE(*_sigmas("ve", sigma_min, sigma_max))


def edm(sigma_min: float, sigma_max: float, rho: float) -> EDM:
    """Karras et al. 2022 take 0.002, 80 and 7.

    Raises:
      ValueError: not 0 < sigma_min < sigma_max, or rho not positive.
    """
    if not 0.0 < rho < np.inf:
        raise ValueError(f"edm needs rho > 0, got {rho:g}")
    return EDM(*_sigmas("edm", sigma_min, sigma_max), float(rho))


def cosine(log_snr_min: float, log_snr_max: float) -> Cosine:
    """Ho et al. 2022 take -20 and 20.

    Raises:
      ValueError: not -inf < log_snr_min < log_snr_max < inf.
    """
    if not -np.inf < log_snr_min < log_snr_max < np.inf:
        raise ValueError(f"cosine needs finite log_snr_min < log_snr_max, got {log_snr_min:g} and {log_snr_max:g}")
    return Cosine(float(log_snr_min), float(log_snr_max))


def flow() -> Flow:
    """It has no numbers to choose."""
    return Flow()


def _betas(name: str, beta_min: float, beta_max: float) -> tuple[float, float]:
    if not 0.0 < beta_min <= beta_max:
        raise ValueError(f"{name} needs 0 < beta_min <= beta_max, got {beta_min:g} and {beta_max:g}")
    return float(beta_min), float(beta_max)


def _sigmas(name: str, sigma_min: float, sigma_max: float) -> tuple[float, float]:
    if not 0.0 < sigma_min < sigma_max < np.inf:
        raise ValueError(f"{name} needs 0 < sigma_min < sigma_max, got {sigma_min:g} and {sigma_max:g}")
    return float(sigma_min), float(sigma_max)
