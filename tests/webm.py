"""WebM files as other programs write them; ours writes MP4 and GIF."""

from __future__ import annotations

import av
import numpy as np


def write(path, frames: np.ndarray, fps: float = 8, *, codec: str = "libvpx", silence: float = 0.0) -> None:
    """The frames, and `silence` seconds of a sound that is none."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        sound = container.add_stream("libopus", rate=48000, layout="mono") if silence else None
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
        if sound is not None:
            for start in range(0, int(48000 * silence), 960):
                block = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
                block.sample_rate, block.pts = 48000, start
                container.mux(sound.encode(block))
            container.mux(sound.encode())
