"""Config -> the scores of samples that it asks for. To add one, write its extractor and give it a line in the table."""

from __future__ import annotations

import dataclasses

from vdm import build
from vdm.metrics import scores
from vdm.metrics.features import extractor, plugin
from vdm.metrics.features.extractor import Extractor
from vdm.types import Config


@dataclasses.dataclass(frozen=True)
class Measure:
    """A score of samples: what looks at the clips, and what is made of what it sees.

    Attributes:
      metric: its name in the config; title: in reports.
    """

    metric: str
    title: str
    extractor: Extractor
    distance: scores.Distance


def measures_of(config: Config, i3d_weights: str = "") -> tuple[Measure, ...]:
    """The scores of `config.scores.metrics`; weights are read for those alone.

    Args:
      i3d_weights: a PyTorch file to read I3D from; empty: the package's is.

    Raises:
      ValueError: a name that is in no table, a kernel distance of frames, or an extractor whose file is not there or
        another one.
    """
    options = config.scores
    clash = sorted(set(options.plugin) & set(METRICS))
    if clash:
        raise ValueError(
            f"config.scores.plugin names {', '.join(clash)}, which is a metric's name already; take another"
        )
    for name in options.metrics:
        title_of(config, name)
    makers = dict.fromkeys(make for name, (_, make, _) in METRICS.items() if name in options.metrics)
    if i3d_weights and extractor.i3d_kinetics not in makers:
        raise ValueError(
            f"--i3d_weights={i3d_weights} is given, and config.scores.metrics is {tuple(options.metrics)}: fvd and kvd "
            "see clips with I3D. Add one of them, or leave the option out"
        )
    extractors = {make: make(i3d_weights) if make is extractor.i3d_kinetics else make() for make in makers}

    def measure(name: str) -> Measure:
        if name in METRICS:
            title, make, distance = METRICS[name]
            return Measure(name, title, extractors[make], _distance(distance, options))
        rest = dict(options.plugin[name])
        distance = rest.pop("distance")
        build.lookup(extractor.SEES, rest["sees"], f"scores.plugin.{name}.sees")
        if (distance, rest["sees"]) == ("kernel", "frames"):
            raise ValueError(
                f"config.scores.plugin.{name} asks for a kernel distance of frames: it compares independent vectors, "
                "and frames of one clip are not. Take one vector a clip, or the distance frechet"
            )
        return Measure(distance, title_of(config, name), plugin.read(name, **rest), _distance(distance, options))

    return tuple(measure(name) for name in options.metrics)


def title_of(config: Config, name: str) -> str:
    """What a score is called in records. Raises ValueError for one that is in no table."""
    entry = build.lookup(METRICS | dict(config.scores.plugin), name, "scores.metrics")
    return entry[0] if name in METRICS else f"{entry.distance} of {name}"


def _distance(name: str, options: Config) -> scores.Distance:
    make = build.lookup(DISTANCES, name, "scores.plugin.*.distance")
    return make(estimator=options.estimator) if make is scores.Frechet else make()


DISTANCES = {"frechet": scores.Frechet, "kernel": scores.Kernel, "inception_score": scores.InceptionScore}
METRICS = {  # name -> title, extractor, distance
    "fvd": ("FVD", extractor.i3d_kinetics, "frechet"),
    "kvd": ("KVD", extractor.i3d_kinetics, "kernel"),
    "frame_frechet": ("Frechet distance of frames (VGG16)", extractor.vgg16_frames, "frechet"),
    "motion": ("Frechet distance of motion", extractor.tracked_motion, "frechet"),
}
