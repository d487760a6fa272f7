"""Video files: what is written is read back, and bad input is named."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from data import video_io
from tests import webm


def _moving_ramp(num_frames=6, height=32, width=48, channels=3):
    """Smooth frames, each one clearly different from the others, so that a lost or swapped frame shows."""
    y, x = np.mgrid[:height, :width]
    frames = [np.stack([40 + 30 * i + x, 60 + 2 * y + 0 * x, 200 - 25 * i - y], axis=-1) for i in range(num_frames)]
    return np.stack(frames)[..., :channels].clip(0, 255).astype(np.uint8)


def _read_bytes(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return video_io.read_video(tmp_path / name)


def _write_directly(path, frames, *, rotation=0):
    """What other programs write: a rotation, and the index before the frames, so that a cut file still opens."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {
            "x264-params": "threads=1:mbtree=0"
        }  # the same bytes each time, so that the same damage shows
        stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _gif_frames(content):
    """Frames and their durations in milliseconds, by Pillow: a reader that shares nothing with PyAV."""
    image = Image.open(io.BytesIO(content))
    frames, durations = [], []
    for i in range(image.n_frames):
        image.seek(i)
        frames.append(np.asarray(image.convert("RGB")))
        durations.append(image.info["duration"])
    return np.stack(frames), durations, image.info["loop"]


def test_to_uint8_inverts_the_normalisation():
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(video_io.to_uint8(pixels.astype(np.float32) / np.float32(127.5) - 1), pixels)


def test_to_uint8_rounds_to_the_nearest_and_saturates():
    levels = np.array([-7.0, -1.0, 0.0, 100.49 / 127.5 - 1, 100.51 / 127.5 - 1, 1.0, 1.2])
    assert video_io.to_uint8(levels).tolist() == [0, 0, 128, 100, 101, 255, 255]


def test_to_uint8_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="2 of 3 values"):
        video_io.to_uint8(np.array([0.0, np.nan, np.inf]))


@pytest.mark.parametrize("channels", [1, 3])
def test_mp4_round_trip(tmp_path, channels):
    frames = _moving_ramp(channels=channels)
    read, fps = _read_bytes(tmp_path, "a.mp4", video_io.encode_mp4(frames, 12.5, min_side=1))
    assert fps == 12.5
    assert read.shape == (*frames.shape[:3], 3)
    error = np.abs(read.astype(float) - frames).mean(axis=(1, 2, 3))
    assert error.max() < 2.5  # of 255; two neighbouring frames differ by 15 and more


def test_small_frames_are_enlarged_by_whole_pixels(tmp_path):
    """A 3x5 frame of flat colours: every pixel becomes a square, both sides even as yuv420p demands."""
    colours = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 3), dtype=np.uint8)
    frames = np.repeat(colours, 4, axis=0)
    read, _ = _read_bytes(tmp_path, "small.mp4", video_io.encode_mp4(frames, 8, min_side=25))
    assert read.shape[1:3] == (30, 50)  # the factor 9 would do for 25 pixels, but 9 x 3 is odd
    centres = read[:, 5::10, 5::10].astype(float)
    assert np.abs(centres - frames).mean() < 6
    assert np.array_equal(video_io.enlarge(frames, 2)[0, :2, :2], np.broadcast_to(frames[0, 0, 0], (2, 2, 3)))


def test_the_same_frames_are_the_same_mp4_whatever_lay_in_memory():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 60, (5, 4, 8, 8, 3)), axis=1)
    frames = video_io.grid(np.clip(walk + 126, 0, 255).astype(np.uint8))
    seen = set()
    for _ in range(40):
        rubbish = [rng.integers(0, 256, rng.integers(1_000, 300_000), dtype=np.uint8) for _ in range(20)]
        del rubbish  # the encoder is given this memory
        seen.add(video_io.encode_mp4(frames, 8))
    assert len(seen) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_gif_with_few_colours_is_exact(channels):
    frames = np.random.default_rng(1).integers(0, 4, (5, 8, 8, channels), dtype=np.uint8) * 80
    read, durations, loop = _gif_frames(video_io.encode_gif(frames, 8, min_side=24))
    assert np.array_equal(read, np.broadcast_to(video_io.enlarge(frames, 3), read.shape))
    assert loop == 0  # for ever
    assert durations == [120, 130, 130, 120, 120]  # 12.5, 25, 37.5, 50, 62.5 hundredths, each rounded to even


