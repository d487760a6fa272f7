"""How a sampler knows the frames that are given: each maps a denoiser and a step rule to such as know them.

To add one, write it and add it to the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Array, Bool

from vdm.diffusion import guidance, samplers
from vdm.diffusion.guidance import Threshold
from vdm.diffusion.noise_priors import NoisePrior
from vdm.tasks.completion import completed
from vdm.types import Denoiser, Video


@runtime_checkable
class Conditioning(Protocol):
    """Attributes:
    learned: whether the network must have been trained with given frames.
    """

    learned: ClassVar[bool]

    def __call__(
        self,
        denoiser: Denoiser,
        step: samplers.Sampler,
        given: Bool[Array, "batch frames"],
        x0: Video,
        threshold: Threshold,
        noise_prior: NoisePrior,
    ) -> tuple[Denoiser, samplers.Sampler]:
        """What carries the clip, given some frames of x0; the threshold is applied to what the network estimates."""
        ...


@dataclasses.dataclass(frozen=True)
class Given:
    """The network sees given frames as they are: see `completion`."""

    learned: ClassVar[bool] = True

    def __call__(
        self,
        denoiser: Denoiser,
        step: samplers.Sampler,
        given: Bool[Array, "batch frames"],
        x0: Video,
        threshold: Threshold,
        noise_prior: NoisePrior,
    ) -> tuple[Denoiser, samplers.Sampler]:
        return completed(threshold(denoiser), given, x0), step


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Given frames are noised to the level of the others before every step: see `samplers.Replacement`."""

    learned: ClassVar[bool] = False

    def __call__(
        self,
        denoiser: Denoiser,
        step: samplers.Sampler,
        given: Bool[Array, "batch frames"],
        x0: Video,
        threshold: Threshold,
        noise_prior: NoisePrior,
    ) -> tuple[Denoiser, samplers.Sampler]:
        return threshold(denoiser), samplers.Replacement(_one_step(step), given, x0)


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Replacement, with the estimate drawn to where the given frames are reconstructed: see `guidance.reconstruction`.

    Attributes:
      weight: w_r; at least 0.
    """

    weight: float
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.weight >= 0.0:
            raise ValueError(f"sampler.conditioning.reconstruction.weight is {self.weight:g}; it must be at least 0")

    def __call__(
        self,
        denoiser: Denoiser,
        step: samplers.Sampler,
        given: Bool[Array, "batch frames"],
        x0: Video,
        threshold: Threshold,
        noise_prior: NoisePrior,
    ) -> tuple[Denoiser, samplers.Sampler]:
        towards = guidance.reconstruction(denoiser, given, x0, self.weight, noise_prior=noise_prior)
        return threshold(towards), samplers.Replacement(_one_step(step), given, x0)


def _one_step(step: samplers.Sampler) -> samplers.Step:
    """Raises ValueError for a sampler that does more than one step at a time, or remembers some."""
    if isinstance(step, samplers.Multistep | samplers.Solver):
        raise ValueError(
            f"{type(step).__name__} remembers earlier steps or takes its own, between which given frames cannot be"
            " replaced; take ancestral, ddim, heun or another that goes step by step"
        )
    return step


CONDITIONINGS: dict[str, Callable[..., Conditioning]] = {
    "given": Given,
    "replacement": Replacement,
    "reconstruction": Reconstruction,
}
