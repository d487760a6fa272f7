"""An extractor in a file of the user's, small enough to compute by hand: four numbers of a clip of `tests.tiny`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from configs import entries
from vdm.metrics.features import plugin
from vdm.types import Config

NAME = "toy.bin"


def brightness_and_motion(video):
    """The mean of every channel and how much frames differ."""
    change = jnp.abs(jnp.diff(video, axis=1)).mean((1, 2, 3, 4))
    return jnp.concatenate([video.mean((1, 2, 3)), change[:, None]], axis=1)


def seen(clips: np.ndarray) -> np.ndarray:
    """The same of 8-bit clips, in numpy's float64."""
    video = clips.astype(np.float64) / 127.5 - 1
    change = np.abs(np.diff(video, axis=1)).mean((1, 2, 3, 4))
    return np.concatenate([video.mean((1, 2, 3)), change[:, None]], axis=1)


def write(folder: Path) -> tuple[str, str]:
    """Writes it for clips of 4 x 8 x 8 x 3: path and sha256."""
    plugin.write(folder / NAME, brightness_and_motion, 4, 8, 8, 3)
    return written(folder)


def written(folder: Path) -> tuple[str, str]:
    """What `write` returned. The file tells where it was written from, so each writing has a hash of its own."""
    path = folder / NAME
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def ask_for(config: Config, path: str, sha256: str, distance: str = "frechet", **scores) -> None:
    """Sets `config.scores` to a distance of what it sees."""
    with config.unlocked():
        config.scores.plugin.toy = entries.plugin(path, sha256, distance)
    config.scores.update({"metrics": ("toy",), "batch_size": 16} | scores)
