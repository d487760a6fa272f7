"""The clip sampler: which frames of a video a clip takes."""

import numpy as np
import pytest
from scipy import stats

from data.clips import ClipSampler, Window, crop_and_resize


@pytest.mark.feature("D3")
def test_index_arithmetic():
    """By hand: 4 frames with stride 3 span 10 frames; a video of 12 frames holds 3 such clips."""
    clips = ClipSampler(num_frames=4, stride=3)
    assert clips.span == 10
    assert [clips.num_offsets(n) for n in (9, 10, 12)] == [0, 1, 3]
    assert clips.centre(10).indices.tolist() == [0, 3, 6, 9]
    assert clips.centre(12).indices.tolist() == [1, 4, 7, 10]
    assert clips.centre(13).indices.tolist() == [1, 4, 7, 10]
    draws = [clips.draw(12, np.random.default_rng(seed)).indices.tolist() for seed in range(60)]
    assert sorted(map(tuple, {tuple(draw) for draw in draws})) == [(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)]


@pytest.mark.feature("D3")
def test_offsets_are_uniform_and_flips_fair_and_independent():
    """Chi-square of 6,000 draws over 10 offsets x mirrored or not; the draws are fixed, so is the outcome."""
    clips = ClipSampler(num_frames=3, stride=2, flip=True)
    rng = np.random.default_rng(0)
    windows = [clips.draw(14, rng) for _ in range(6000)]
    counts = np.zeros((10, 2), int)
    for window in windows:
        counts[window.indices[0], int(window.mirrored)] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 0.01
    assert stats.chi2_contingency(counts).pvalue > 0.01


def test_flip_changes_no_offset_and_off_means_never():
    on, off = ClipSampler(4, flip=True), ClipSampler(4, flip=False)
    for seed in range(50):
        drawn = off.draw(30, np.random.default_rng(seed))
        assert not drawn.mirrored
        assert np.array_equal(on.draw(30, np.random.default_rng(seed)).indices, drawn.indices)


def test_mirrored_frames_are_turned_left_to_right():
    frames = np.arange(2 * 2 * 3 * 1, dtype=np.uint8).reshape(2, 2, 3, 1)
    mirrored = Window(np.arange(2), mirrored=True).orient(frames)
    assert mirrored[..., 0].tolist() == [[[2, 1, 0], [5, 4, 3]], [[8, 7, 6], [11, 10, 9]]]
    assert Window(np.arange(2), mirrored=False).orient(frames) is frames


def test_crop_is_centred_and_keeps_the_aspect_ratio():
    """A 20 x 60 frame whose middle third is white: its square crop is white (its border sees beyond)."""
    frame = np.zeros((20, 60, 3), np.uint8)
    frame[:, 20:40] = 255
    square = crop_and_resize(frame, 8, 8)
    assert (square[:, 1:-1] == 255).all() and square.min() > 220
    assert np.array_equal(square, square[:, ::-1])
    assert np.array_equal(crop_and_resize(frame[..., :1], 8, 8), square[..., :1])
    wide = crop_and_resize(frame, 10, 30)
    assert wide[:, :9].max() == 0 and wide[:, 11:19].min() == 255 and wide[:, 21:].max() == 0


def test_reduction_averages_and_does_not_alias():
    """Stripes of one pixel become their mean; sampling without a filter would show black or white."""
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, ::2] = 255
    small = crop_and_resize(frame, 16, 16)
    assert np.abs(small[:, 2:-2].astype(float) - 127.5).max() < 4


def test_bad_clips_are_explained():
    with pytest.raises(ValueError, match="num_frames >= 1 and frame_stride >= 1, got 0 and 1"):
        ClipSampler(num_frames=0)
    with pytest.raises(ValueError, match=r"spans 10 frames.* does not fit a video of 9 frames"):
        ClipSampler(4, 3).draw(9, np.random.default_rng(0))
