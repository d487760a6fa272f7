"""A folder of videos: decoded once, clips by the sampler's rules, bad files named and left out."""

import logging
import pickle

import numpy as np
import pytest

from data import video_io
from data.clips import ClipSampler
from data.sources import folder

SIZE = {"height": 16, "width": 16}


def _counting_frames(num_frames, level=0, height=16, width=16):
    """Frame i is grey with the level 8 i + level: any frame tells its index. Flat, so that no codec changes it much."""
    levels = (8 * np.arange(num_frames) + level).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def _frame_indices(video):
    return np.rint(video.astype(float).mean(axis=(1, 2, 3)) / 8).astype(int).tolist()


def _write(path, frames, fps=10.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    video_io.write(path, frames, fps)


@pytest.fixture
def videos(tmp_path):
    """Ten good videos of 12 to 21 frames in two formats and a subfolder."""
    for i in range(10):
        name = f"sub/{i}.gif" if i % 2 else f"{i}.mp4"
        _write(tmp_path / "videos" / name, _counting_frames(12 + i))
    return tmp_path / "videos"


def _count_decoding(monkeypatch):
    decoded = []
    original = video_io.iterate_frames
    monkeypatch.setattr(video_io, "iterate_frames", lambda path: decoded.append(path) or original(path))
    return decoded


def test_the_second_epoch_and_the_second_run_decode_nothing(videos, monkeypatch):
    decoded = _count_decoding(monkeypatch)
    first = folder.splits(videos, clips=ClipSampler(4), **SIZE)
    assert len(decoded) == 10
    for epoch in range(2):
        for i in range(len(first.train)):
            first.train.example(i, np.random.default_rng(epoch))
    second = folder.splits(videos, clips=ClipSampler(4), **SIZE)
    assert len(decoded) == 10
    assert second.train.fingerprint == first.train.fingerprint
    folder.splits(videos, clips=ClipSampler(4), height=8, width=16)
    assert len(decoded) == 20  # another size is another cache


@pytest.mark.feature("D3")
def test_clips_have_the_frames_that_the_sampler_says(videos):
    clips = ClipSampler(num_frames=4, stride=3)
    train = folder.splits(videos, clips=clips, validation_fraction=0.0, **SIZE).train
    assert len(train) == 10  # one clip per video
    for i, video in enumerate(train.videos):
        assert _frame_indices(train[i]["video"]) == clips.centre(video.num_frames).indices.tolist()
        drawn = train.example(i, np.random.default_rng(i))["video"]
        assert drawn.shape == (4, 16, 16, 3) and drawn.dtype == np.uint8
        expected = clips.draw(video.num_frames, np.random.default_rng(i)).indices.tolist()
        assert _frame_indices(drawn) == expected
        assert np.array_equal(train.example(i, np.random.default_rng(i))["video"], drawn)
    assert {video.num_frames for video in train.videos} == set(range(12, 22))
    assert {video.fps for video in train.videos} == {10.0}


@pytest.mark.feature("D3")
def test_flip_mirrors_whole_clips(tmp_path):
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8)[None, None, :, None] * 15, (6, 16, 16, 3)).copy()
    _write(tmp_path / "ramp.gif", ramp + np.arange(6, dtype=np.uint8)[:, None, None, None])
    clips = ClipSampler(num_frames=6, flip=True)
    train = folder.splits(tmp_path, clips=clips, validation_fraction=0.0, **SIZE).train
    seen = [train.example(0, np.random.default_rng(seed))["video"] for seed in range(40)]
    mirrored = [np.array_equal(video, train[0]["video"][:, :, ::-1]) for video in seen]
    straight = [np.array_equal(video, train[0]["video"]) for video in seen]
    assert all(a != b for a, b in zip(mirrored, straight, strict=True))
    assert 10 <= sum(mirrored) <= 30  # fair coin: outside with probability 1e-3; the draws are fixed


