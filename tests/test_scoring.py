"""Scores as the config asks for them: a toy extractor from a file, against sums written out, and their refusals."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from configs import entries
from data.sources import simulated
from tests import tiny, toy_extractor
from tests.toy_extractor import seen
from vdm import build, evaluate, scoring, verify
from vdm.measures import Measure, measures_of
from vdm.metrics import protocol, scores
from vdm.metrics.features import extractor, plugin
from vdm.records.record import Metric
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
    measures = measures_of(config)
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
    (measure,) = measures_of(config)
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


@pytest.mark.feature("M5")
def test_the_inception_score_s_floor_is_of_as_many_clips_as_there_are_samples():
    """Of one distribution, 5 clips in each part score less than 200: held against all the data, it would look bad."""
    rng = np.random.default_rng(0)
    samples, real, others = (8 * rng.normal(size=(number, 1, 10)) for number in (50, 2000, 50))
    found = scores.InceptionScore().score([samples], real, others, seed=0)
    assert found.floor == pytest.approx(found.value, rel=0.15)
    assert found.floor == scores.InceptionScore().score([others], real, None, seed=0).value
    assert scores.InceptionScore().score([samples], real, None, seed=0).floor is None
    assert scores.InceptionScore().score([real], real, None, seed=0).value > 1.5 * found.value


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
        scoring.check(build.experiment(config), measures_of(config))


@pytest.mark.feature("M3")
@pytest.mark.parametrize(
    ("data", "metrics", "plugin", "message"),
    [
        ({}, "toy", {"sees": "frames", "distance": "kernel"}, "scores.plugin.toy asks for a kernel distance of frames"),
        ({}, "toy", {"sees": "nonsense"}, "scores.plugin.toy.sees is 'nonsense'; it must be one of: clips, frames"),
        ({}, "toy", {"sees": "frames"}, "toy sees frames, and gave 2 vectors for 2 clips of 4 frames"),
        ({"num_frames": 8}, "toy", {}, "toy was made for clips of 4 frames of 8 x 8; given are 8 of 8 x 8"),
        ({"height": 16}, "toy", {}, "toy was made for clips of 4 frames of 8 x 8; given are 4 of 16 x 8"),
        ({"width": 16}, "frame_frechet", {}, "VGG16 needs images of at least 16 pixels.* these have 8 x 16"),
        ({"num_frames": 64}, "motion", {}, "lucas_kanade gives vectors of 6000 numbers .* takes at most 4096"),
    ],
)
def test_clips_that_an_extractor_cannot_see_are_refused_before_anything_is_drawn(toy, data, metrics, plugin, message):
    config = config_of(toy, metrics=(metrics,))
    config.data.update(data)
    config.scores.plugin.toy.update(plugin)
    with pytest.raises(ValueError, match=message):
        scoring.check(build.experiment(config), measures_of(config))


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
        toy = plugin.read("toy", str(path), digest, sees=sees, size=0, min_frames=1)
        see = scoring.make_features(meshes.make_mesh(), toy, 8)
        if message:
            with pytest.raises(ValueError, match=message):
                see(clips)
        else:
            expected = clips.astype(np.float64).mean((2, 3)) / 127.5 - 1
            np.testing.assert_allclose(see(clips), expected, atol=1e-6)


def test_a_file_is_what_its_hash_says(toy):
    path, _ = toy
    with pytest.raises(ValueError, match="damaged, or another file"):
        measures_of(config_of((path, "0" * 64)))
    config = config_of(toy)
    with config.unlocked():
        config.scores.plugin.fvd = entries.plugin(*toy, "frechet")
    with pytest.raises(ValueError, match="names fvd, which is a metric's name already"):
        measures_of(config)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "no_program.bin"
    path.write_bytes(b"no program")
    with pytest.raises(ValueError, match=r"is not a file of vdm.metrics.features.plugin.write"):
        plugin.read("toy", str(path), hashlib.sha256(b"no program").hexdigest(), sees="clips", size=0, min_frames=1)


def test_clips_of_another_shape_than_the_file_s_are_refused(toy):
    made = plugin.read("toy", *toy, sees="clips", size=0, min_frames=1)
    with pytest.raises(ValueError, match="was made for clips of 4 frames of 8 x 8; given are 4 of 8 x 6"):
        made.features((), jnp.zeros((1, 4, 8, 6, 3)), "centres")


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

    @pytest.mark.parametrize(
        ("data", "split"), [("folder", "train"), ("tfds", "train[:90%]"), ("moving_shapes", "train")]
    )
    def test_a_config_can_follow_one(self, data, split):
        config = self.config(("fvd",))
        config.data.update(name=data, height=256, width=256)
        config.data.folder.frame_stride = config.data.tfds.frame_stride = 1
        config.data.tfds.update(dataset="sky_timelapse", train_split="train[:90%]")
        i3d = extractor.Extractor("i3d", "0", "clips", 224, 9, 3, (), lambda weights, video: video)
        measure = Measure("fvd", "FVD", i3d, scores.Frechet("N"))
        measured = scoring.protocol_of(config, measure)
        protocol.require_preset(self.NAME, measured, config.scores.assumed)
        assert measured.split == split
        changes = {"num_real": 1024, "clip_rule": "centre", "estimator": "N-1", "repeats": 10}
        for key, value in changes.items():
            changed = config.copy_and_resolve_references()
            changed.scores[key] = value
            with pytest.raises(ValueError, match=f"this is not the protocol .*: {key} is {value!r}, not "):
                protocol.require_preset(self.NAME, scoring.protocol_of(changed, measure), config.scores.assumed)

    def config(self, metrics):
        """That follows the protocol, on shapes."""
        config = tiny.get_config()
        config.data.num_frames = 16
        config.data.moving_shapes.update(num_train=4096, num_validation=2048)
        config.scores.update(metrics=metrics, split="train", clip_rule="random", estimator="N", preset=self.NAME)
        config.scores.assumed = ("resize",)
        return config

    def test_another_score_may_stand_beside_the_one_that_a_preset_is_about(self):
        config = self.config(("fvd", "kvd"))
        experiment, measures = build.experiment(config), measures_of(config)
        scoring.check(experiment, measures)
        asked = evaluate.expected(experiment, measures)
        assert (asked["FVD"]["preset"], asked["FVD"]["assumed"]) == (self.NAME, ["resize"])
        assert "preset" not in asked["KVD"] and "assumed" not in asked["KVD"]
        again = self.config(())
        again.scores.update(preset="", assumed=(), num_samples=99)
        verify.ask_again(again, [Metric(name, 1.0, None, None, "", False, asked[name]) for name in ("FVD", "KVD")])
        assert again.scores == config.scores  # as a card has it
        config.scores.num_samples = 2000
        with pytest.raises(ValueError, match=r"this is not the protocol .*: num_samples is 2000, not 2048"):
            scoring.check(build.experiment(config), measures)

    def test_a_record_of_two_scores_names_the_preset_of_one(self, toy, monkeypatch):
        fields = {"metric": "frechet", "extractor": "toy", "num_samples": NUM}
        known = dict.fromkeys(protocol.Protocol.__dataclass_fields__, protocol.FREE)
        monkeypatch.setitem(protocol.PRESETS, "toys", protocol.Preset(known | fields, "this test"))
        config = config_of(toy, metrics=("toy", "other"), preset="toys")
        with config.unlocked():
            config.scores.plugin.other = entries.plugin(*toy, "kernel")
        experiment, measures = build.experiment(config), measures_of(config)
        scoring.check(experiment, measures)
        scorer = scoring.make_scorer(experiment, measures)
        one, other = scorer.scores([scorer.look(clips_of(config, "train", range(NUM)))])
        assert (one.name, one.protocol["preset"]) == ("frechet of toy", "toys")
        assert other.name == "kernel of other" and "preset" not in other.protocol

    @pytest.mark.parametrize("metrics", [("motion",), ("toy",), ()])
    def test_a_preset_of_no_score_that_is_asked_for_is_refused(self, toy, metrics):
        config = config_of(toy, metrics=metrics, preset=self.NAME)
        config.data.num_frames = 16 if metrics == ("motion",) else 4
        with pytest.raises(
            ValueError, match=rf"is {self.NAME}, which is about fvd \(i3d\), and config.scores.metrics is"
        ):
            scoring.check(build.experiment(config), measures_of(config))

    def test_all_are_made_of_fields_of_a_protocol(self):
        for preset in protocol.PRESETS.values():
            assert set(preset.fields) | set(preset.unknown) == set(protocol.Protocol.__dataclass_fields__)
            assert preset.source and {"metric", "extractor"} <= set(preset.fields)

    def test_what_must_be_known_of_it_is_told(self):
        assert evaluate._remark("ucf101_16x64x64").startswith("ucf101_16x64x64: A Frechet distance of C3D")
        assert evaluate._remark(self.NAME) == evaluate._remark("") == ""

    def test_what_a_source_leaves_out_blocks_too(self):
        """No source says which file holds the C3D of the UCF-101 protocol: a user's own must be answered for."""
        assert "extractor_sha256" in protocol.PRESETS["ucf101_16x64x64"].unknown
        assert {"num_samples", "resize", "estimator"} <= set(protocol.PRESETS["bair_1_to_15"].unknown)

    def test_ho_et_al_say_what_they_say(self):
        """Of UCF-101 (field.md, 5.3): C3D features, 10k samples, unconditional clips of 16 x 64 x 64."""
        known = {name for name, value in protocol.PRESETS["ucf101_16x64x64"].fields.items() if value != protocol.FREE}
        said = {"metric", "data", "extractor", "num_samples", "num_frames", "height", "width"}
        assert known == said | {"num_given", "given_counted"}  # the last two: no frame is given