def test_gif_with_many_colours_is_close():
    frames = _moving_ramp()
    read, _, _ = _gif_frames(video_io.encode_gif(frames, 10, min_side=1))
    assert np.abs(read.astype(float) - frames).mean() < 4


def test_gif_keeps_the_time_of_a_standing_clip():
    frames = np.repeat(_moving_ramp(num_frames=2), 3, axis=0)
    _, durations, _ = _gif_frames(video_io.encode_gif(frames, 10, min_side=1))
    assert durations == [300, 300]


def test_gif_is_read_by_the_decoder_too(tmp_path):
    frames = np.random.default_rng(2).integers(0, 2, (4, 16, 16, 3), dtype=np.uint8) * 255
    read, fps = _read_bytes(tmp_path, "a.gif", video_io.encode_gif(frames, 10, min_side=1))
    assert np.array_equal(read, frames)
    assert fps == 10


def test_contact_sheet_puts_clips_in_rows_and_frames_in_columns():
    clips = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((2, 3, 4, 5, 1), np.uint8)
    sheet = video_io.contact_sheet(clips, gap=2, min_side=8)
    assert sheet.shape == (2 * (2 * 4 + 2), 2 * (3 * 5 + 2 * 2), 1)
    for clip in range(2):
        for frame in range(3):
            cell = sheet[12 * clip : 12 * clip + 8, 14 * frame : 14 * frame + 10]
            assert (cell == 3 * clip + frame).all()
    assert (sheet[8:12] == 255).all() and (sheet[:, 10:14] == 255).all()
    png = np.asarray(Image.open(io.BytesIO(video_io.encode_png(sheet))))
    assert np.array_equal(png, np.broadcast_to(sheet, png.shape))


def test_marked_frames_have_a_ring_and_all_cells_are_as_they_were():
    clips = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((2, 3, 4, 5, 1), np.uint8)
    sheet = video_io.contact_sheet(clips, marked=(0, 2), gap=2, min_side=8)
    assert sheet.shape == (2 * (2 * 4 + 2) + 8, 2 * (3 * 5 + 2 * 2) + 8, 3)
    is_mark = (sheet == video_io.MARK_COLOUR).all(axis=-1)
    for clip in range(2):
        for frame in range(3):
            top, left = 4 + 12 * clip, 4 + 14 * frame
            assert (sheet[top : top + 8, left : left + 10] == 3 * clip + frame).all()
            around = is_mark[top - 4 : top + 12, left - 4 : left + 14].sum()
            assert around == (16 * 18 - 8 * 10 if frame in (0, 2) else 2 * 16 * 4)  # its neighbours' rings


def test_grid_plays_clips_in_step():
    clips = np.random.default_rng(3).integers(0, 255, (5, 3, 4, 6, 3), dtype=np.uint8)
    video = video_io.grid(clips, gap=1)
    assert video.shape == (3, 2 * 4 + 1, 3 * 6 + 2, 3)  # 5 clips: 3 columns, 2 rows
    assert np.array_equal(video[:, 5:, 7:13], clips[4])
    assert (video[:, 5:, 14:] == 255).all()


def test_write_chooses_by_suffix(tmp_path):
    frames = _moving_ramp()
    video_io.write(tmp_path / "a.mp4", frames, 8)
    video_io.write(tmp_path / "a.gif", frames, 8)
    video_io.write_contact_sheet(tmp_path / "a.png", frames[None])
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    assert (tmp_path / "a.gif").read_bytes()[:6] == b"GIF89a"
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ValueError, match=r"avi.*must be one of \.mp4, \.gif"):
        video_io.write(tmp_path / "a.avi", frames, 8)


