"""The clip sampler: which frames of a video a clip takes."""

import numpy as np
import pytest
from scipy import stats

from data.clips import ClipSampler, Window


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


def test_bad_clips_are_explained():
    with pytest.raises(ValueError, match="num_frames >= 1 and frame_stride >= 1, got 0 and 1"):
        ClipSampler(num_frames=0)
    with pytest.raises(ValueError, match=r"spans 10 frames.* does not fit a video of 9 frames"):
        ClipSampler(4, 3).draw(9, np.random.default_rng(0))
