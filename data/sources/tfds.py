"""Video data sets prepared by TensorFlow Datasets, read without TensorFlow.

A data set must lie there as ArrayRecord files (`file_format="array_record"`). Those that TFDS publishes are checked
against their published split sizes; those that `data.prepare` writes are read as they are. One clip per video and
epoch, by the rules of `data.clips`; only the frames of the clip are decoded.

TFDS's `Video` feature needs TensorFlow already in its constructor, but on disk it is what its base class makes it, a
sequence of encoded images. `open_builder` therefore hands TFDS the data set's own description with every `Video`
written as `Sequence(Image)`, through the argument that TFDS has for it (`ReadOnlyBuilder(info_proto=...)`); nothing is
patched.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data.clips import ClipSampler, Window, crop_and_resize
from data.sources import Example, Splits

log = logging.getLogger(__name__)

READING = 1  # goes into the fingerprint; another number whenever the same records give other clips


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a data set keeps its videos and labels, and how many it has where that is published.

    Attributes:
      video: feature of the frames; label: of the class, empty if there is none.
      counts: (split, number of examples) of the configurations whose names begin with `config`; empty: not published.
    """

    video: str
    label: str = ""
    config: str = ""
    counts: tuple[tuple[str, int], ...] = ()


OWN = Layout("video", "label")  # what `data.prepare` writes
PUBLISHED = {
    # Ebert et al. 2017, https://www.tensorflow.org/datasets/catalog/bair_robot_pushing_small
    "bair_robot_pushing_small": Layout("image_main", counts=(("train", 43_264), ("test", 256))),
    # Soomro et al. 2012, split 1, https://www.tensorflow.org/datasets/catalog/ucf101
    "ucf101": Layout("video", "label", config="ucf101_1", counts=(("train", 9_537), ("test", 3_783))),
    # Srivastava et al. 2015, https://www.tensorflow.org/datasets/catalog/moving_mnist
    "moving_mnist": Layout("image_sequence", counts=(("test", 10_000),)),
}


