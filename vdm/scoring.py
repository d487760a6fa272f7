"""Scores of a network's samples as `config.scores` asks for them: looks at both sets batch by batch, and compares.

Features are computed over the whole mesh, batch by batch; every process then holds all of them and sums in float64, so
a score does not depend on mesh, processes or batches beyond the rounding of the extractor.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, UInt8

from data import pipeline
from data.sources import Source
from vdm import build
from vdm.diffusion import bound
from vdm.measures import Measure
from vdm.metrics import frechet, scores
from vdm.metrics import protocol as protocols
from vdm.metrics.features import resize
from vdm.metrics.features.extractor import Extractor
from vdm.metrics.features.resize import Grid
from vdm.metrics.protocol import Protocol
from vdm.records.record import Metric
from vdm.runtime import mesh as meshes
from vdm.types import BATCH_AXES, Config

Clips = UInt8[np.ndarray, "clips frames height width channels"]
Features = Float32[np.ndarray, "clips vectors d"]
Looked = Mapping[int, Float32[np.ndarray, "_ _ _"]]  # features by the extractor that saw them
Look = Callable[[Clips], Looked]
Place = tuple[Source, Int[np.ndarray, "clips"]]  # clips of a split
ORDER = 0  # seed of which clips of the data are taken, and of what is random in them


def check(experiment: build.Experiment, measures: Sequence[Measure]) -> None:
    """Refuses scores that cannot be computed or called what the config calls them, before anything is drawn.

    Raises:
      ValueError: too few clips, clips that an extractor cannot see or sees with too many numbers, another protocol
        than the preset's, or no score that the preset is about.
    """
    config, splits = experiment.config, experiment.splits
    options = config.scores
    _check_preset(config, measures)
    _check_task(experiment)
    if not measures:
        return
    _check_options(config, meshes.ways(experiment.mesh, BATCH_AXES))
    held = len(vars(splits)[options.split])
    if held < options.num_real:
        raise ValueError(
            f"config.scores.num_real is {options.num_real}, and the {options.split} split has {held} clips; lower it, "
            "or hold more clips out"
        )
    clip = (config.data.num_frames, config.data.height, config.data.width, splits.train.num_channels)
    for measure in measures:
        num_features = measure.extractor.num_features(clip, options.resize)
        if isinstance(measure.distance, scores.Frechet) and num_features > frechet.MAX_FEATURES:
            raise ValueError(
                f"{measure.extractor.name} gives vectors of {num_features} numbers for clips of {clip[0]} frames; a "
                f"Frechet distance takes at most {frechet.MAX_FEATURES}: it holds some forty matrices of their square. "
                f"Take shorter clips, or leave {measure.metric} out of config.scores.metrics"
            )


def _check_preset(config: Config, measures: Sequence[Measure]) -> None:
    name, assumed = config.scores.preset, config.scores.assumed
    if not name:
        return
    preset, given = protocols.preset(name), build.task_of(config).given
    if given != tuple(range(len(given))):
        raise ValueError(
            f"config.scores.preset is {name}, whose given frames are the first ones, and config.sampler.task.name"
            f" {config.sampler.task.name} gives {given}: take prediction, or set the preset to ''"
        )
    followed = [protocol_of(config, measure) for measure in measures if _follows(preset, measure)]
    if not followed:
        raise ValueError(
            f"config.scores.preset is {name}, which is about {preset.fields['metric']} ({preset.fields['extractor']}), "
            f"and config.scores.metrics is {tuple(config.scores.metrics)}: add it, or set config.scores.preset to ''"
        )
    for protocol in followed:
        protocols.require_preset(name, protocol, assumed)


def _check_task(experiment: build.Experiment) -> None:
    task, config, held = experiment.sampler.task, experiment.config, len(experiment.splits.validation)
    if task.num_frames != config.data.num_frames:
        raise ValueError(
            f"the network sees {task.num_frames} frames at a time, and clips of the data have {config.data.num_frames}:"
            " they are not compared. Look at its samples by `sample`, or train it to see all"
        )
    scored = config.scores.num_samples * config.scores.repeats if config.scores.metrics else 0
    asked = max(config.evaluation.num_samples, scored)
    if task.given and asked > held:
        raise ValueError(
            f"{asked} samples are given frames of held-out clips, of which there are {held}: lower"
            " config.evaluation.num_samples, or config.scores.num_samples or repeats, or hold more clips out"
        )


def _follows(preset: protocols.Preset, measure: Measure) -> bool:
    """Whether the preset is about this score; others may stand beside it."""
    return (preset.fields["metric"], preset.fields["extractor"]) == (measure.metric, measure.extractor.name)


def _check_options(config: Config, ways: int) -> None:
    options = config.scores
    build.lookup(dict.fromkeys(protocols.CLIP_RULES), options.clip_rule, "scores.clip_rule")
    build.lookup(dict.fromkeys(resize.GRIDS), options.resize, "scores.resize")
    build.lookup(dict.fromkeys(("N-1", "N")), options.estimator, "scores.estimator")
    build.lookup(dict.fromkeys(("train", "validation")), options.split, "scores.split")
    for key, smallest in (("num_samples", scores.MIN_CLIPS), ("num_real", scores.MIN_CLIPS), ("repeats", 1)):
        if options[key] < smallest:
            raise ValueError(f"config.scores.{key} is {options[key]}; it must be at least {smallest}")
    if options.batch_size < 1 or options.batch_size % ways:
        raise ValueError(
            f"config.scores.batch_size is {options.batch_size}; it must be a multiple of the {ways} devices that split "
            "a batch"
        )
    source = config.data[config.data.name]
    if options.clip_rule == "random" and "flip" in source and source.flip:
        raise ValueError(
            f"config.scores.clip_rule is random and config.data.{config.data.name}.flip is True: half of the clips of "
            "the data would be mirrored; set scores.clip_rule to centre"
        )


def protocol_of(config: Config, measure: Measure) -> Protocol:
    """How a score of the config is measured."""
    options, source = config.scores, config.data[config.data.name]
    named_split = f"{options.split}_split"
    is_frechet = isinstance(measure.distance, scores.Frechet)
    num_given = len(build.task_of(config).given)
    return Protocol(
        metric=measure.metric,
        data=config.data.tfds.dataset if config.data.name == "tfds" else config.data.name,
        num_samples=options.num_samples,
        num_real=options.num_real,
        num_frames=config.data.num_frames,
        num_given=num_given,
        given_counted=num_given > 0,
        samples_per_clip=1,
        pooled=True,
        frame_stride=source.frame_stride if "frame_stride" in source else 1,
        clip_rule=options.clip_rule,
        height=config.data.height,
        width=config.data.width,
        range="8-bit",
        resize=options.resize if measure.extractor.size else "",
        split=source[named_split] if named_split in source else options.split,  # noqa: SIM401
        extractor=measure.extractor.name,
        extractor_sha256=measure.extractor.sha256,
        estimator=options.estimator if is_frechet else "",
        repeats=options.repeats,
        seed=build.seed_of(config, "sample"),
    )


def recorded_protocol(config: Config, measure: Measure) -> dict[str, Any]:
    """The protocol as records have it, with what it is called."""
    protocol, name = dataclasses.asdict(protocol_of(config, measure)), config.scores.preset
    if name and _follows(protocols.preset(name), measure):
        protocol |= {"preset": name, "assumed": list(config.scores.assumed)}
    return protocol


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores a network's clips 0, ..., num_samples x repeats - 1, of which it needs the features alone.

    Attributes:
      look: from a batch of clips to what every extractor sees of them.
      real, others: what they see of the data; see `_places`.
    """

    config: Config
    measures: Sequence[Measure]
    look: Look
    real: Looked
    others: Looked | None

    def scores(self, looked: Sequence[Looked]) -> tuple[Metric, ...]:
        """What `look` gave for the clips, batch by batch -> their scores."""
        samples = _joined(looked)
        return tuple(self._score(measure, samples) for measure in self.measures)

    def _score(self, measure: Measure, samples: Looked) -> Metric:
        look, options = id(measure.extractor), self.config.scores
        sets = np.split(samples[look], options.repeats)
        others, seed = None if self.others is None else self.others[look], build.seed_of(self.config, "sample")
        return _metric(self.config, measure, measure.distance.score(sets, self.real[look], others, seed))


