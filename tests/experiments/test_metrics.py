"""The ladder's distortions do what they are called, its answers are right where they are planted, its tables tell."""

import dataclasses

import numpy as np
import pytest

from experiments.metrics import __main__ as study
from experiments.metrics import answers, distortions, grid, tables
from vdm.metrics.features.extractor import Extractor

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def clips():
    return RNG(0).integers(0, 256, (6, 8, 12, 12, 3), np.uint8)


def frames_of(clips):
    return [sorted(frame.tobytes() for frame in clip) for clip in clips]


def test_what_keeps_the_frames_keeps_them_all(clips):
    for apply in (distortions.shuffle, distortions.reverse):
        changed = apply(clips, RNG(1))
        assert frames_of(changed) == frames_of(clips)
        assert (changed != clips).any(axis=(1, 2, 3, 4)).all()
    np.testing.assert_array_equal(distortions.reverse(clips, RNG(1))[:, 0], clips[:, -1])


def test_freeze_and_identity_swap(clips):
    frozen = distortions.freeze(clips, RNG(1))
    assert (frozen == clips[:, :1]).all()
    swapped = distortions.swap_identity(clips, RNG(1))
    np.testing.assert_array_equal(swapped[:, :4], clips[:, :4])
    np.testing.assert_array_equal(swapped[1, 4:], clips[0, 4:])


def test_jitter_moves_whole_frames_by_few_pixels(clips):
    moved = distortions.jitter(2)(clips, RNG(2))
    offsets = set()
    for clip, original in zip(moved, clips, strict=True):
        for frame, source in zip(clip, original, strict=True):
            fits = [
                (i, j)
                for i in range(-2, 3)
                for j in range(-2, 3)
                if (frame[2:-2, 2:-2] == source[2 + i : 10 + i, 2 + j : 10 + j]).all()
            ]
            assert len(fits) == 1
            offsets.add(fits[0])
    assert len(offsets) > 10


def test_noise_and_blur_are_of_their_size():
    grey = np.full((2, 4, 32, 32, 3), 128, np.uint8)
    assert distortions.noise(4.0)(grey, RNG(3)).std() == pytest.approx(4.0, rel=0.02)
    point = grey.copy()
    point[:, :, 16, 16] = 255
    spread = distortions.blur(1.0)(point, RNG(3))[0, 0, :, :, 0].astype(float) - 128
    rows = np.arange(32) - 16
    assert (spread.sum(1) @ rows**2) / spread.sum() == pytest.approx(1.0, rel=0.15)  # the variance of the blur


@pytest.fixture(scope="module")
def sets():
    """Two vectors of each of 128 clips; one rung shifts them, one does nothing and one swaps the two of a clip."""
    rng, number = RNG(4), grid.NUM_CLIPS
    reference, undistorted = rng.normal(size=(2, number, 2, 3))
    return {
        "reference": reference,
        "undistorted": undistorted,
        "shifted": undistorted + np.array([1.0, 0, 0]),
        "same": undistorted + 1e-12,
        "swapped": undistorted[:, ::-1],
    }


@pytest.mark.feature("M3", "M4")
@pytest.mark.parametrize("metric", ["fvd", "kvd"])
def test_planted_answers(metric, sets):
    if metric == "kvd":  # of clips, which have one vector each
        sets = {name: features[:, :1] for name, features in sets.items()}
    found = {(row["rung"], row["clips"]): row for row in answers.answers(metric, sets)}
    assert found["shifted", 128]["answer"] == "above"
    assert found["same", 128]["answer"] == found["swapped", 128]["answer"] == "floor"
    if metric == "fvd":  # the Frechet distance of a shift is its square, beside what the means of the samples add
        sample = {name: sets[name].mean((0, 1)) for name in ("undistorted", "reference")}
        apart = sample["undistorted"] - sample["reference"]
        expected = 1 + 2 * apart[0]
        assert found["shifted", 128]["difference"] == pytest.approx(expected, abs=1e-9)


def test_the_table_shows_what_was_seen_and_what_was_not_as_stated():
    rows = []
    for metric in grid.METRICS:
        for rung, stated in grid.rungs(grid.SOURCES["shapes"]).items():
            for number in grid.NUMBERS:
                sees = rung == "blur 1" and number >= 64
                rise = 1.9 if rung == "shuffle" and metric == "fvd" else 2.0
                rows.append(
                    {"metric": metric, "rung": rung, "clips": number, "value": 3.0, "floor": 1.0, "difference": rise}
                    | {"standard_error": 0.5 if sees else 1.5, "answer": "above" if sees else "floor"}
                    | {"stated": stated.expected(metric)}
                )
    environment = {"versions": {"jax": "0"}, "code": {"commit": "0123456789abcdef"}}
    lines = tables.table({"source": "shapes", "environment": environment, "rows": rows}).splitlines()
    cells = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    assert cells["blur 1"].count("**+2 ± 0.5** (64)") == 4 and "stated" not in cells["blur 1"]
    assert cells["freeze"].count("stated: above") == 3  # of frames nothing was stated
    assert "stated" not in cells["reverse"]
    shuffled = cells["shuffle"].split("|")[2:]
    assert "stated" not in shuffled[0] and "stated: less than every blur and noise" in shuffled[1]  # 1.9, and 2 of 2
    assert cells["the floor"].count("| 1 ") == 4


def test_features_are_taken_again_where_the_clips_the_weights_or_the_code_are_others(monkeypatch, tmp_path):
    clips = {"reference": RNG(5).integers(0, 256, (4, 9, 8, 8, 3), np.uint8)}
    monkeypatch.setattr(study, "KEPT", tmp_path)
    monkeypatch.setattr(grid, "sets", lambda name: clips)

    def apply(weights, video):
        return video.mean((1, 2, 3)) * weights

    seen = Extractor("means", "00", "clips", 0, 1, 3, 2.0, apply)
    (first,) = study.seen("shapes", seen).values()
    np.testing.assert_allclose(first[:, 0], 2 * (clips["reference"] / 127.5 - 1).mean((1, 2, 3)), atol=1e-5)
    (again,) = study.seen("shapes", dataclasses.replace(seen, weights=9.0)).values()
    np.testing.assert_array_equal(again, first)  # the file of the weights is the same, so they were not used
    (coded,) = study.seen("shapes", dataclasses.replace(seen, apply=lambda *given: 1 + apply(*given))).values()
    np.testing.assert_allclose(coded, 1 + first)
    (other,) = study.seen("shapes", dataclasses.replace(seen, weights=9.0, sha256="01")).values()
    assert abs(other - first).min() > 0
    clips["reference"] = clips["reference"][::-1]
    (turned,) = study.seen("shapes", seen).values()
    np.testing.assert_allclose(turned, first[::-1])


def test_the_reversible_source_looks_the_same_backwards_and_the_other_does_not():
    """In a trail the pixels behind an object are brighter than those before it; velocities of bouncing have no sign."""
    asymmetry = {}
    for name, source in grid.SOURCES.items():
        some = source.clips("train")[:24].astype(float).mean(-1)
        step = np.diff(some, axis=1)
        asymmetry[name] = abs(np.mean(step**3)) / np.mean(np.abs(step) ** 3)
    assert asymmetry["trails"] > 0.2 > 5 * asymmetry["shapes"]