@dataclasses.dataclass(frozen=True)
class TfdsVideos:
    """One split of a prepared data set. See `data.sources.Source`.

    The fingerprint is of the data set's own description (name, version, sizes of the split's shards in examples and
    bytes), not of all its bytes.

    Attributes:
      directory: of the data set's version, with dataset_info.json.
      rows: the examples that are long enough for a clip.
      num_left_out: how many examples of the split are not.
    """

    directory: str
    layout: Layout
    split: str
    clips: ClipSampler
    height: int
    width: int
    num_channels: int
    class_names: tuple[str, ...]
    description: str
    rows: tuple[int, ...]
    num_left_out: int

    @property
    def fingerprint(self) -> str:
        facts = [self.description, self.split, dataclasses.astuple(self.clips), self.height, self.width]
        return hashlib.sha256(json.dumps(["tfds", READING, *facts]).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self._example(index, self.clips.centre)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        return self._example(index, lambda video_frames: self.clips.draw(video_frames, rng))

    def _example(self, index: int, choose: Callable[[int], Window]) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        records = _open_records(self.directory, self.split, self.layout)
        encoded = records.read(self.rows[index])
        window = choose(records.count(encoded[self.layout.video]))
        frames = records.decode(encoded[self.layout.video], window.indices.tolist())
        resized = np.stack([crop_and_resize(frame, self.height, self.width) for frame in frames])
        example: Example = {"video": window.orient(resized)}
        if self.class_names:
            example["label"] = np.int32(encoded[self.layout.label])
        return example


def splits(
    dataset: str,
    *,
    data_dir: str | os.PathLike[str],
    clips: ClipSampler,
    height: int,
    width: int,
    train_split: str = "train",
    validation_split: str = "test",
) -> Splits:
    """Training and validation clips of a prepared data set, uint8 [num_frames, height, width, channels].

    Args:
      dataset: its name, with its configuration and version where `data_dir` holds several: "ucf101/ucf101_1_256".
      data_dir: the folder in which TFDS keeps its data sets.
      train_split, validation_split: in TFDS's notation, such as "train", "test[:90%]". They may not overlap.

    Raises:
      ValueError: the data set is not there, is not in ArrayRecord files, lacks a file, does not have its published
        number of examples, has no such split, has overlapping splits, or no video as long as a clip.
    """
    directory = find_directory(data_dir, dataset)
    layout = PUBLISHED.get(dataset.split("/")[0], OWN)
    builder = open_builder(directory)
    _check_counts(builder, dataset, layout)
    _check_files(builder, directory)
    _check_splits(builder, dataset, train_split, validation_split)
    made = [_open(builder, directory, layout, split, clips, height, width) for split in (train_split, validation_split)]
    return Splits(*made)


def find_directory(data_dir: str | os.PathLike[str], name: str) -> str:
    """The folder below `data_dir`/`name` that holds a dataset_info.json; ValueError if there is none, or several."""
    root = pathlib.Path(data_dir, name)
    if not os.fspath(data_dir) or not root.is_dir():
        raise ValueError(
            f"there is no prepared data set {name!r} in {os.fspath(data_dir)!r}; prepare it there with TFDS and "
            "file_format='array_record', or write one with python -m data.prepare"
        )
    found = sorted(path.parent for pattern in ("", "*/", "*/*/") for path in root.glob(f"{pattern}dataset_info.json"))
    if not found:
        raise ValueError(
            f"{root} holds no dataset_info.json: the data set was not prepared to its end; prepare it again"
        )
    if len(found) > 1:
        choices = ", ".join(path.relative_to(data_dir).as_posix() for path in found)
        raise ValueError(f"{root} holds several data sets; name one of them: {choices}")
    return str(found[0])


def open_builder(directory: str):
    """TFDS's reader (tfds.core.DatasetBuilder) of a prepared data set, with every `Video` as `Sequence(Image)`.

    ValueError if the data set was prepared by a TFDS of before 2022, or is not in ArrayRecord files.
    """
    from google.protobuf import json_format
    from tensorflow_datasets.core import dataset_info, read_only_builder
    from tensorflow_datasets.core.proto import feature_pb2

    info = dataset_info.read_proto_from_builder_dir(directory)
    if info.file_format != "array_record":
        raise ValueError(
            f"{directory} holds {info.file_format or 'tfrecord'} files; only array_record can be read at random "
            "places: prepare the data set with file_format='array_record'"
        )
    described = json.loads(pathlib.Path(directory, "features.json").read_text())
    if "pythonClassName" not in described:
        raise ValueError(f"{directory} was prepared by an old version of TFDS; prepare it again with TFDS 4.5 or later")
    features = json_format.ParseDict(described, feature_pb2.Feature())  # pyright: ignore[reportAttributeAccessIssue]
    _video_to_images(features)
    info.features.CopyFrom(features)
    return read_only_builder.ReadOnlyBuilder(builder_dir=directory, info_proto=info)


def _video_to_images(feature) -> None:
    """Rewrites TFDS's description of a feature in place; `feature` is a tensorflow_datasets Feature message."""
    kind = feature.WhichOneof("content")
    if kind == "features_dict":
        for child in feature.features_dict.features.values():
            _video_to_images(child)
    elif kind == "sequence":
        _video_to_images(feature.sequence.feature)
    elif kind == "video":
        video = type(feature.video)()
        video.CopyFrom(feature.video)
        frames, *frame_shape = video.shape.dimensions
        feature.python_class_name = "tensorflow_datasets.core.features.sequence_feature.Sequence"
        feature.sequence.length = frames  # assigning it replaces `video` as the content
        image = feature.sequence.feature
        image.python_class_name = "tensorflow_datasets.core.features.image_feature.Image"
        image.image.shape.dimensions.extend(frame_shape)
        image.image.dtype = video.dtype
        image.image.encoding_format = video.encoding_format
        image.image.use_colormap = video.use_colormap


@dataclasses.dataclass(frozen=True)
class _Records:
    """The records of one split, opened, and what a video is decoded by.

    `frame` is TFDS's feature of one frame if a video is a sequence of images, of the whole video if it is a tensor.
    `num_frames` is None if it differs from video to video.
    """

    source: Any
    parser: Any
    frame: Any
    num_frames: int | None
    is_sequence: bool

    def read(self, row: int) -> dict[str, Any]:
        """One example, its frames still encoded."""
        return self.parser.parse_example(self.source[row])

    def lengths(self, video: str) -> list[int]:
        """The number of frames of every video; where they differ, all records are read once."""
        if self.num_frames:
            return [self.num_frames] * len(self.source)
        return [self.count(self.read(row)[video]) for row in range(len(self.source))]

    def count(self, encoded: Any) -> int:
        return self.num_frames or len(encoded)

    def decode(self, encoded: Any, indices: list[int]) -> UInt8[np.ndarray, "frames height width channels"]:
        if self.is_sequence:
            return np.stack([self.frame.decode_example_np(encoded[i]) for i in indices])
        return np.asarray(self.frame.decode_example_np(encoded))[indices]


@functools.cache
def _open_records(directory: str, split: str, layout: Layout) -> _Records:
    return _read_split(open_builder(directory), split, layout)


def _read_split(builder, split: str, layout: Layout) -> _Records:
    from tensorflow_datasets.core import decode, example_parser
    from tensorflow_datasets.core.features import sequence_feature

    features = builder.info.features
    specs = features.get_serialized_info()
    if layout.video not in specs:
        raise ValueError(
            f"{builder.info.full_name} has no feature {layout.video!r} with videos, it has {sorted(specs)}"
        )
    is_sequence = isinstance(features, sequence_feature.Sequence)  # of dicts, as in BAIR
    names = [name for name in (layout.video, layout.label) if name in specs]
    frame = features[layout.video]
    if isinstance(frame, sequence_feature.Sequence):
        is_sequence, frame = True, frame.feature
    return _Records(
        source=builder.as_data_source(split, deserialize_method=decode.DeserializeMethod.RAW_BYTES),
        parser=example_parser.ExampleParserNp({name: specs[name] for name in names}),
        frame=frame,
        num_frames=features.shape[layout.video][0],
        is_sequence=is_sequence,
    )


def _open(
    builder, directory: str, layout: Layout, split: str, clips: ClipSampler, height: int, width: int
) -> TfdsVideos:
    features, records = builder.info.features, _read_split(builder, split, layout)
    lengths = records.lengths(layout.video)
    rows = tuple(row for row, length in enumerate(lengths) if clips.num_offsets(length))
    if not rows:
        raise ValueError(
            f"{clips.describe()} is longer than every video of {builder.info.full_name}, split {split}: the longest of "
            f"{len(lengths)} has {max(lengths, default=0)} frames; lower num_frames or frame_stride"
        )
    if len(rows) < len(lengths):
        log.warning(
            "%s, split %s: %d of %d videos left out, shorter than %s",
            *(builder.info.full_name, split, len(lengths) - len(rows), len(lengths), clips.describe()),
        )
    return TfdsVideos(
        directory=directory,
        layout=layout,
        split=split,
        clips=clips,
        height=height,
        width=width,
        num_channels=features.shape[layout.video][-1],
        class_names=tuple(features[layout.label].names) if layout.label in features.get_serialized_info() else (),
        description=_describe(builder),
        rows=rows,
        num_left_out=len(lengths) - len(rows),
    )


def _describe(builder) -> str:
    """Name and version of a data set, and the sizes of its shards, in examples and bytes."""
    sizes = {name: [list(info.shard_lengths), info.num_bytes] for name, info in sorted(builder.info.splits.items())}
    return f"{builder.info.full_name} {json.dumps(sizes)}"


def _check_counts(builder, name: str, layout: Layout) -> None:
    if not layout.counts:
        return
    if not builder.info.config_name.startswith(layout.config):
        raise ValueError(
            f"{builder.info.full_name} is not the configuration whose sizes are known here; use {name.split('/')[0]}/"
            f"{layout.config}..."
        )
    found = {split: info.num_examples for split, info in builder.info.splits.items()}
    if found != dict(layout.counts):
        raise ValueError(
            f"{builder.info.full_name} in {builder.data_path} has {found} examples, published are "
            f"{dict(layout.counts)}; the preparation was cut short or is of another version: prepare the data set again"
        )


def _check_files(builder, directory: str) -> None:
    missing = [path.name for info in builder.info.splits.values() for path in info.filepaths if not path.exists()]
    if missing:
        raise ValueError(
            f"{directory} lacks {len(missing)} of the files that its dataset_info.json names, {missing[0]} is the "
            "first; copy them there, or prepare the data set again"
        )


def _check_splits(builder, name: str, train_split: str, validation_split: str) -> None:
    taken = []
    for split in (train_split, validation_split):
        try:
            instructions = builder.info.splits[split].file_instructions
        except (KeyError, ValueError) as error:
            found = {split: info.num_examples for split, info in builder.info.splits.items()}
            raise ValueError(
                f"{name} has no split {split!r}; it has {found} examples. A part of a split is written as "
                "'test[:90%]' or 'test[9000:]'"
            ) from error
        taken.append([(item.filename, item.skip, item.skip + item.take) for item in instructions])
    for file, first, end in taken[0]:
        for other, other_first, other_end in taken[1]:
            if file == other and first < other_end and other_first < end:
                raise ValueError(
                    f"the splits {train_split!r} and {validation_split!r} of {name} share examples; validation needs "
                    "its own, such as 'test[:90%]' and 'test[90%:]'"
                )
