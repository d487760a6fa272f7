"""A folder of the user's own videos, searched recursively.

Every file is decoded once, when the index is built: its frames are cropped about the centre to the clip's aspect ratio,
resized with an antialiasing filter, and held in an ArrayRecord file, one record a frame, so that a clip reads its own
frames only and no later epoch decodes anything. A clip is drawn by the rules of `data.clips`: one per video and epoch.
The cache is keyed by the names, sizes and modification times of the files and by the size of the frames; a folder that
changes gets a new one beside the old.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
import uuid

import numpy as np

from data import video_io
from data.clips import ClipSampler, Window, crop_and_resize
from data.sources import Example, Splits

log = logging.getLogger(__name__)

SUFFIXES = (".mp4", ".webm", ".gif", ".avi", ".mov", ".mkv", ".m4v")
DECODING = 2  # goes into the cache's key; another number whenever the same file gives other records
NAMES_SHOWN = 10  # files that a message names before it counts the rest

_FRAMES, _INDEX = "frames.array_record", "index.json"


@dataclasses.dataclass(frozen=True)
class Video:
    """One decoded file: its records are [first, first + num_frames) of the cache's ArrayRecord.

    `fps` is what the file states, frames per second; `digest` is the SHA-256 of the resized frames.
    """

    name: str
    first: int
    num_frames: int
    fps: float
    digest: str


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file that gives no clips, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the files of a folder. `str(report)` is for people."""

    num_files: int
    left_out: tuple[LeftOut, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.left_out)} of {self.num_files} video files left out"]
        lines += [f"  {item.name}: {item.reason}" for item in self.left_out[:NAMES_SHOWN]]
        rest = len(self.left_out) - NAMES_SHOWN
        return "\n".join([*lines, f"  and {rest} more"] if rest > 0 else lines)


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The cache: frames of one size from all files that could be decoded, and the files that could not."""

    records: str
    height: int
    width: int
    videos: tuple[Video, ...]
    broken: tuple[LeftOut, ...]


@dataclasses.dataclass(frozen=True)
class Folder:
    """One split of a folder: a clip per video. Reads the cache only. See `data.sources.Source`."""

    decoded: Decoded
    videos: tuple[Video, ...]
    clips: ClipSampler
    report: Report

    @property
    def num_channels(self) -> int:
        return 3

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

    @property
    def fingerprint(self) -> str:
        facts = [[video.name, video.digest] for video in self.videos]
        return _digest(["folder", DECODING, dataclasses.astuple(self.clips), facts])

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Example:
        video = self._video(index)
        return self._read(video, self.clips.centre(video.num_frames))

    def example(self, index: int, rng: np.random.Generator) -> Example:
        video = self._video(index)
        return self._read(video, self.clips.draw(video.num_frames, rng))

    def _video(self, index: int) -> Video:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self.videos[index]

    def _read(self, video: Video, window: Window) -> Example:
        records = _open_records(self.decoded.records).__getitems__((video.first + window.indices).tolist())
        frames = np.stack([np.frombuffer(record, np.uint8) for record in records])
        return {"video": window.orient(frames.reshape(-1, self.decoded.height, self.decoded.width, 3))}


def splits(
    path: str | os.PathLike[str],
    *,
    clips: ClipSampler,
    height: int,
    width: int,
    cache: str | os.PathLike[str] = "",
    validation_fraction: float = 0.1,
) -> Splits:
    """Training and validation clips of a folder, uint8 [num_frames, height, width, 3], without labels.

    Validation is the given share of the videos, at least one, those whose names hash lowest: it does not depend on the
    order or the contents of the files. With `validation_fraction=0` all videos are for training, none for validation.
    Files that cannot be decoded or are shorter than a clip are left out, counted and named in `splits.train.report` and
    in a warning.

    Args:
      path: of the folder. Hidden folders in it are not searched.
      cache: folder for the decoded frames; empty: `<path>/.vdm_cache`.

    Raises:
      ValueError: there is no folder, no video file, none that can be decoded, none as long as a clip, or one usable
        video only although validation needs its own; the message says what to do.
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation_fraction must be in [0, 1), got {validation_fraction}")
    files = find_videos(path)
    decoded = decode(pathlib.Path(path), files, pathlib.Path(cache or pathlib.Path(path, ".vdm_cache")), height, width)
    fits = [video for video in decoded.videos if clips.num_offsets(video.num_frames)]
    short = [
        LeftOut(video.name, f"its {video.num_frames} frames are fewer than the {clips.span} that a clip spans")
        for video in decoded.videos
        if not clips.num_offsets(video.num_frames)
    ]
    report = Report(len(files), (*decoded.broken, *short))
    if not decoded.videos:
        raise ValueError(f"no video file in {path} can be decoded; re-encode them, for example as h264 MP4.\n{report}")
    if not fits:
        longest = max(video.num_frames for video in decoded.videos)
        raise ValueError(
            f"{clips.describe()} is longer than every video in {path}, the longest has {longest} frames; "
            f"lower num_frames or frame_stride.\n{report}"
        )
    if report.left_out:
        log.warning("%s: %s", path, report)
    train, validation = _split(fits, validation_fraction)
    return Splits(Folder(decoded, train, clips, report), Folder(decoded, validation, clips, report))


