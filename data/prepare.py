"""Writes one of our sources as a TFDS data set of ArrayRecord files, without TensorFlow:

    python -m data.prepare --source=moving_digits --data_dir=/data/tfds --num_train=10000 --num_validation=1000 \\
        --num_frames=16 --height=64 --width=64 --option num_digits=1

It is read back with `config.data.name = "tfds"`, or by any program with `tfds.builder_from_directory(...)` and
`as_data_source()`: record i of a split is clip i of the source, as validation sees it (without random augmentation).
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data.clips import ClipSampler
from data.sources import Source, Splits, folder, moving_digits, moving_shapes, simulated

Options = dict[str, Any]


def write(splits: Splits, name: str, data_dir: str | os.PathLike[str], *, version: str = "1.0.0"):
    """Writes both splits below `data_dir`/`name`/`version`, in order, as "train" and "validation".

    Every example is {"video": uint8 [frames, height, width, channels]}, with "label" (a class label) if the source has
    class names and "actions" (int32 [frames]) if its examples have them.

    Returns: the tfds.core.DatasetBuilder, prepared. ValueError if the data set is there already, or a split is empty.
    """
    import tensorflow_datasets as tfds

    place = pathlib.Path(data_dir, name, version)
    if place.exists():
        raise ValueError(f"{place} exists already; delete it, or choose another name, version or data_dir")
    if not len(splits.train) or not len(splits.validation):
        raise ValueError(f"a split is empty: {len(splits.train)} clips to train, {len(splits.validation)} to validate")
    features, data_set_name = _features(splits.train), name

    class Clips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = data_set_name
        VERSION = tfds.core.Version(version)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"train {splits.train.fingerprint}, validation {splits.validation.fingerprint}",
                features=features,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(splits.train),
                "validation": self._generate_examples(splits.validation),
            }

        def _generate_examples(self, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
            for index in range(len(source)):
                yield index, dict(source[index])

    builder = Clips(data_dir=os.fspath(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return builder


def _features(source: Source):
    import tensorflow_datasets as tfds

    example = source[0]
    # Raw bytes: left to itself TFDS stores each pixel as a 64-bit integer. ArrayRecord compresses them.
    features: dict[str, Any] = {
        "video": tfds.features.Tensor(
            shape=example["video"].shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        )
    }
    if source.class_names:
        features["label"] = tfds.features.ClassLabel(names=list(source.class_names))
    if "actions" in example:
        features["actions"] = tfds.features.Tensor(shape=example["actions"].shape, dtype=np.int32)
    return tfds.features.FeaturesDict(features)


def _make_folder(size: Options, num: Options, options: Options) -> Splits:
    clips = ClipSampler(size.pop("num_frames"), stride=options.pop("frame_stride", 1))
    return folder.splits(clips=clips, **size, **options)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A source that can be written: how it is made, and the names of its options."""

    make: Callable[[Options, Options, Options], Splits]
    options: tuple[str, ...]


def _simulated(world: type) -> _Kind:
    """The splits of a world, with all of its options."""

    def make(size: Options, num: Options, options: Options) -> Splits:
        return simulated.splits(world(**size, **options), **num)

    names = (field.name for field in dataclasses.fields(world))
    return _Kind(make, tuple(name for name in names if name not in ("num_frames", "height", "width")))


SOURCES = {
    "moving_shapes": _simulated(moving_shapes.World),
    "moving_digits": _simulated(moving_digits.World),
    "folder": _Kind(_make_folder, ("path", "cache", "frame_stride", "validation_fraction")),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = "; ".join(f"{name}: {', '.join(kind.options)}" for name, kind in SOURCES.items())
    parser.add_argument("--source", required=True, choices=sorted(SOURCES), help="what to write")
    parser.add_argument("--data_dir", required=True, help="folder of TFDS data sets; it is made if it is not there")
    parser.add_argument("--name", help="of the data set; by default that of the source")
    parser.add_argument("--version", default="1.0.0", help="of the data set (default %(default)s)")
    parser.add_argument("--num_frames", type=int, default=16, help="of a clip (default %(default)s)")
    parser.add_argument("--height", type=int, default=64, help="pixels (default %(default)s)")
    parser.add_argument("--width", type=int, default=64, help="pixels (default %(default)s)")
    parser.add_argument("--num_train", type=int, default=10_000, help="clips, not for a folder (default %(default)s)")
    parser.add_argument(
        "--num_validation", type=int, default=1_000, help="clips, not for a folder (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the clips, not for a folder (default %(default)s)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help=f"of the source, repeatable; {known}"
    )
    return parser


def _options(kind: _Kind, given: Sequence[str]) -> Options:
    """NAME=VALUE as a dict; a value that is not a Python literal is a string. ValueError for an unknown name."""
    options = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or name not in kind.options:
            raise ValueError(f"--option {item!r}: expected NAME=VALUE with one of the names {', '.join(kind.options)}")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    given = parser.parse_args(arguments)
    size = {"num_frames": given.num_frames, "height": given.height, "width": given.width}
    num = {"num_train": given.num_train, "num_validation": given.num_validation, "seed": given.seed}
    kind = SOURCES[given.source]
    try:
        splits = kind.make(size, num, _options(kind, given.option))
        builder = write(splits, given.name or given.source, given.data_dir, version=given.version)
    except ValueError as error:
        parser.error(str(error))
    counts = ", ".join(f"{info.num_examples} clips in {name}" for name, info in builder.info.splits.items())
    print(f"{builder.data_path}: {counts}")


if __name__ == "__main__":
    main()