def make_scorer(
    experiment: build.Experiment, measures: Sequence[Measure], beat: Callable[[], None] = lambda: None
) -> Scorer:
    """Looks at the data, batch by batch, and compiles what looks at samples; calls `beat` after each batch."""
    options = experiment.config.scores
    extractors = {id(measure.extractor): measure.extractor for measure in measures}
    size = min(options.batch_size, experiment.config.evaluation.batch_size)  # samples come in batches of that
    looks = {
        name: make_features(experiment.mesh, extractor, size, options.resize, beat)
        for name, extractor in extractors.items()
    }

    def look(clips: Clips) -> Looked:
        return {name: see(clips) for name, see in looks.items()}

    def of_data(place: Place) -> Looked:
        return _joined([look(clips) for clips in _clips(options, place)])

    real, others = _places(experiment)
    return Scorer(experiment.config, measures, look, of_data(real), None if others is None else of_data(others))


def _joined(looked: Sequence[Looked]) -> Looked:
    return {name: np.concatenate([batch[name] for batch in looked]) for name in looked[0]}


def _places(experiment: build.Experiment) -> tuple[Place, Place | None]:
    """Where the clips of the data lie, and as many others as there are samples, of the training split, for the floor;
    None where it has not so many, which is said.

    Clips often lie class by class: they are taken in an order of their own, the same for every run.
    """
    options, splits = experiment.config.scores, experiment.splits
    source = vars(splits)[options.split]
    train = _order(len(splits.train))[options.num_real if options.split == "train" else 0 :]
    real = source, _order(len(source))[: options.num_real]
    if len(train) < options.num_samples:
        print(f"no floor: it needs {options.num_samples} more clips of the training split, which has {len(train)}")
        return real, None
    return real, (splits.train, train[: options.num_samples])


