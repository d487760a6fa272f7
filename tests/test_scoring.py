"""Scores as the config asks for them: a toy extractor from a file, against sums written out, and their refusals."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from data.sources import simulated
from tests import tiny, toy_extractor
from tests.toy_extractor import seen
from vdm import build, evaluate, scoring
from vdm.metrics import protocol
from vdm.metrics.features import plugin
from vdm.runtime import mesh as meshes

NUM = 40  # clips in a set


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_extractor.write(tmp_path_factory.mktemp("plugin"))


def config_of(toy, distance="frechet", **scores):
    config = tiny.get_config()
    config.data.moving_shapes.update(num_train=NUM, num_validation=NUM)  # all are taken, in whatever order
    toy_extractor.ask_for(config, *toy, distance, **{"num_samples": NUM, "num_real": NUM} | scores)
    return config


def scored(config, clips):
    experiment = build.experiment(config)
    measures = build.measures(config)
    scoring.check(experiment, measures)
    scorer = scoring.make_scorer(experiment, measures)
    batches = np.array_split(clips, [7, 24])  # as they come
    (metric,) = scorer.scores([scorer.look(batch) for batch in batches])
    return metric


def clips_of(config, split, rows):
    source = vars(build.experiment(config).splits)[split]
    return np.stack([source[int(row)]["video"] for row in rows])


def frechet(one, two, ddof):
    from scipy.linalg import sqrtm

    first, second = (np.cov(features, rowvar=False, ddof=ddof) for features in (one, two))
    between = np.sum((one.mean(0) - two.mean(0)) ** 2)
    return between + np.trace(first + second - 2 * sqrtm(first @ second).real)


@pytest.mark.feature("M2")
def test_a_score_is_that_of_its_protocol(toy):
    config = config_of(toy, estimator="N", clip_rule="random")
    samples = clips_of(config, "train", range(NUM)) // 2 + 60
    metric = scored(config, samples)
    real, others = clips_of(config, "validation", range(NUM)), clips_of(config, "train", range(NUM))
    assert metric.value == pytest.approx(frechet(seen(samples), seen(real), ddof=0), rel=1e-4)
    assert metric.floor == pytest.approx(frechet(seen(others), seen(real), ddof=0), rel=1e-4)
    assert metric.low < metric.value < metric.high and metric.floor < metric.low
    assert metric.by_number[0][0] == NUM and metric.by_number[-1][0] == NUM // 2
    told = metric.protocol
    assert (told["extractor"], told["extractor_sha256"]) == ("toy", toy[1])
    assert (told["num_real"], told["split"], told["estimator"], told["frame_stride"]) == (NUM, "validation", "N", 1)
    assert metric.name == "frechet of toy" and metric.higher_is_better is False


@pytest.mark.feature("M2")
def test_features_do_not_depend_on_batches(toy):
    config = config_of(toy)
    clips = clips_of(config, "train", range(NUM))
    (measure,) = build.measures(config)
    found = [scoring.make_features(meshes.make_mesh(), measure.extractor, size)(clips) for size in (16, 13)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0][:, 0], seen(clips), atol=1e-5)


def test_the_clip_rule_says_which_frames_of_a_video(toy, monkeypatch):
    """In this source a drawn clip is black: against black samples it is at no distance, a centre clip is not."""
    black = np.zeros((NUM, 4, 8, 8, 3), np.uint8)
    monkeypatch.setattr(simulated.Simulated, "example", lambda source, index, rng: {"video": black[0]})
    values = {rule: scored(config_of(toy, clip_rule=rule), black).value for rule in ("centre", "random")}
    assert values["random"] == pytest.approx(0, abs=1e-12) and values["centre"] > 0.01


def test_repeats_are_averaged(toy):
    config = config_of(toy, repeats=2)
    sets = [clips_of(config, "train", range(NUM)), clips_of(config, "train", range(NUM)) // 2]
    real = seen(clips_of(config, "validation", range(NUM)))
    expected = np.mean([frechet(seen(clips), real, ddof=1) for clips in sets])
    assert scored(config, np.concatenate(sets)).value == pytest.approx(expected, rel=1e-4)


@pytest.mark.feature("M4")
def test_the_kernel_distance_of_the_data_is_about_zero(toy):
    config = config_of(toy, "kernel")
    metric = scored(config, clips_of(config, "train", range(NUM)))
    assert metric.low < 0 < metric.high and metric.floor == pytest.approx(metric.value)
    assert metric.by_number is None


@pytest.mark.feature("M5")
def test_inception_score_of_a_file_is_held_against_the_data_s(toy):
    metric = scored(config_of(toy, "inception_score"), np.zeros((NUM, 4, 8, 8, 3), np.uint8))
    assert metric.value == pytest.approx(1.0)  # all clips alike
    assert metric.floor > 1.0005 and metric.higher_is_better is True


@pytest.mark.feature("M3")
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"metrics": ("fvd",)}, "i3d needs clips of at least 9 frames; these have 4"),
        ({"metrics": ("motion",)}, "lucas_kanade needs clips of at least 6 frames"),
        ({"metrics": ("fid",)}, "config.scores.metrics is 'fid'; it must be one of: fvd, kvd, .*toy"),
        ({"num_samples": 19}, "config.scores.num_samples is 19; it must be at least 20"),
        ({"num_real": 41}, "config.scores.num_real is 41, and the validation split has 40 clips"),
        ({"split": "test"}, "config.scores.split is 'test'; it must be one of: train, validation"),
        ({"resize": "bicubic"}, "config.scores.resize is 'bicubic'; it must be one of: corners, centres"),
        ({"preset": "fvd"}, "config.scores.preset is 'fvd'; it must be empty or one of: stylegan_v_fvd2048_16f"),
    ],
)
def test_refused_before_anything_is_drawn(toy, scores, message):
    config = config_of(toy, **scores)
    config.data.moving_shapes.num_validation = NUM
    with pytest.raises(ValueError, match=message):
        scoring.check(build.experiment(config), build.measures(config))


def test_too_few_other_clips_leave_the_floor_out(toy, capsys):
    config = config_of(toy, split="train", num_real=NUM - 1)
    metric = scored(config, clips_of(config, "validation", range(NUM)))
    assert metric.floor is None and metric.value > 0
    assert "no floor: it needs 40 more clips of the training split, which has 1" in capsys.readouterr().out


def test_an_extractor_of_frames_is_no_extractor_of_clips(tmp_path):
    """Frames of one clip go together; a program that gives them must be declared so."""
    path = tmp_path / "frames.bin"
    plugin.write(path, lambda video: video.mean((2, 3)).reshape(-1, 3), 4, 8, 8, 3)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    clips = np.random.default_rng(0).integers(0, 256, (5, 4, 8, 8, 3), np.uint8)
    for sees, message in (("frames", ""), ("clips", "sees clips, and gave 32 vectors for 8 clips of 4 frames")):
        extractor = plugin.read("toy", str(path), digest, sees=sees, size=0, min_frames=1)
        see = scoring.make_features(meshes.make_mesh(), extractor, 8)
        if message:
            with pytest.raises(ValueError, match=message):
                see(clips)
        else:
            expected = clips.astype(np.float64).mean((2, 3)) / 127.5 - 1
            np.testing.assert_allclose(see(clips), expected, atol=1e-6)


def test_a_file_is_what_its_hash_says(toy):
    path, _ = toy
    with pytest.raises(ValueError, match="damaged, or another file"):
        build.measures(config_of((path, "0" * 64)))
    config = config_of(toy)
    with config.unlocked():
        config.scores.plugin.fvd = base.plugin(*toy, "frechet")
    with pytest.raises(ValueError, match="names fvd, which is a metric's name already"):
        build.measures(config)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "no_program.bin"
    path.write_bytes(b"no program")
    with pytest.raises(ValueError, match=r"is not a file of vdm.metrics.features.plugin.write"):
        plugin.read("toy", str(path), hashlib.sha256(b"no program").hexdigest(), sees="clips", size=0, min_frames=1)


def test_clips_of_another_shape_than_the_file_s_are_refused(toy):
    extractor = plugin.read("toy", *toy, sees="clips", size=0, min_frames=1)
    with pytest.raises(ValueError, match="was made for clips of 4 frames of 8 x 8; given are 4 of 8 x 6"):
        extractor.features((), jnp.zeros((1, 4, 8, 6, 3)), "centres")


@pytest.mark.feature("M3")
class TestPresets:
    """A published protocol is followed to the letter, or its name is not to be had."""

    NAME = "stylegan_v_fvd2048_16f"

    def protocol(self, **changes):
        fields = protocol.PRESETS[self.NAME].fields
        known = {name: value for name, value in fields.items() if value != protocol.FREE}
        rest = {
            "data": "folder",
            "height": 256,
            "width": 256,
            "split": "train",
            "extractor_sha256": "0",
            "seed": 0,
            "resize": "centres",
        }
        return protocol.Protocol(**known | rest | changes)

    def test_blocked_where_its_source_is_silent(self):
        with pytest.raises(ValueError, match=r"its source \(universome/stylegan-v at .*\) does not say resize"):
            protocol.require_preset(self.NAME, self.protocol())
        protocol.require_preset(self.NAME, self.protocol(), assumed=("resize",))

    @pytest.mark.parametrize("changes", [{"num_samples": 256}, {"estimator": "N-1"}, {"range": "float"}])
    def test_names_what_differs(self, changes):
        ((field, value),) = changes.items()
        with pytest.raises(ValueError, match=f"this is not the protocol .*: {field} is {value!r}, not "):
            protocol.require_preset(self.NAME, self.protocol(**changes), assumed=("resize",))

    def test_nothing_known_can_be_assumed(self):
        with pytest.raises(ValueError, match=r"only what its source does not say can be assumed: resize"):
            protocol.require_preset(self.NAME, self.protocol(num_samples=256), assumed=("resize", "num_samples"))

    def test_all_are_made_of_fields_of_a_protocol(self):
        for preset in protocol.PRESETS.values():
            assert set(preset.fields) | set(preset.unknown) == set(protocol.Protocol.__dataclass_fields__)
            assert preset.source

    def test_what_must_be_known_of_it_is_told(self):
        assert evaluate._remark("ucf101_16x64x64").startswith("ucf101_16x64x64: A Frechet distance of C3D")
        assert evaluate._remark(self.NAME) == evaluate._remark("") == ""

    def test_what_a_source_leaves_out_blocks_too(self):
        """No source says which file holds the C3D of the UCF-101 protocol: a user's own must be answered for."""
        assert "extractor_sha256" in protocol.PRESETS["ucf101_16x64x64"].unknown
        assert {"num_samples", "resize", "estimator"} <= set(protocol.PRESETS["bair_1_to_15"].unknown)
