"""Sampling with given frames: what the network is told, what comes back, and what is refused before."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from data import video_io
from tests import tiny
from vdm import build, evaluate, sample
from vdm.types import Prediction

FRAMES = 6
TASKS = {
    "prediction": ({"num_given": 2}, (0, 1)),
    "back_prediction": ({"num_given": 1}, (5,)),
    "infilling": ({"num_past": 1, "num_future": 2}, (0, 4, 5)),
    "interpolation": ({"stride": 3}, (0, 3)),
}
EVERY = pytest.mark.parametrize("name", TASKS)


def config_of(task="generation", conditioning="given", trained="random_frames", **options):
    config = tiny.get_config()
    config.data.num_frames = FRAMES
    config.objective.target = "x0"
    config.objective.data_std = 1.0
    config.task.name = trained
    config.sampler.update(name="ddim", num_steps=3)
    config.sampler.task.name = task
    if options:
        config.sampler.task[task].update(options)
    config.sampler.conditioning.name = conditioning
    return config


class Stub:
    """A network whose estimate is a number for all pixels of a clip."""

    def __init__(self, says):
        self.says = says

    def init(self, key):
        return {}

    def apply(self, params, xt, log_snr, frame_index, condition, *, keys=None):
        return Prediction(jnp.broadcast_to(self.says(xt, log_snr)[:, None, None, None, None], xt.shape))


def share_known(xt, log_snr):
    return jnp.isposinf(log_snr).mean(axis=1)


def drawn(config, says, num_clips=3):
    experiment = dataclasses.replace(build.experiment(config), network=Stub(says))
    return experiment, sample.make_draw(experiment)({}, num_clips)


def pixel(value):
    return int(video_io.to_uint8(np.array([value]))[0])


def held_out(experiment, num_clips=3):
    return np.stack([experiment.splits.validation[index]["video"] for index in range(num_clips)])


@pytest.mark.feature("X2")
@EVERY
def test_given_frames_are_told_and_come_back_as_they_are(name):
    options, given = TASKS[name]
    experiment, clips = drawn(config_of(name, **options), share_known)
    wanted = [frame for frame in range(FRAMES) if frame not in given]
    np.testing.assert_array_equal(clips[:, list(given)], held_out(experiment)[:, list(given)])
    np.testing.assert_array_equal(clips[:, wanted], pixel(len(given) / FRAMES))


@pytest.mark.feature("X2")
def test_one_network_does_every_task_and_generation():
    _, clips = drawn(config_of(), share_known)
    np.testing.assert_array_equal(clips, pixel(0.0))  # nothing was known
    for name, (options, given) in TASKS.items():
        assert build.experiment(config_of(name, **options)).sampler.task.given == given


@pytest.mark.feature("X2")
@pytest.mark.parametrize("conditioning", ["replacement", "reconstruction"])
def test_a_network_without_tasks_is_shown_noisy_given_frames_at_the_level_of_all(conditioning):
    config = config_of("prediction", conditioning, trained="generation", num_given=4)
    experiment, clips = drawn(config, share_known)
    np.testing.assert_array_equal(clips[:, :4], held_out(experiment)[:, :4])
    np.testing.assert_array_equal(clips[:, 4:], pixel(0.0))
    seen = dataclasses.replace(experiment, network=Stub(lambda xt, log_snr: xt[:, :4].mean(axis=(1, 2, 3, 4))))
    levels = np.array([40, 120, 200], np.uint8)
    grey = np.broadcast_to(levels[:, None, None, None, None], (3, FRAMES, *experiment.frame_shape))
    clips = sample.make_sampler(seen)({}, np.arange(3), sample.Known(grey, None))
    wanted = np.asarray(clips[:, 4:].mean(axis=(1, 2, 3, 4)))
    assert np.corrcoef(wanted, levels)[0, 1] > 0.99 and np.ptp(wanted) > 0.3  # the network has seen them


@pytest.mark.feature("X2")
def test_frames_of_a_video_file_are_given_to_every_clip(tmp_path):
    config = config_of("prediction", num_given=2)
    experiment = dataclasses.replace(build.experiment(config), network=Stub(share_known))
    height, width, channels = experiment.frame_shape
    frames = np.repeat(np.arange(0, 240, 40, dtype=np.uint8), height * width * channels)
    frames = frames.reshape(FRAMES, height, width, channels)
    for count in (2, FRAMES):
        path = tmp_path / f"{count}.gif"
        path.write_bytes(video_io.encode_gif(frames[:count], 8, min_side=1))
        known = sample.of_video(experiment, str(path))
        sampler = sample.make_sampler(experiment)
        clips = np.concatenate(list(sample.in_batches(experiment, sampler, {}, 3, lambda: None, known)))
        np.testing.assert_array_equal(clips[:, :2], np.broadcast_to(frames[:2], clips[:, :2].shape))
    path.write_bytes(video_io.encode_gif(frames[:3], 8, min_side=1))
    with pytest.raises(ValueError, match="has 3 frames; the task gives 2 of 6: cut the file"):
        sample.of_video(experiment, str(path))
    path.write_bytes(video_io.encode_gif(frames[:2, :-1], 8, min_side=1))
    with pytest.raises(ValueError, match=f"frames of {height - 1} x {width} pixels.*convert the file first"):
        sample.of_video(experiment, str(path))
    with pytest.raises(ValueError, match=r"sampler\.task\.name is generation, which gives no frames"):
        sample.of_video(build.experiment(config_of()), str(path))


@pytest.mark.feature("X2")
def test_protocols_of_scores_name_the_task():
    of = evaluate.expected(build.experiment(config_of("prediction", num_given=2)), ())
    valid = of[evaluate.VALID]
    assert valid["task"] == {"name": "prediction", "prediction": {"num_given": 2}}
    assert "task" not in evaluate.expected(build.experiment(config_of()), ())[evaluate.VALID]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (config_of("prediction", trained="generation", num_given=2), "never draws: ask for a task of the training"),
        (config_of("prediction", num_given=5), "gives frames \\(0, 1, 2, 3, 4\\) of 6, which config.task"),
        (config_of(trained="prediction"), "sampler.task.name is generation and gives frames \\(\\) of 6"),
        (config_of("prediction", "replacement", num_given=2), "networks that were never given frames"),
        (config_of("prediction", num_given=6), "wants nothing"),
        (config_of("extrapolation"), "sampler.task.name is 'extrapolation'; it must be one of: generation, prediction"),
    ],
)
def test_tasks_that_a_network_cannot_do_are_refused(config, said):
    with pytest.raises(ValueError, match=said):
        build.experiment(config)


@pytest.mark.parametrize("name", ["unipc", "dpm_solver", "adaptive"])
def test_samplers_between_whose_steps_nothing_can_be_replaced_are_refused(name):
    config = config_of("prediction", "replacement", trained="generation", num_given=2)
    config.sampler.name = name
    with pytest.raises(ValueError, match="between which given frames cannot be replaced; take ancestral"):
        build.experiment(config)


def test_a_weight_below_zero_is_refused():
    config = config_of("prediction", "reconstruction", trained="generation", num_given=2)
    config.sampler.conditioning.reconstruction.weight = -1.0
    with pytest.raises(ValueError, match="weight of reconstruction guidance must be at least 0, got -1"):
        build.experiment(config)
