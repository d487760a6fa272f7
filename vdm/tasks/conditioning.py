"""How a sampler knows the frames that are given: each maps a denoiser and a step rule to such as know them.

To add one, write it and add it to the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Array, Bool

from vdm.diffusion import guidance, samplers
from vdm.diffusion.guidance import Guide, Threshold
from vdm.diffusion.noise_priors import Independent, NoisePrior
from vdm.tasks.completion import completed
from vdm.types import Denoiser, Video


@dataclasses.dataclass(frozen=True)
class Unaware:
    """What carries a clip before it knows of given frames.

    Attributes:
      conditional, unconditional: the network told what is asked for, and told nothing; None: it is never told.
      guide: makes one denoiser of both; None: the first alone.
      threshold: of the guided estimate.
      noise_prior: of the noise.
    """

    conditional: Denoiser
    unconditional: Denoiser | None
    guide: Guide | None
    threshold: Threshold
    step: samplers.Sampler
    noise_prior: NoisePrior

    def guided(self, told: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser) -> Denoiser:
        """The guided denoiser of networks that are `told` something more."""
        if self.guide is None or self.unconditional is None:
            return told(self.conditional)
        return self.guide(told(self.conditional), told(self.unconditional))


Aware = tuple[Denoiser, samplers.Sampler]


@runtime_checkable
class Conditioning(Protocol):
    """Makes given frames known.

    Attributes:
      learned: whether the network must have been trained with given frames.
    """

    learned: ClassVar[bool]

    def __call__(self, carries: Unaware, given: Bool[Array, "batch frames"], x0: Video) -> Aware:
        """The denoiser and the step rule that know the given frames of x0.

        Raises:
          ValueError: a step rule that cannot.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Given:
    """The network sees given frames as they are: see `completion`. They are back in the estimate before guidance and
    threshold look at all of the clip, and once more behind these.
    """

    learned: ClassVar[bool] = True

    def __call__(self, carries: Unaware, given: Bool[Array, "batch frames"], x0: Video) -> Aware:
        guided = carries.guided(lambda denoiser: completed(denoiser, given, x0))
        return completed(carries.threshold(guided), given, x0), carries.step


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Given frames are noised to the level of the others before every step: see `samplers.Replacement`."""

    learned: ClassVar[bool] = False

    def __call__(self, carries: Unaware, given: Bool[Array, "batch frames"], x0: Video) -> Aware:
        return carries.threshold(carries.guided()), samplers.Replacement(_one_step(carries), given, x0)


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Replacement, with the estimate drawn to where the given frames are reconstructed: see `guidance.reconstruction`.

    Attributes:
      weight: w_r; at least 0.
    """

    weight: float
    learned: ClassVar[bool] = False

    def __call__(self, carries: Unaware, given: Bool[Array, "batch frames"], x0: Video) -> Aware:
        towards = guidance.reconstruction(carries.guided(), given, x0, self.weight)
        return carries.threshold(towards), samplers.Replacement(_one_step(carries), given, x0)


def _one_step(carries: Unaware) -> samplers.Step:
    """Raises ValueError for a sampler between whose steps given frames cannot be replaced."""
    step = carries.step
    if isinstance(step, samplers.Multistep | samplers.Solver | samplers.AnnealedLangevin | samplers.PredictorCorrector):
        raise ValueError(
            f"{type(step).__name__} remembers earlier steps or takes its own, between which given frames cannot be"
            " replaced; take ancestral, ddim, euler or heun"
        )
    if not isinstance(carries.noise_prior, Independent):
        raise ValueError(
            f"given frames are replaced with noise of their own, and the noise of this objective is"
            f" {type(carries.noise_prior).__name__}: take a network trained with independent noise"
        )
    return step


CONDITIONINGS: dict[str, Callable[..., Conditioning]] = {
    "given": Given,
    "replacement": Replacement,
    "reconstruction": Reconstruction,
}
