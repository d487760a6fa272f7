"""Video files in and out: any file that PyAV decodes, MP4 and GIF for looking at, PNG contact sheets.

Everything here is uint8 [frames, height, width, channels] in numpy, with 3 channels or 1 (grey). `to_uint8` is the one
way from the network's [-1, 1]. The encoders return bytes, so that a report can embed them; `write` puts them at a path,
which may be in a bucket; what is read is a local file. PyAV and Pillow are imported where they are used: training from
arrays needs neither.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction

import numpy as np
from einops import rearrange, repeat
from etils import epath
from jaxtyping import Float, UInt8

Frames = UInt8[np.ndarray, "frames height width channels"]
Image = UInt8[np.ndarray, "height width channels"]
Clips = UInt8[np.ndarray, "clips frames height width channels"]
Drawn = UInt8[np.ndarray, "frames _ _ _"]  # of another size than what it was made from
DrawnImage = UInt8[np.ndarray, "_ _ _"]

MIN_SIDE = 128  # pixels; what is smaller on its short side is enlarged when it is written
GAP = 2  # pixels of the original size between the cells of a grid
GAP_LEVEL = 255  # white
MARK_COLOUR = (30, 110, 220)

MAX_GIF_FPS = 50  # browsers slow down any frame shown for less than two centiseconds
_CENTISECONDS = 100  # the clock of the GIF format
_GIF_PADDING = 4096  # bytes at the end of a file in which its trailer is looked for


def to_uint8(video: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """The nearest pixel value, rint((x + 1) 127.5), ties to even; inverts the normalisation x / 127.5 - 1 exactly.

    A file cannot hold values beyond [-1, 1]: they saturate at black and white, as a sampler's last estimate may leave
    the range a little. ValueError if anything is not finite, which has no nearest pixel.
    """
    if not np.isfinite(video).all():
        bad = int(np.size(video) - np.isfinite(video).sum())
        raise ValueError(
            f"{bad} of {np.size(video)} values of the video are not finite; there is no pixel value for them"
        )
    return np.clip(np.rint((video + 1.0) * 127.5), 0, 255).astype(np.uint8)


def iterate_frames(path: str | os.PathLike[str]) -> Iterator[Image]:
    """The frames of the first video stream, RGB uint8 [height, width, 3], one at a time, upright as the file asks.

    FileNotFoundError if there is no such file; ValueError, naming the file, if it holds no video, is damaged or cut
    short, or if its frames change size.
    """
    import av
    import av.error

    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"there is no video file {name}")
    try:
        with av.open(name) as container:
            if not container.streams.video:
                raise ValueError(f"{name} holds no video stream")
            if container.format.name == "gif":
                _require_trailer(name)
            yield from _decode(container, name)
    except av.error.FFmpegError as error:
        raise ValueError(f"{name} cannot be decoded as a video: {error}") from error


def _decode(container, name: str) -> Iterator[Image]:
    stream = container.streams.video[0]
    # decoded by one thread: with more, which damage shows would be a matter of luck
    num_packets, end, slack, size = 0, 0, 0.5, None
    for packet in container.demux(stream):
        num_packets += packet.size > 0
        if packet.pts is not None:
            end = max(end, packet.pts + (packet.duration or 0))
            slack = 0.5 if packet.duration else 1.5  # frames: times are rounded, and a duration may be missing
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError(f"{name} is damaged: a frame cannot be decoded whole")
            image = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            size = size or image.shape
            if image.shape != size:
                raise ValueError(
                    f"{name} changes its frame size from {size} to {image.shape}; re-encode it at one size"
                )
            yield np.ascontiguousarray(image)
    if num_packets < stream.frames:  # 0 where the format does not count its frames
        raise ValueError(f"{name} is cut short: it announces {stream.frames} frames and holds {num_packets}")
    announced, held = _announced_seconds(container), float(end * stream.time_base)
    if announced and stream.guessed_rate and held + slack / float(stream.guessed_rate) < announced:
        raise ValueError(f"{name} is cut short: it announces {announced:.2f} seconds and holds {held:.2f}")
    if size is None:
        raise ValueError(f"{name} holds no frame")


def _announced_seconds(container) -> float | None:
    """How long the video of a Matroska or WebM file says it is; they count no frames. None where nothing is said."""
    if "matroska" not in container.format.name:
        return None
    written = container.streams.video[0].metadata.get("DURATION")
    if written:
        hours, minutes, seconds = written.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    alone = len(container.streams) == 1  # else the container is as long as its longest stream, which may be the sound
    return container.duration / 1e6 if alone and container.duration else None


def _require_trailer(name: str) -> None:
    """A GIF counts neither frames nor seconds, but it ends with a byte of its own, which some programs pad."""
    with open(name, "rb") as file:
        file.seek(-min(os.path.getsize(name), _GIF_PADDING), os.SEEK_END)
        if not file.read().rstrip(b"\0").endswith(b";"):
            raise ValueError(f"{name} is cut short: the end of a GIF is missing")


def frame_rate(path: str | os.PathLike[str]) -> float:
    """Frames per second as the container states it; ValueError, naming the file, if it states none."""
    import av
    import av.error

    name = os.fspath(path)
    try:
        with av.open(name) as container:
            rate = container.streams.video[0].guessed_rate if container.streams.video else None
    except av.error.FFmpegError as error:
        raise ValueError(f"{name} cannot be decoded as a video: {error}") from error
    if not rate:
        raise ValueError(f"{name} states no frame rate")
    return float(rate)


def read_video(path: str | os.PathLike[str]) -> tuple[Frames, float]:
    """All frames of a file, uint8 [frames, height, width, 3], and its rate in 1/s. Errors as in `iterate_frames`."""
    return np.stack(list(iterate_frames(path))), frame_rate(path)


def enlarge(frames: Frames, factor: int) -> Drawn:
    """Every pixel becomes a square of factor x factor pixels."""
    return repeat(frames, "f h w c -> f (h a) (w b) c", a=factor, b=factor)


def encode_mp4(frames: Frames, fps: float, *, min_side: int = MIN_SIDE) -> bytes:
    """H.264 in MP4, yuv420p, which every browser and player shows.

    Frames are enlarged by the smallest whole factor that makes the short side at least `min_side` pixels and both sides
    even (the format halves the colour's resolution: an enlarged pixel keeps its own colour). The same frames give the
    same bytes. ValueError for anything but uint8 [frames, height, width, 1 or 3].
    """
    import av
    import av.error

    _check(frames, fps)
    factor = _factor(frames, min_side)
    if (frames.shape[1] * factor) % 2 or (frames.shape[2] * factor) % 2:
        factor += 1  # an odd side has an odd factor, so the next one is even
    frames = enlarge(_to_rgb(frames), factor)
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {
            "crf": "12",  # flat colours of small videos stay flat
            # the same frames are the same bytes, on any number of cores: x264's "mbtree" reads memory nobody wrote
            "x264-params": "threads=1:mbtree=0",
        }
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_gif(frames: Frames, fps: float, *, min_side: int = MIN_SIDE) -> bytes:
    """A GIF that loops for ever, each frame shown for 1/fps seconds on average: the format counts in 1/100 s.

    Exact if the clip has at most 256 colours (any grey one has); otherwise each frame gets its own palette. A frame
    equal to the one before is not stored again: the earlier one is shown for longer. ValueError above 50 frames per
    second, which viewers do not follow, and for anything but uint8 [frames, height, width, 1 or 3].
    """
    _check(frames, fps)
    if fps > MAX_GIF_FPS:
        raise ValueError(f"a GIF shows at most {MAX_GIF_FPS} frames per second, got fps={fps}; write an MP4 instead")
    images = _palette_images(enlarge(_to_rgb(frames), _factor(frames, min_side)))
    ticks = np.rint(np.arange(len(images) + 1) * _CENTISECONDS / fps).astype(int)
    durations = [int(duration) * 1000 // _CENTISECONDS for duration in np.diff(ticks)]  # milliseconds
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        optimize=False,
        disposal=1,
    )
    return buffer.getvalue()


def _palette_images(frames: Frames) -> list:
    from PIL import Image as PillowImage

    packed = frames.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) > 256:
        return [PillowImage.fromarray(frame).quantize(256) for frame in frames]
    palette = np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=1).astype(np.uint8)
    images = []
    for index in indices.reshape(packed.shape).astype(np.uint8):
        image = PillowImage.fromarray(index, mode="P")
        image.putpalette(palette.tobytes())
        images.append(image)
    return images


def encode_png(image: Image) -> bytes:
    """A still image, uint8 [height, width, 1 or 3], without loss."""
    from PIL import Image as PillowImage

    _check(image[None], fps=1.0)
    buffer = io.BytesIO()
    PillowImage.fromarray(_to_rgb(image[None])[0]).save(buffer, format="PNG")
    return buffer.getvalue()


def contact_sheet(
    clips: Clips | Sequence[Frames], *, marked: Collection[int] = (), gap: int = GAP, min_side: int = MIN_SIDE // 2
) -> DrawnImage:
    """One still image of several clips: a row a clip, a column a frame, white gaps, cells of at least `min_side`.

    Columns that are `marked` have a coloured ring around every frame; the sheet then has a margin.
    """
    clips = _stack(clips)
    num_frames = clips.shape[1]
    cells = rearrange(clips, "n f h w c -> (n f) 1 h w c")
    factor = _factor(clips[0], min_side)
    sheet = enlarge(grid(cells, columns=num_frames, gap=gap), factor)
    return _ringed(_to_rgb(sheet)[0], clips.shape[2:4], marked, gap, factor) if marked else sheet[0]


def _ringed(sheet: DrawnImage, cell: tuple[int, int], columns: Collection[int], gap: int, factor: int) -> DrawnImage:
    """The sheet in a margin, with rings in the gaps around the cells of some columns."""
    margin = gap * factor
    inside = np.pad(sheet, ((margin, margin), (margin, margin), (0, 0)), constant_values=GAP_LEVEL)
    ringed = inside.copy()
    height, width = ((side + gap) * factor for side in cell)  # from one cell to the next
    for column in columns:
        ringed[:, column * width : (column + 1) * width + margin] = MARK_COLOUR
    for top in range(margin, len(inside) - margin, height):
        for left in range(margin, inside.shape[1] - margin, width):
            rows, across = slice(top, top + height - margin), slice(left, left + width - margin)
            ringed[rows, across] = inside[rows, across]
    return ringed


def grid(clips: Clips | Sequence[Frames], *, columns: int | None = None, gap: int = GAP) -> Drawn:
    """One video of several clips that play in step, row by row, `columns` in a row (as square as can be by default).

    ValueError if the clips differ in shape, or if there is none.
    """
    clips = _stack(clips)
    columns = columns or math.ceil(math.sqrt(len(clips)))
    rows = -(-len(clips) // columns)
    num_frames, height, width, channels = clips.shape[1:]
    shape = (num_frames, rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    canvas = np.full(shape, GAP_LEVEL, np.uint8)
    for i, clip in enumerate(clips):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[:, top : top + height, left : left + width] = clip
    return canvas


def write(path: epath.PathLike, frames: Frames, fps: float) -> None:
    """Writes a video as its suffix says, .mp4 or .gif. ValueError for another suffix, and as the encoders say."""
    encoders = {".mp4": encode_mp4, ".gif": encode_gif}
    suffix = epath.Path(path).suffix
    if suffix not in encoders:
        raise ValueError(f"cannot write a video as {str(path)!r}: the suffix must be one of {', '.join(encoders)}")
    epath.Path(path).write_bytes(encoders[suffix](frames, fps))


def write_contact_sheet(path: epath.PathLike, clips: Clips | Sequence[Frames], *, marked: Collection[int] = ()) -> None:
    """Writes `contact_sheet(clips)` as PNG."""
    epath.Path(path).write_bytes(encode_png(contact_sheet(clips, marked=marked)))


def _check(frames: np.ndarray, fps: float) -> None:
    if frames.dtype != np.uint8:
        raise ValueError(f"a video is written from uint8, got {frames.dtype}; convert [-1, 1] with to_uint8")
    if frames.ndim != 4 or frames.shape[-1] not in (1, 3) or 0 in frames.shape:
        raise ValueError(f"a video is [frames, height, width, 1 or 3] with no empty axis, got {list(frames.shape)}")
    if not fps > 0:
        raise ValueError(f"frames per second must be positive, got {fps}")


def _stack(clips: Clips | Sequence[Frames]) -> Clips:
    shapes = sorted({clip.shape for clip in clips})
    if len(shapes) != 1:
        raise ValueError(f"a grid needs one or more clips of one shape, got the shapes {shapes}")
    stacked = np.stack(list(clips))
    _check(stacked[0], fps=1.0)
    return stacked


def _factor(frames: Frames, min_side: int) -> int:
    return max(1, -(-min_side // min(frames.shape[1:3])))


def _to_rgb(frames: Frames) -> Drawn:
    return np.broadcast_to(frames, (*frames.shape[:3], 3))