def test_rotated_videos_are_turned_upright(tmp_path):
    """Telephones store frames as the sensor gives them and a rotation beside them."""
    frames = _moving_ramp()
    _write_directly(tmp_path / "phone.mp4", frames, rotation=90)
    read, _ = video_io.read_video(tmp_path / "phone.mp4")
    assert np.abs(read.astype(float) - np.rot90(frames, axes=(1, 2))).mean() < 4


def test_bad_files_are_named(tmp_path):
    whole = video_io.encode_mp4(_moving_ramp(), 8)
    bad = {
        "empty.mp4": b"",
        "text.mp4": b"not a video at all" * 99,
        "cut.mp4": whole[: len(whole) * 2 // 3],
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            video_io.read_video(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4"):
        video_io.read_video(tmp_path / "absent.mp4")


def test_cut_and_damaged_videos_are_named(tmp_path):
    """The decoder hides both: it ends early, and it patches a broken frame up with the ones before."""
    noise = np.random.default_rng(0).integers(0, 255, (30, 32, 32, 3), dtype=np.uint8)
    _write_directly(tmp_path / "whole.mp4", noise)
    whole = (tmp_path / "whole.mp4").read_bytes()

    def messages(name, contents):
        found = []
        for content in contents:
            (tmp_path / name).write_bytes(content)
            try:
                video_io.read_video(tmp_path / name)
            except ValueError as error:
                found.append(str(error))
        assert all(name in message for message in found)
        return found

    with av.open(str(tmp_path / "whole.mp4")) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    between, inside = messages("cut.mp4", (whole[: starts[20]], whole[: starts[20] + 40]))
    assert "is cut short: it announces 30 frames and holds 20" in between
    assert "cannot be decoded" in inside

    rng = np.random.default_rng(0)
    starts = rng.integers(3000, len(whole) - 100, size=20)
    hits = messages("hit.mp4", (whole[:start] + rng.bytes(30) + whole[start + 30 :] for start in starts))
    assert any("is damaged" in message for message in hits)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["vp8", "vp9", "gif"])
def test_cut_webm_and_gif_are_named_though_they_count_no_frames(kind, share, tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / ("a.gif" if kind == "gif" else "a.webm")
    if kind == "gif":
        path.write_bytes(video_io.encode_gif(noise, 10, min_side=1))
    else:
        webm.write(path, noise, codec={"vp8": "libvpx", "vp9": "libvpx-vp9"}[kind])
    assert len(video_io.read_video(path)[0]) == 20
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"{path.name} is cut short"):
        video_io.read_video(path)


def test_a_padded_gif_and_a_sound_longer_than_its_video_are_whole(tmp_path):
    frames = _moving_ramp()
    path = tmp_path / "a.gif"
    path.write_bytes(video_io.encode_gif(frames, 10, min_side=1) + bytes(100))
    assert len(video_io.read_video(path)[0]) == len(frames)
    webm.write(tmp_path / "a.webm", frames, silence=5.0)
    assert len(video_io.read_video(tmp_path / "a.webm")[0]) == len(frames)


def test_bad_input_of_the_writers_is_explained():
    frames = _moving_ramp()
    with pytest.raises(ValueError, match="at most 50 frames per second"):
        video_io.encode_gif(frames, 60)
    with pytest.raises(ValueError, match="must be positive"):
        video_io.encode_mp4(frames, 0)
    with pytest.raises(ValueError, match=r"1 or 3.*\[6, 32, 48, 2\]"):
        video_io.encode_mp4(frames[..., :2], 8)
    with pytest.raises(ValueError, match="clips of one shape"):
        video_io.grid([frames, frames[:3]])
