"""How a score was measured. Scores of unlike protocols are not compared (`records.comparison`).

FVD values of one model differ by a factor of two between papers that changed nothing but the number of clips, which
frames of a video were taken, or how they were resized.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal

ClipRule = Literal["centre", "random"]  # the middle of a video, or consecutive frames from a random one on; in both
# cases one clip of every video that is long enough
CLIP_RULES = ("centre", "random")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that a score depends on besides the model that is scored and the sampler that drew from it.

    Attributes:
      metric: what was computed.
      data: that samples are held against, by the name of the source.
      num_samples, num_real: clips of the model, and clips of the data that they are held against.
      num_frames: of the clips that were compared.
      num_given: leading frames that the model was given; given_counted: whether they are part of the comparison.
      samples_per_clip: drawn for each clip of the data; pooled: whether all are one set (else the score is averaged
        over sets of one sample a clip).
      frame_stride: of the frames of a video, 1: all. clip_rule: which of them make its clip.
      height, width: of the clips, pixels.
      range: of a clip's values as it is compared; 8-bit: samples are rounded to the 256 levels of the data.
      resize: how the extractor's size is reached (`features.resize`); empty: the clips are seen as they are.
      split: of the data.
      extractor, extractor_sha256: what sees the features that are compared, and the hash of its file or settings.
      estimator: of covariances, N-1 or N; empty: none.
      repeats: independent sets of samples whose scores are averaged.
      seed: of the samples.
    """

    metric: str
    data: str
    num_samples: int
    num_real: int
    num_frames: int
    num_given: int
    given_counted: bool
    samples_per_clip: int
    pooled: bool
    frame_stride: int
    clip_rule: ClipRule
    height: int
    width: int
    range: str
    resize: str
    split: str
    extractor: str
    extractor_sha256: str
    estimator: str
    repeats: int
    seed: int


FREE = "any"  # in a preset: the protocol leaves it to its user


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published protocol: fields of Protocol as its source has them. What it does not say is unknown.

    Attributes:
      fields: values, or FREE; metric and extractor, which say what score it is about, are always known.
      remark: what must be known of the numbers that were published under it.
    """

    fields: Mapping[str, Any]
    source: str
    remark: str = ""

    @property
    def unknown(self) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(Protocol) if field.name not in self.fields)


def preset(name: str) -> Preset:
    """Raises ValueError for a name that there is not."""
    if name not in PRESETS:
        raise ValueError(f"config.scores.preset is {name!r}; it must be empty or one of: {', '.join(PRESETS)}")
    return PRESETS[name]


def require_preset(name: str, protocol: Protocol, assumed: Collection[str] = ()) -> None:
    """Raises ValueError unless a score measured in this way may carry the preset's name.

    Args:
      assumed: fields that the source does not give and that the user answers for; the score's record names them.
    """
    published = preset(name)
    if not set(assumed) <= set(published.unknown):
        raise ValueError(
            f"config.scores.assumed is {tuple(assumed)}; of the preset {name} only what its source does not say can be "
            f"assumed: {', '.join(published.unknown)}"
        )
    open_fields = [field for field in published.unknown if field not in assumed]
    if open_fields:
        raise ValueError(
            f"the preset {name} cannot be used as it is: its source ({published.source}) does not say "
            f"{', '.join(open_fields)}. To answer for your own values, which the record will name, list these fields "
            "in config.scores.assumed"
        )
    given = dataclasses.asdict(protocol)
    wrong = [
        f"{field} is {given[field]!r}, not {value!r}"
        for field, value in published.fields.items()
        if value != FREE and given[field] != value
    ]
    if wrong:
        raise ValueError(f"this is not the protocol {name} ({published.source}): {'; '.join(wrong)}")


# several files hold the same network
_I3D = {"metric": "fvd", "data": FREE, "extractor": "i3d", "extractor_sha256": FREE}
_UNCONDITIONAL = {"num_given": 0, "given_counted": False}
_SMALL = {"height": 64, "width": 64, "seed": FREE}
# How it resizes to I3D's size is not published: that is done inside a TorchScript file.
_STYLEGAN_V = _I3D | _UNCONDITIONAL
_STYLEGAN_V |= {"samples_per_clip": 1, "pooled": True, "repeats": 1}
_STYLEGAN_V |= {"num_samples": 2048, "num_real": 2048, "clip_rule": "random", "estimator": "N", "range": "8-bit"}
_STYLEGAN_V |= {"height": FREE, "width": FREE, "split": FREE, "seed": FREE}  # as the data set is prepared
_STYLEGAN_V_SOURCE = (
    "universome/stylegan-v at 1f630af: metric_main.py, frechet_video_distance.py and metric_utils.py of src/metrics, "
    "src/training/dataset.py"
)
# Its code has both a pooled score and one of single samples, and does not say how many clips its tables are of.
_MCVD = _I3D | _SMALL
_MCVD |= {"given_counted": True, "samples_per_clip": 10, "resize": "centres", "split": "test"}
_MCVD |= {"estimator": "N-1", "repeats": 1}
_MCVD_SOURCE = (
    "voletiv/mcvd-pytorch at 226a3fd: models/fvd/fvd.py, runners/ncsn_runner.py, configs, example_scripts/final"
)
_HO = "Ho et al. 2022 (arXiv 2204.03458)"
PRESETS = {
    "stylegan_v_fvd2048_16f": Preset(_STYLEGAN_V | {"num_frames": 16, "frame_stride": 1}, _STYLEGAN_V_SOURCE),
    "stylegan_v_fvd2048_128f": Preset(_STYLEGAN_V | {"num_frames": 128, "frame_stride": 1}, _STYLEGAN_V_SOURCE),
    "stylegan_v_fvd2048_128f_subsample8f": Preset(
        _STYLEGAN_V | {"num_frames": 16, "frame_stride": 8}, _STYLEGAN_V_SOURCE
    ),
    "bair_1_to_15": Preset(
        _I3D
        | _SMALL
        | {
            "data": "bair_robot_pushing_small",
            "num_given": 1,
            "num_frames": 16,
            "given_counted": True,
            "num_real": 256,
            "split": "test",
            "frame_stride": 1,
        },
        "Tobi-r9/RaMViD, issue 9 (clips of 16 frames with the given one)",
    ),
    "kinetics600_5_to_11": Preset(
        _I3D | _SMALL | {"num_given": 5, "num_frames": 16},
        _HO,
        "Ho et al. report 16.2, and 16.9 where the clips of the data are drawn with replacement.",
    ),
    "ucf101_16x64x64": Preset(
        _UNCONDITIONAL
        | _SMALL
        | {"metric": "frechet", "data": "ucf101", "extractor": "c3d"}  # which file is unknown
        | {"num_samples": 10_000, "num_frames": 16},
        _HO,
        "A Frechet distance of C3D features, which the paper calls FID: it is neither FID nor FVD.",
    ),
    "smmnist_5_to_10": Preset(_MCVD | {"num_given": 5, "num_frames": 15}, _MCVD_SOURCE),
    "kth_10_to_30": Preset(_MCVD | {"num_given": 10, "num_frames": 40}, _MCVD_SOURCE),
    "kth_10_to_40": Preset(_MCVD | {"num_given": 10, "num_frames": 50}, _MCVD_SOURCE),
}
