"""TFDS without TensorFlow: what we write is read back exactly; published data sets are read, their sizes asserted."""

import dataclasses
import io
import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from data import prepare, video_io
from data.clips import ClipSampler, crop_and_resize
from data.sources import folder, moving_digits, moving_shapes, simulated, tfds

TF_WRITTEN = pathlib.Path(__file__).with_name("tf_written")
UCF_COUNTS = (("train", 4), ("test", 2))


def _ucf_video(num_examples, i):
    """As in tf_written/README.md."""
    return np.random.default_rng([num_examples, i]).integers(0, 256, (5 + i, 12, 10, 3), dtype=np.uint8)


def _bair_video(split, i):
    seed = [("train", "test").index(split), i]
    return np.random.default_rng(seed).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)


def _png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    file.seek(0)
    return file


class Bair(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
    """The features of TFDS's bair_robot_pushing_small 2.0.0, made content."""

    name = "bair_robot_pushing_small"
    VERSION = tensorflow_datasets.core.Version("2.0.0")

    def _info(self):
        features = tensorflow_datasets.features
        image = features.Image(shape=(64, 64, 3))
        return tensorflow_datasets.core.DatasetInfo(
            builder=self,
            features=features.Sequence(
                {
                    "image_main": image,
                    "image_aux1": image,
                    "action": features.Tensor(shape=(4,), dtype=np.float32),
                    "endeffector_pos": features.Tensor(shape=(3,), dtype=np.float32),
                },
                length=30,
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, count) for split, count in (("train", 3), ("test", 2))}

    def _generate_examples(self, split, count):
        for i in range(count):
            yield (
                i,
                {
                    "image_main": [_png(frame) for frame in _bair_video(split, i)],
                    "image_aux1": [_png(np.zeros((64, 64, 3), np.uint8))] * 30,
                    "action": np.zeros((30, 4), np.float32),
                    "endeffector_pos": np.zeros((30, 3), np.float32),
                },
            )


@pytest.fixture(scope="module")
def bair(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("bair")
    Bair(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
    return data_dir


def _publish(monkeypatch, name, counts):
    """Pretends that a data set was published with the sizes of the made one."""
    monkeypatch.setitem(tfds.PUBLISHED, name, dataclasses.replace(tfds.PUBLISHED[name], counts=counts))


def _open(name, data_dir, *, num_frames=4, height=64, width=64, stride=1, flip=False, **splits):
    clips = ClipSampler(num_frames, stride=stride, flip=flip)
    return tfds.splits(name, data_dir=data_dir, clips=clips, height=height, width=width, **splits)


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    "make",
    [
        lambda: simulated.splits(moving_digits.World(5, 20, 24, num_digits=1), 7, 3),
        lambda: simulated.splits(moving_shapes.World(6, 16, 16, action_probability=0.5), 5, 2),
    ],
    ids=["digits", "shapes"],
)
def test_our_sources_make_the_round_trip_exactly(make, tmp_path):
    source = make()
    builder = prepare.write(source, "made", tmp_path)
    for split, ours in (("train", source.train), ("validation", source.validation)):
        read = builder.as_data_source(split)  # TFDS alone
        assert len(read) == len(ours)
        for i in range(len(ours)):
            assert set(read[i]) == set(ours[i])
            for key, value in ours[i].items():
                assert np.array_equal(read[i][key], value)
    height, width = source.train[0]["video"].shape[1:3]
    again = _open("made", tmp_path, num_frames=5, height=height, width=width, validation_split="validation")
    for split, ours in ((again.train, source.train), (again.validation, source.validation)):
        assert split.class_names == ours.class_names and split.num_channels == ours.num_channels
        assert [int(split[i]["label"]) for i in range(len(ours))] == [int(ours[i]["label"]) for i in range(len(ours))]
        assert np.array_equal(split[1]["video"], ours[1]["video"][:5])
    assert "tensorflow" not in sys.modules


@pytest.mark.feature("D2")
def test_a_folder_of_videos_makes_the_round_trip_exactly(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(6):
        clip = simulated.splits(moving_shapes.World(9 + number, 16, 24), 1, 1, seed=number).train[0]["video"]
        video_io.write(videos / f"{number}.mp4", clip, fps=8)
    size = ["--num_frames=4", "--height=12", "--width=12"]
    options = ["--option", f"path={videos}", "--option", "frame_stride=2", "--option", "validation_fraction=0.3"]
    prepare.main(["--source=folder", f"--data_dir={tmp_path}", "--name=mine", *size, *options])
    clips = ClipSampler(4, stride=2)
    source = folder.splits(path=str(videos), clips=clips, height=12, width=12, validation_fraction=0.3)
    made = _open("mine", tmp_path, num_frames=4, height=12, width=12, validation_split="validation")
    for split, ours in ((made.train, source.train), (made.validation, source.validation)):
        assert len(split) == len(ours) > 0
        for i in range(len(ours)):
            assert np.array_equal(split[i]["video"], ours[i]["video"])


@pytest.mark.feature("D2")
def test_bair_clips_are_the_frames_that_the_sampler_says(bair, monkeypatch):
    _publish(monkeypatch, "bair_robot_pushing_small", (("train", 3), ("test", 2)))
    made = _open("bair_robot_pushing_small", bair, num_frames=4, stride=3, flip=True)
    clips = made.train.clips
    assert (len(made.train), len(made.validation), made.train.num_channels) == (3, 2, 3)
    for split, source in (("train", made.train), ("test", made.validation)):
        for i in range(len(source)):
            video = _bair_video(split, i)
            assert np.array_equal(source[i]["video"], video[clips.centre(30).indices])
            for seed in range(3):
                window = clips.draw(30, np.random.default_rng(seed))
                drawn = source.example(i, np.random.default_rng(seed))["video"]
                assert np.array_equal(drawn, window.orient(video[window.indices]))
    assert "label" not in made.train[0]


@pytest.mark.feature("D2")
def test_a_video_feature_that_tensorflow_wrote_is_read_exactly(monkeypatch):
    _publish(monkeypatch, "ucf101", UCF_COUNTS)
    made = _open("ucf101", TF_WRITTEN, num_frames=5, height=12, width=10)
    assert made.train.class_names == ("archery", "bowling", "diving")
    for num_examples, source in ((4, made.train), (2, made.validation)):
        assert len(source) == num_examples
        for i in range(num_examples):
            frames = source.clips.centre(5 + i).indices
            assert np.array_equal(source[i]["video"], _ucf_video(num_examples, i)[frames])
            assert int(source[i]["label"]) == i % 3
    assert "tensorflow" not in sys.modules


@pytest.mark.feature("D3")
def test_short_videos_are_left_out_and_frames_resized(monkeypatch, caplog):
    """Videos of 5 to 8 frames; a clip of 4 frames with stride 2 spans 7."""
    _publish(monkeypatch, "ucf101", UCF_COUNTS)
    split = {"train_split": "train[:75%]", "validation_split": "train[75%:]"}
    made = _open("ucf101", TF_WRITTEN, num_frames=4, stride=2, height=6, width=5, **split)
    assert (len(made.train), made.train.num_left_out) == (1, 2)
    assert "2 of 3 videos left out" in caplog.text
    expected = [crop_and_resize(frame, 6, 5) for frame in _ucf_video(4, 2)[[0, 2, 4, 6]]]
    assert np.array_equal(made.train[0]["video"], np.stack(expected))
    with pytest.raises(ValueError, match=r"spans 7 frames.*longer than every video.*has 6 frames; lower num_frames"):
        _open("ucf101", TF_WRITTEN, num_frames=4, stride=2, validation_split="test")


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    "name, found, published",
    [
        ("bair_robot_pushing_small", {"train": 3, "test": 2}, {"train": 43264, "test": 256}),
        ("ucf101", {"train": 4, "test": 2}, {"train": 9537, "test": 3783}),
        ("moving_mnist", {"test": 1}, {"test": 10000}),
    ],
)
def test_published_sizes_are_asserted(name, found, published, bair, tmp_path):
    """Sizes as in the papers: Ebert et al. 2017; Soomro et al. 2012, first split; Srivastava et al. 2015."""
    _write_moving_mnist(tmp_path)
    places = {"bair_robot_pushing_small": bair, "ucf101": TF_WRITTEN, "moving_mnist": tmp_path}
    with pytest.raises(ValueError, match="prepare the data set again") as error:
        _open(name, places[name])
    before, after = str(error.value).split("published are")
    assert all(f"'{split}': {count}" in before for split, count in found.items())
    assert all(f"'{split}': {count}" in after for split, count in published.items())


def _write_moving_mnist(data_dir, count=1):
    class MovingMnist(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        """Without `Video`, which needs TensorFlow: a sequence of images is what it is on disk."""

        name = "moving_mnist"
        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self):
            image = tensorflow_datasets.features.Image(shape=(64, 64, 1))
            video = tensorflow_datasets.features.Sequence(image, length=20)
            features = tensorflow_datasets.features.FeaturesDict({"image_sequence": video})
            return tensorflow_datasets.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            for i in range(count):
                yield i, {"image_sequence": [_png(np.full((64, 64), 10 * i + j, np.uint8)) for j in range(20)]}

    MovingMnist(data_dir=str(data_dir), file_format="array_record").download_and_prepare()


@pytest.mark.feature("D2")
def test_moving_mnist_has_a_test_split_only_which_is_divided(tmp_path, monkeypatch):
    _write_moving_mnist(tmp_path, count=5)
    _publish(monkeypatch, "moving_mnist", (("test", 5),))
    with pytest.raises(ValueError, match=r"no split 'train'; it has \{'test': 5\} examples.*'test\[:90%\]'"):
        _open("moving_mnist", tmp_path)
    made = _open("moving_mnist", tmp_path, num_frames=20, train_split="test[:3]", validation_split="test[3:]")
    assert made.train.num_channels == 1
    assert [made.train[i]["video"].shape for i in range(3)] == [(20, 64, 64, 1)] * 3
    assert made.validation[0]["video"][:, 0, 0, 0].tolist() == list(range(30, 50))
    for overlap in ("test", "test[2:]"):
        with pytest.raises(ValueError, match=r"share examples"):
            _open("moving_mnist", tmp_path, train_split="test[:3]", validation_split=overlap)


def test_sources_survive_pickling_and_have_fingerprints(bair, monkeypatch):
    _publish(monkeypatch, "bair_robot_pushing_small", (("train", 3), ("test", 2)))
    made = _open("bair_robot_pushing_small", bair)
    copy = pickle.loads(pickle.dumps(made.train))
    assert np.array_equal(copy[1]["video"], made.train[1]["video"])
    prints = [made.train.fingerprint, made.validation.fingerprint, _open("bair_robot_pushing_small", bair, stride=2)]
    assert prints[0] == copy.fingerprint
    assert len({prints[0], prints[1], prints[2].train.fingerprint}) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"clip {index} of 3"):
            made.train[index]


def test_what_is_not_prepared_is_explained(bair, tmp_path, monkeypatch):
    _publish(monkeypatch, "ucf101", UCF_COUNTS)
    for data_dir in ("", tmp_path):
        with pytest.raises(ValueError, match=r"no prepared data set 'ucf101'.*file_format='array_record'"):
            _open("ucf101", data_dir)
    (tmp_path / "ucf101").mkdir()
    with pytest.raises(ValueError, match=r"no dataset_info\.json.*prepare it again"):
        _open("ucf101", tmp_path)

    shutil.copytree(TF_WRITTEN / "ucf101", tmp_path / "ucf101", dirs_exist_ok=True)
    version = tmp_path / "ucf101/ucf101_1_256/2.0.0"
    shutil.copytree(version, tmp_path / "ucf101/ucf101_1/2.0.0")
    with pytest.raises(
        ValueError, match=r"several data sets; name one of them: ucf101/ucf101_1/2\.0\.0, ucf101/ucf101_1_"
    ):
        _open("ucf101", tmp_path)
    assert len(_open("ucf101/ucf101_1_256", tmp_path, height=12, width=10).train) == 4

    info = (version / "dataset_info.json").read_text()
    (version / "dataset_info.json").write_text(info.replace("ucf101_1_256", "ucf101_2_256"))
    with pytest.raises(ValueError, match=r"not the configuration whose sizes are known.*use ucf101/ucf101_1"):
        _open("ucf101/ucf101_1_256", tmp_path)
    (version / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"holds tfrecord files.*file_format='array_record'"):
        _open("ucf101/ucf101_1_256", tmp_path)
    (version / "dataset_info.json").write_text(info)
    (version / "ucf101-test.array_record-00000-of-00001").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of the files.*ucf101-test"):
        _open("ucf101/ucf101_1_256", tmp_path)


def test_prepare_refuses_what_exists_and_what_is_empty(tmp_path):
    source = simulated.splits(moving_digits.World(2, 12, 12), 2, 1)
    prepare.write(source, "made", tmp_path)
    with pytest.raises(ValueError, match=r"exists already; delete it, or choose another name"):
        prepare.write(source, "made", tmp_path)
    empty = dataclasses.replace(source, validation=())
    with pytest.raises(ValueError, match=r"2 clips to train, 0 to validate"):
        prepare.write(empty, "empty", tmp_path)


def test_the_command_writes_what_it_is_told(tmp_path, capsys):
    size = ["--num_frames=3", "--height=18", "--width=20", "--num_train=4", "--num_validation=2", "--seed=5"]
    options = ["--option", "num_digits=1", "--option", "speed=0.5"]
    prepare.main(["--source=moving_digits", f"--data_dir={tmp_path}", "--name=mine", *size, *options])
    assert "4 clips in train, 2 clips in validation" in capsys.readouterr().out
    expected = simulated.splits(moving_digits.World(3, 18, 20, num_digits=1, speed=0.5), 4, 2, seed=5)
    read = _open("mine", tmp_path, num_frames=3, height=18, width=20, validation_split="validation")
    assert np.array_equal(read.validation[1]["video"], expected.validation[1]["video"])
    with pytest.raises(SystemExit):
        prepare.main(["--source=moving_digits", f"--data_dir={tmp_path}", "--option", "colour=red"])
    assert "num_digits, digit_size, speed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prepare.main(["--source=folder", f"--data_dir={tmp_path}", "--option", f"path={tmp_path / 'none'}"])
    assert "there is no folder" in capsys.readouterr().err


def test_help_is_for_people_and_needs_neither_jax_nor_tfds():
    code = """
import sys
import data.prepare
try:
    data.prepare.main(["--help"])
finally:
    print(sorted({"jax", "tensorflow_datasets"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "NAME=VALUE" in done.stdout and "num_digits" in done.stdout
    assert done.stdout.strip().endswith("[]")