def _order(length: int) -> Int[np.ndarray, "length"]:
    return np.random.default_rng(ORDER).permutation(length)


def _clips(options: Config, place: Place) -> Iterator[Clips]:
    """In batches."""
    source, rows = place
    if options.clip_rule == "random":
        yield from (batch["video"] for batch in pipeline.drawn(source, rows, options.batch_size, ORDER))
        return
    for first in range(0, len(rows), options.batch_size):
        yield np.stack([source[int(row)]["video"] for row in rows[first : first + options.batch_size]])


def make_features(
    mesh: Mesh, extractor: Extractor, batch_size: int, grid: Grid = "centres", beat: Callable[[], None] = lambda: None
) -> Callable[[Clips], Features]:
    """The function from 8-bit clips to what the extractor sees of them, computed over the mesh in batches.

    ValueError, when called, for an extractor that gives another number of vectors than it says.
    """
    rows = meshes.batch_rows(mesh, batch_size)
    weights = jax.device_put(extractor.weights, meshes.replicated(mesh))

    @functools.partial(jax.jit, out_shardings=meshes.replicated(mesh))
    def of(weights: Any, video: UInt8[Array, "b f h w c"]) -> Float[Array, "n d"]:
        return extractor.features(weights, bound.to_float(video), grid)

    def features(clips: Clips) -> Features:
        parts = []
        for first in range(0, len(clips), batch_size):
            some = clips[first : first + batch_size]
            padded = some[np.arange(batch_size) % len(some)][rows]
            part = np.asarray(of(weights, meshes.global_batch(padded, mesh, batch_size)))
            extractor.require_vectors(len(part), batch_size, clips.shape[1])
            parts.append(part.reshape(batch_size, extractor.num_vectors(clips.shape[1]), -1)[: len(some)])
            beat()
        return np.concatenate(parts)

    return features


def _metric(config: Config, measure: Measure, found: scores.Score) -> Metric:
    curve = found.curve
    return Metric(
        measure.title,
        found.value,
        found.low,
        found.high,
        "",
        measure.distance.higher_is_better,
        recorded_protocol(config, measure),
        floor=found.floor,
        at_infinity=None if curve is None else curve.at_infinity,
        by_number=None if curve is None else tuple(zip(curve.sizes, curve.means, strict=True)),
    )