def find_videos(path: str | os.PathLike[str]) -> list[str]:
    """The names of all video files below a folder, relative to it, sorted. ValueError if there is none."""
    if not os.fspath(path) or not os.path.isdir(path):
        raise ValueError(f"there is no folder {os.fspath(path)!r}; set the path to a folder of your videos")
    found = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [pathlib.Path(folder, name).relative_to(path).as_posix() for name in names]
    videos = sorted(
        name for name in found if name.lower().endswith(SUFFIXES) and not pathlib.Path(name).name.startswith(".")
    )
    if not videos:
        raise ValueError(
            f"{path} holds no video file ({len(found)} files of other kinds); put some there: {', '.join(SUFFIXES)}"
        )
    return videos


def decode(path: pathlib.Path, files: list[str], cache: pathlib.Path, height: int, width: int) -> Decoded:
    """Opens the cache of a folder, after building it if the files or the size of the frames have changed.

    It appears whole or not at all: it is built beside its place and renamed, so a run that is killed leaves nothing
    that another would read, and of two runs that build it at once the first to end wins.
    """
    key = _digest([DECODING, height, width, [[name, *_size_and_time(path / name)] for name in files]])
    place = cache / key
    if not (place / _INDEX).exists():
        building = cache / f"{key}.building-{uuid.uuid4().hex}"
        try:
            building.mkdir(parents=True)
        except OSError as error:
            raise ValueError(f"cannot write the decoded frames below {cache} ({error}); set another cache") from error
        try:
            _build(path, files, building, height, width)
            try:
                building.rename(place)
            except OSError:
                if not (place / _INDEX).exists():
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    index = json.loads((place / _INDEX).read_text())
    return Decoded(
        records=str(place / _FRAMES),
        height=height,
        width=width,
        videos=tuple(Video(**video) for video in index["videos"]),
        broken=tuple(LeftOut(**item) for item in index["broken"]),
    )


def _size_and_time(file: pathlib.Path) -> tuple[int, int]:
    if not file.exists():  # a link whose target is gone: it is reported as a file that cannot be decoded
        return 0, 0
    return file.stat().st_size, file.stat().st_mtime_ns


def _build(path: pathlib.Path, files: list[str], place: pathlib.Path, height: int, width: int) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    log.info("decoding %d video files of %s to %dx%d", len(files), path, height, width)
    writer = ArrayRecordWriter(str(place / _FRAMES), "group_size:1")
    videos, broken, num_records = [], [], 0
    for name in files:
        first, digest = num_records, hashlib.sha256()
        try:
            for frame in video_io.iterate_frames(path / name):
                record = crop_and_resize(frame, height, width).tobytes()
                writer.write(record)
                digest.update(record)
                num_records += 1
            fps = video_io.frame_rate(path / name)
            videos.append(Video(name, first, num_records - first, fps, digest.hexdigest()))
        except (ValueError, FileNotFoundError) as error:  # the records that it wrote before it broke stay unused
            broken.append(LeftOut(name, str(error)))
    writer.close()
    index = {"videos": [dataclasses.asdict(v) for v in videos], "broken": [dataclasses.asdict(b) for b in broken]}
    (place / _INDEX).write_text(json.dumps(index, indent=1))


def _split(videos: list[Video], validation_fraction: float) -> tuple[tuple[Video, ...], tuple[Video, ...]]:
    if not validation_fraction:
        return tuple(videos), ()
    if len(videos) < 2:
        raise ValueError(
            f"{videos[0].name} is the only usable video and validation needs one of its own; add a video, "
            "or set validation_fraction to 0"
        )
    ranked = sorted(videos, key=lambda video: _digest(video.name))
    count = min(max(1, round(validation_fraction * len(videos))), len(videos) - 1)
    chosen = {video.name for video in ranked[:count]}
    return (
        tuple(video for video in videos if video.name not in chosen),
        tuple(video for video in videos if video.name in chosen),
    )


@functools.cache
def _open_records(path: str):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(path)


def _digest(facts) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
