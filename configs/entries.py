"""What an experiment adds to the keys of base.py: arms, samplings, extractors from files."""

from ml_collections import ConfigDict


def arm(
    title: str, description: str, changes: dict, at_least: dict | None = None, at_most: dict | None = None
) -> ConfigDict:
    """One side of a comparison, for `config.compare.arm`.

    Args:
      title, description: for the report; the description says in a sentence what is particular to this arm.
      changes: nested as the config, the keys that differ from it.
      at_least, at_most: metric -> the line that the arm must pass.
    """
    return ConfigDict(
        {
            "title": title,
            "description": description,
            "changes": changes,
            "at_least": at_least or {},
            "at_most": at_most or {},
        }
    )


def common_sampling(num_evaluations: int, log_snr_min: float, log_snr_max: float) -> ConfigDict:
    """One deterministic sampler on one grid of levels, for `config.scores.sampling`: networks that learned by different
    objectives are sampled alike.

    Args:
      num_evaluations: of the network, for a clip; 2 at least, one for each level.
      log_snr_min, log_snr_max: of the levels, which all the compared schedules must reach.
    """
    return ConfigDict(
        {
            "name": "ddim",
            "num_steps": num_evaluations - 1,
            "ddim": {"eta": 0.0},
            "spacing": {"name": "common", "common": {"log_snr_min": log_snr_min, "log_snr_max": log_snr_max}},
            "threshold": {"name": "static", "static": {"low": -1.0, "high": 1.0}},
            "guidance": {"name": "none"},
        }
    )


def plugin(
    path: str, sha256: str, distance: str, sees: str = "clips", size: int = 0, min_frames: int = 1
) -> ConfigDict:
    """An extractor from a file that `vdm.metrics.features.plugin.write` made, for `config.scores.plugin`.

    Args:
      sha256: of the file.
      distance: frechet | kernel | inception_score.
      sees: clips | frames; a vector for each.
      size: pixels that clips are stretched to, height and width; 0: they are seen as they are.
      min_frames: of a clip.
    """
    return ConfigDict(
        {
            "path": path,
            "sha256": sha256,
            "distance": distance,
            "sees": sees,
            "size": size,
            "min_frames": min_frames,
        }
    )
