"""Draw clips from a trained run, with the averaged parameters of its newest checkpoint.

Writes DIR/samples/<step>/: clips.npz (uint8 [clips, frames, height, width, channels]), samples.mp4 and samples.gif (all
clips in a grid) and sheet.png (a clip a row, a frame a column). The config must be the run's own, except for
`config.sampler`, `config.evaluation`, `config.run` and the parts of `config.vary` that come after training, which may
differ. Clip i starts from the noise of (config.seed, config.vary.sample, i), whatever the network: two runs of one seed
can be compared clip by clip.

With `config.sampler.task` frames are given: clip i those of held-out clip i, or all clips those of the file --given,
which holds the given frames or a whole clip. They come back as they are, and sheet.png has rings around them.

Example: python -m vdm sample --config=configs/demo.py --workdir=runs/shapes --num_clips=64
         python -m vdm sample ... --config.sampler.task.name=prediction --given=clip.mp4
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.typing import ArrayLike
from jaxtyping import Array, Int, UInt8

from data import video_io
from data.sources import Example
from vdm import build
from vdm.costs import profiling
from vdm.diffusion import bound, noise_priors, objectives, process, samplers
from vdm.records import identity
from vdm.records.record import write_whole
from vdm.runtime import checkpoints, distributed, random, watchdog
from vdm.runtime import mesh as meshes
from vdm.runtime.random import Purpose
from vdm.types import BATCH_AXES, Condition, Config, Denoiser, Key, Params, Video

OPTIONS = (
    ("num_clips", 16, "clips to draw"),
    ("checkpoint_step", 0, "of the checkpoint; 0: the newest"),
    ("fps", 8, "of the files"),
    ("given", "", "video file whose frames are given to every clip; empty: those of held-out clips"),
    (
        "profile",
        0,
        f"trace N batches after the first {profiling.SKIPPED}, tell by block where their time goes; 0: none",
    ),
)
ARRAYS = "clips.npz"
MAY_DIFFER = ("sampler", "evaluation", "run")  # sections of the config that a trained run does not depend on
DRAWN_LATER = ("sample", "evaluation")  # parts of `config.vary` that it does not depend on either

Clips = UInt8[np.ndarray, "clips frames height width channels"]
Indices = TypeVar("Indices", Array, np.ndarray)  # of clips


class Known(NamedTuple):
    """The clips whose frames are given, and their classes; None where there are none."""

    video: ArrayLike  # uint8 [batch, frames, height, width, channels]
    label: ArrayLike | None  # int [batch]


Sampler = Callable[..., Video]  # of parameters, the clips' indices and, where frames are given, what is known


def main(
    config: Config, workdir: str, *, num_clips: int, checkpoint_step: int, fps: int, given: str = "", profile: int = 0
) -> int:
    require_clips(num_clips)
    if not 1 <= fps <= video_io.MAX_GIF_FPS:
        raise ValueError(f"--fps is {fps}; it must be in [1, {video_io.MAX_GIF_FPS}], what a GIF can show")
    experiment, params, step = restore(config, workdir, checkpoint_step or None)
    known = of_video(experiment, given) if given else held_out(experiment)
    num_batches = -(-num_clips // config.evaluation.batch_size)
    profiling.require_calls(profile, num_batches, "draw more with --num_clips, or fewer at a time")
    with (
        watchdog.Watchdog(config.run.stuck_after_seconds) as dog,
        profiling.watch(make_sampler(experiment), profile, workdir, params) as sampler,
    ):
        clips = np.concatenate(list(in_batches(experiment, sampler, params, num_clips, dog.beat, known)))
    if distributed.is_writer():
        write(folder_of(workdir, step), clips, fps, experiment.sampler.task.given)
    print(f"{num_clips} clips of step {step}: {folder_of(workdir, step)}")
    return 0


def folder_of(workdir: epath.PathLike, step: int, purpose: str = "samples") -> epath.Path:
    """Where the samples of a checkpoint lie: those of this verb, or those of an "evaluation"."""
    return epath.Path(workdir) / purpose / f"{step:08d}"


def restore(config: Config, workdir: epath.PathLike, step: int | None = None) -> tuple[build.Experiment, Params, int]:
    """The experiment of a trained run, the averaged parameters of a checkpoint (None: the newest), and its step.

    Raises:
      ValueError: no checkpoint, a damaged one, or one of a run with another config; the first and the last before the
        data are opened.
    """
    directory = epath.Path(workdir) / "checkpoints"
    checkpoints.agreed_steps(directory)
    saved = checkpoints.read_identity(directory, step=step)
    identity.require_same_identity(_without(saved), _without(identity.identity(config)), str(workdir))
    experiment = build.experiment(config)
    state = checkpoints.restore(directory, experiment.abstract_state(), step=step)
    return experiment, experiment.average_of(state), int(state.step)


def _without(config):
    kept = {key: value for key, value in config.items() if key not in (*MAY_DIFFER, "vary")}
    if "vary" not in config:  # of a checkpoint from before there was one, which is of another code
        return kept
    return kept | {"vary": {part: number for part, number in config["vary"].items() if part not in DRAWN_LATER}}


def require_clips(num_clips: int) -> None:
    if num_clips < 1:
        raise ValueError(f"{num_clips} clips were asked for; draw at least 1")


def make_draw(experiment: build.Experiment, beat: Callable[[], None] = lambda: None) -> Callable[[Params, int], Clips]:
    """The function from parameters and a number of clips to clips 0, 1, ...; calls `beat` after each batch."""
    draw = make_draw_in_batches(experiment, beat)
    return lambda params, num_clips: np.concatenate(list(draw(params, num_clips)))


def make_draw_in_batches(
    experiment: build.Experiment, beat: Callable[[], None] = lambda: None
) -> Callable[[Params, int], Iterator[Clips]]:
    """As `make_draw`, clips in batches as for evaluation, of which one is held at a time."""
    sampler = make_sampler(experiment)
    known = held_out(experiment)
    return lambda params, num_clips: in_batches(experiment, sampler, params, num_clips, beat, known)


def in_batches(
    experiment: build.Experiment,
    sampler: Sampler,
    params: Params,
    num_clips: int,
    beat: Callable[[], None],
    known: Callable[[Int[np.ndarray, "batch"]], Known | None],
) -> Iterator[Clips]:
    """Clips 0, 1, ... by a sampler of `make_sampler`, a batch as for evaluation at a time; calls `beat` after each."""
    require_clips(num_clips)
    ways = meshes.ways(experiment.mesh, BATCH_AXES)
    size = min(experiment.config.evaluation.batch_size, -(-num_clips // ways) * ways)
    for first in range(0, num_clips, size):
        with jax.set_mesh(experiment.mesh):
            indices = np.arange(first, first + size)
            videos = np.asarray(sampler(params, indices, known(indices)))
        beat()
        yield video_io.to_uint8(np.clip(videos[: num_clips - first], -1, 1))


def class_of(indices: Indices, num_classes: int) -> Indices:
    """The class that clips are asked for where there are labels: each in turn."""
    return indices % num_classes


def classes_asked_for(experiment: build.Experiment, indices: Int[np.ndarray, "batch"]) -> Int[np.ndarray, "batch"]:
    """Of clips whose frames are given by held-out ones those of these, of others each in turn."""
    if not experiment.sampler.task.given:
        return class_of(indices, len(experiment.splits.train.class_names))
    return _labels(_held_clips(experiment, indices))


def _held_clips(experiment: build.Experiment, indices: Int[np.ndarray, "batch"]) -> list[Example]:
    held = experiment.splits.validation
    return [held[int(index) % len(held)] for index in indices]


def _labels(clips: Sequence[Example]) -> Int[np.ndarray, "clips"]:
    return np.array([clip["label"] for clip in clips])  # pyright: ignore[reportTypedDictNotRequiredAccess]


def held_out(experiment: build.Experiment) -> Callable[[Int[np.ndarray, "batch"]], Known | None]:
    """What the task gives of held-out clips, in their order and from the first again; None where it gives nothing."""
    task = experiment.sampler.task
    if task.given and not len(experiment.splits.validation):
        raise ValueError(
            f"config.sampler.task.name is {experiment.config.sampler.task.name}, which gives frames of held-out clips,"
            " and the data hold none out; do so, or set it to generation"
        )

    def known(indices: Int[np.ndarray, "batch"]) -> Known | None:
        if not task.given:
            return None
        clips = _held_clips(experiment, indices)
        label = None if experiment.num_classes is None else _labels(clips)
        return Known(np.stack([clip["video"][list(task.positions)] for clip in clips]), label)

    return known


def of_video(experiment: build.Experiment, path: str) -> Callable[[Int[np.ndarray, "batch"]], Known]:
    """What the task gives of a video file, the same for all clips; of classes each in turn.

    Raises:
      ValueError: a task that gives nothing, or a video of another size, of colours where the data are grey, or with
        another number of frames than the task gives or the clip has.
    """
    task, shape = experiment.sampler.task, experiment.frame_shape
    if not task.given:
        raise ValueError(
            f"--given={path} is given, and config.sampler.task.name is {experiment.config.sampler.task.name}, which"
            " gives no frames: set it to prediction, say"
        )
    if not os.path.isfile(path):
        raise ValueError(f"--given={path}: there is no such file")
    frames = np.stack(list(itertools.islice(video_io.iterate_frames(path), task.num_frames + 1)))
    is_grey = (frames == frames[..., :1]).all()
    colours = "grey" if is_grey else "coloured"
    if frames.shape[1:3] != shape[:2] or (shape[2] == 1 and not is_grey):
        raise ValueError(
            f"{path} has {colours} frames of {frames.shape[1]} x {frames.shape[2]} pixels, and the network's clips"
            f" {shape[2]} channels of {shape[0]} x {shape[1]}: convert the file first"
        )
    if len(frames) not in (len(task.given), task.num_frames):
        count = len(frames) if len(frames) <= task.num_frames else f"more than {task.num_frames}"
        raise ValueError(
            f"{path} has {count} frames; the task gives {len(task.given)} of {task.num_frames}: cut the file to those"
            " that are given, or to a whole clip"
        )
    clip = np.zeros((task.num_frames, *shape), np.uint8)
    whole = len(frames) == task.num_frames
    clip[list(task.given)] = (frames[list(task.given)] if whole else frames)[..., : shape[2]]

    def known(indices: Int[np.ndarray, "batch"]) -> Known:
        label = None if experiment.num_classes is None else class_of(indices, experiment.num_classes)
        return Known(np.broadcast_to(clip, (len(indices), *clip.shape)), label)

    return known


def make_sampler(experiment: build.Experiment) -> Sampler:
    """The compiled sampler: parameters, the clips' indices and what is known of them to clips, about in [-1, 1]. Given
    frames come back as they are.
    """
    sampler = experiment.sampler
    shape = (sampler.task.num_frames, experiment.frame_shape)

    def sample(params: Params, indices: Int[Array, "batch"], known: Known | None = None) -> Video:
        if bool(sampler.task.given) != (known is not None):
            raise ValueError(f"the task gives frames {sampler.task.given}; hand over clips with them, and only then")
        objective, x0 = experiment.objective_of(params), None
        if known is not None:
            x0 = bound.to_float(jnp.asarray(known.video))
            x0 = jax.lax.with_sharding_constraint(x0, meshes.video_sharding(experiment.mesh))

        def draw(key: Key) -> Video:
            return noise_priors.correlate(objective.noise_prior, random.example_noise(key, indices, *shape))

        def noise(i: Int[Array, ""]) -> Video:
            return draw(experiment.key(Purpose.SAMPLE_NOISE, i))

        def told(label: Int[Array, "batch"] | None) -> Denoiser:
            index = sampler.task.frame_index(len(indices))
            return objectives.denoiser(objective, experiment.predict(params, Condition(label), frame_index=index))

        num_classes = experiment.num_classes
        if num_classes is None:
            conditional, unconditional = told(None), None
        else:
            asked = class_of(indices, num_classes) if known is None else jnp.asarray(known.label)
            conditional, unconditional = told(asked), told(jnp.full_like(indices, num_classes))
        denoiser, step = sampler.prepared(conditional, unconditional, x0, objective.noise_prior)
        start = draw(experiment.key(Purpose.SAMPLE_PRIOR))
        start = jax.lax.with_sharding_constraint(start, meshes.video_sharding(experiment.mesh))
        prior = samplers.prior(objective.schedule, sampler.times, start)
        clips = samplers.sample(denoiser, objective.schedule, step, sampler.times, prior, noise)
        return clips if x0 is None else jnp.where(process.spread(sampler.task.is_given(len(x0))), x0, clips)

    return jax.jit(sample, out_shardings=meshes.replicated(experiment.mesh))


def write(folder: epath.Path, clips: Clips, fps: float, given: Collection[int] = ()) -> None:
    """Writes the clips as arrays, as video files and as a contact sheet, in which `given` frames are marked."""
    folder.mkdir(parents=True, exist_ok=True)
    moving = video_io.grid(clips)
    video_io.write(folder / "samples.mp4", moving, fps)
    video_io.write(folder / "samples.gif", moving, fps)
    video_io.write_contact_sheet(folder / "sheet.png", clips, marked=given)
    packed = io.BytesIO()
    np.savez_compressed(packed, clips=clips)
    write_whole(folder / ARRAYS, packed.getvalue())  # last: where it is, the others are


def written(folder: epath.Path) -> bool:
    """Whether `write` was here, to its end."""
    return (folder / ARRAYS).exists()


def read(folder: epath.Path) -> Clips:
    """The clips that `write` left."""
    with np.load(io.BytesIO((folder / ARRAYS).read_bytes())) as packed:
        return packed["clips"]