@pytest.mark.feature("D4")
def test_a_tenth_of_broken_files_is_counted_and_left_out(videos, caplog):
    """20 files; one is cut, one is a link to nothing, one is shorter than a clip."""
    for i in range(10, 17):
        _write(videos / f"{i}.gif", _counting_frames(12))
    whole = (videos / "0.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "lost.mp4").symlink_to(videos / "nowhere.mp4")
    _write(videos / "short.gif", _counting_frames(3))
    (videos / "notes.txt").write_text("not a video, and nobody says it is")
    with caplog.at_level(logging.WARNING):
        made = folder.splits(videos, clips=ClipSampler(4), **SIZE)
    report = made.train.report
    assert report.num_files == 20
    assert {item.name for item in report.left_out} == {"cut.mp4", "lost.mp4", "short.gif"}
    reasons = {item.name: item.reason for item in report.left_out}
    assert "3 frames are fewer than the 4" in reasons["short.gif"] and "no video file" in reasons["lost.mp4"]
    assert len(made.train) + len(made.validation) == 17
    assert "3 of 20 video files left out" in caplog.text and "cut.mp4" in caplog.text
    for i in range(len(made.train)):
        assert _frame_indices(made.train[i]["video"])[1] > 0


def test_records_before_a_break_are_nobodys(videos, monkeypatch):
    """A file that breaks half-way has written frames by then; the files after it must not see them."""
    original = video_io.iterate_frames

    def breaks(path):
        for i, frame in enumerate(original(path)):
            if path.name == "2.mp4" and i == 5:
                raise ValueError(f"{path} is damaged")
            yield frame

    monkeypatch.setattr(video_io, "iterate_frames", breaks)
    train = folder.splits(videos, clips=ClipSampler(12), validation_fraction=0.0, **SIZE).train
    assert [item.name for item in train.report.left_out] == ["2.mp4"]
    for i, video in enumerate(train.videos):
        assert _frame_indices(train[i]["video"]) == ClipSampler(12).centre(video.num_frames).indices.tolist()


def test_a_killed_build_leaves_no_cache(videos, monkeypatch):
    original = folder.crop_and_resize
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(folder, "crop_and_resize", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.splits(videos, clips=ClipSampler(4), **SIZE)
    assert list((videos / ".vdm_cache").iterdir()) == []
    assert len(folder.splits(videos, clips=ClipSampler(4), **SIZE).train.report.left_out) == 0


def test_a_changed_folder_is_indexed_anew(videos):
    before = folder.splits(videos, clips=ClipSampler(4), **SIZE)
    _write(videos / "new.gif", _counting_frames(30, level=3))
    after = folder.splits(videos, clips=ClipSampler(4), **SIZE)
    assert len(after.train) + len(after.validation) == 11
    assert after.train.fingerprint != before.train.fingerprint


def test_fingerprint_is_of_the_data_not_of_the_place(videos, tmp_path):
    made = folder.splits(videos, clips=ClipSampler(4), **SIZE)
    videos.rename(tmp_path / "moved")
    moved = folder.splits(tmp_path / "moved", clips=ClipSampler(4), cache=tmp_path / "elsewhere", **SIZE)
    assert moved.train.fingerprint == made.train.fingerprint
    assert moved.train.fingerprint != moved.validation.fingerprint
    other = folder.splits(tmp_path / "moved", clips=ClipSampler(4, stride=2), cache=tmp_path / "elsewhere", **SIZE)
    assert other.train.fingerprint != made.train.fingerprint


def test_split_is_disjoint_and_only_the_names_decide(videos):
    made = folder.splits(videos, clips=ClipSampler(4), validation_fraction=0.3, **SIZE)
    train, validation = ({video.name for video in split.videos} for split in (made.train, made.validation))
    assert len(train) == 7 and len(validation) == 3 and not train & validation
    for name in sorted(train | validation):
        _write(videos / name, _counting_frames(25, level=1))
    again = folder.splits(videos, clips=ClipSampler(4), validation_fraction=0.3, **SIZE)
    assert {video.name for video in again.validation.videos} == validation
    assert again.train.fingerprint != made.train.fingerprint  # other contents under the same names
    assert again.train[0]["video"].mean() > made.train[0]["video"].mean()
    smaller = folder.splits(videos, clips=ClipSampler(4), validation_fraction=0.01, **SIZE)
    assert len(smaller.validation) == 1 and {video.name for video in smaller.validation.videos} <= validation
    greedy = folder.splits(videos, clips=ClipSampler(4), validation_fraction=0.99, **SIZE)
    assert len(greedy.train) == 1


def test_source_survives_pickling_and_refuses_other_indices(videos):
    train = folder.splits(videos, clips=ClipSampler(4), **SIZE).train
    copy = pickle.loads(pickle.dumps(train))
    assert np.array_equal(copy[2]["video"], train[2]["video"])
    for index in (-1, len(train)):
        with pytest.raises(IndexError, match=f"clip {index} of {len(train)}"):
            train[index]


def test_bad_folders_are_explained(tmp_path):
    def open_folder(path, num_frames=4, **options):
        return folder.splits(path, clips=ClipSampler(num_frames), **SIZE, **options)

    with pytest.raises(ValueError, match=r"no folder ''.*set the path"):
        open_folder("")
    with pytest.raises(ValueError, match=r"no folder '.*nowhere'"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no video file.*\.mp4"):
        open_folder(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"(?s)can be decoded.*1 of 1 .*broken\.mp4"):
        open_folder(tmp_path)
    _write(tmp_path / "a.gif", _counting_frames(5))
    with pytest.raises(ValueError, match=r"spans 9 frames.*longest has 5 frames; lower num_frames or frame_stride"):
        open_folder(tmp_path, num_frames=9)
    with pytest.raises(ValueError, match=r"a\.gif is the only usable video.*validation_fraction to 0"):
        open_folder(tmp_path)
    with pytest.raises(ValueError, match=r"validation_fraction must be in \[0, 1\), got 1"):
        open_folder(tmp_path, validation_fraction=1.0)
    assert len(open_folder(tmp_path, validation_fraction=0.0).validation) == 0
    with pytest.raises(ValueError, match=r"cannot write the decoded frames.*set another cache"):
        open_folder(tmp_path, cache=tmp_path / "a.gif")
