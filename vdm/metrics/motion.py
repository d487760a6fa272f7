"""What moves in a clip, and how: points are tracked, and their velocities and accelerations counted by place and
direction.

After FVMD (Liu et al. 2024): a Frechet distance between such counts sees jitter and wrong motion, and hardly sees
looks. FVMD itself tracks with a trained network (PIPs++); here a point is followed by its neighbourhood's brightness
(Lucas & Kanade 1981, over a pyramid), so the distance has another name, and values of the two are not comparable.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Float32

NUM_BINS = 8  # of directions


@dataclasses.dataclass(frozen=True)
class Tracker:
    """How points are followed from frame to frame.

    Attributes:
      points: along each axis of the frame, evenly spaced. window: pixels on each side of a point that must look
      alike. levels: of the pyramid; each sees motion twice as fast as the one before, about `window` pixels a frame
      at the first. iterations: at each level. damping: of the least squares, in units of squared brightness a pixel;
      a neighbourhood without texture stays where it is.
    """

    points: int = 10
    window: int = 3
    levels: int = 3
    iterations: int = 6
    damping: float = 1e-3

    def tracks(self, video: Float[Array, "frames h w c"]) -> Float32[Array, "frames p 2"]:
        """(row, column) of every point in every frame, pixels from the centre of the first one. The video is in [-1,
        1]."""
        grey = jnp.mean(video, axis=-1)
        height, width = grey.shape[1:]
        rows, columns = (
            (np.arange(self.points, dtype=np.float32) + 0.5) * side / self.points - 0.5 for side in (height, width)
        )
        start = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        pyramid = [grey]
        for _ in range(self.levels - 1):
            pyramid.append(_half(pyramid[-1]))

        def follow(points: Array, levels: tuple[list[Array], list[Array]]) -> tuple[Array, Array]:
            moved = points + self._displacement(points, *levels)
            moved = jnp.clip(moved, 0.0, jnp.array([height - 1.0, width - 1.0]))
            return moved, moved

        pairs = [level[:-1] for level in pyramid], [level[1:] for level in pyramid]
        _, later = jax.lax.scan(follow, start, pairs)
        return jnp.concatenate([start[None], later])

    def _displacement(self, points: Array, now: list[Array], then: list[Array]) -> Array:
        displacement = jnp.zeros_like(points)
        for level in reversed(range(self.levels)):
            scale = 2.0**level
            at = (points + 0.5) / scale - 0.5
            found = jax.vmap(self._refine, (0, 0, None, None))(at, displacement / scale, now[level], then[level])
            displacement = found * scale
        return displacement

    def _refine(self, point: Array, displacement: Array, now: Array, then: Array) -> Array:
        side = jnp.arange(-self.window, self.window + 1.0)
        around = jnp.stack(jnp.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
        rows, columns = jnp.gradient(now)
        places = point + around
        slope = jnp.stack([_at(rows, places), _at(columns, places)], -1)
        brightness = _at(now, places)
        normal = slope.T @ slope + self.damping * len(around) * jnp.eye(2)

        def step(_: Any, moved: Array) -> Array:
            difference = _at(then, places + moved) - brightness
            return moved - jnp.linalg.solve(normal, slope.T @ difference)

        return jax.lax.fori_loop(0, self.iterations, step, displacement)


@dataclasses.dataclass(frozen=True)
class Histograms:
    """Counts of motion by place and direction.

    Attributes:
      frames: in a stretch of time; an incomplete last one is left out. cells: of the frame along each axis.
    """

    frames: int = 4
    cells: int = 5

    def of(self, tracks: Float[Array, "frames p 2"]) -> Float32[Array, "d"]:
        """Velocities, then accelerations: for each stretch, cell and direction the sum of log2(1 + pixels a frame)."""
        velocity = jnp.diff(tracks, axis=0)
        acceleration = jnp.diff(velocity, axis=0)
        return jnp.concatenate([self._count(velocity), self._count(acceleration)])

    def _count(self, vectors: Float[Array, "times p 2"]) -> Float32[Array, "d"]:
        times, points = vectors.shape[:2]
        side = round(points**0.5)
        stretches = times // self.frames
        cell = np.arange(side) * self.cells // side
        cell = (cell[:, None] * self.cells + cell).reshape(-1)
        size = jnp.linalg.norm(vectors, axis=-1)
        turn = jnp.arctan2(vectors[..., 0], vectors[..., 1]) / (2 * jnp.pi)
        direction = jnp.mod(jnp.round(turn * NUM_BINS), NUM_BINS).astype(jnp.int32)
        stretch = np.arange(times) // self.frames
        place = (stretch[:, None] * self.cells**2 + cell) * NUM_BINS + direction
        counts = jnp.zeros((stretches + 1) * self.cells**2 * NUM_BINS).at[place].add(jnp.log2(1 + size))
        return counts[: stretches * self.cells**2 * NUM_BINS]


def features(
    video: Float[Array, "clips frames h w c"], tracker: Tracker = Tracker(), histograms: Histograms = Histograms()
) -> Float32[Array, "clips d"]:
    """What a Frechet distance of motion compares. The video is in [-1, 1] and has at least `histograms.frames` + 2
    frames."""
    if video.shape[1] < histograms.frames + 2:
        raise ValueError(
            f"the motion of clips of {video.shape[1]} frames cannot be counted: accelerations over {histograms.frames} "
            f"frames need {histograms.frames + 2}"
        )
    return jax.vmap(lambda clip: histograms.of(tracker.tracks(clip)))(video)


def _half(frames: Float[Array, "frames h w"]) -> Array:
    """Half the size, each pixel the mean of four; an odd last row or column is left out."""
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    return frames[:, :height, :width].reshape(len(frames), height // 2, 2, width // 2, 2).mean((2, 4))


def _at(image: Array, places: Array) -> Array:
    return map_coordinates(image, [places[:, 0], places[:, 1]], order=1, mode="nearest")
