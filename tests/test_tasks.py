"""Training with given frames: what the network is shown in a step, and what is refused before one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tests import tiny
from vdm import build, likelihoods, refusals, steps, train, validation
from vdm.records import identity
from vdm.runtime import checkpoints, random
from vdm.runtime import mesh as meshes
from vdm.runtime.random import Purpose
from vdm.types import Prediction

FRAMES, SEEN = 6, 4
OPTIONS = {
    "prediction": {"num_given": 2},
    "blocks": {"num_past": 1, "num_future": 2, "probability": 0.5},
    "random_frames": {"most": 3, "unconditional": 0.25},
    "any_subset": {"num_seen": SEEN},
}


def config_of(name, **options):
    config = tiny.get_config()
    config.data.num_frames = FRAMES
    config.task.name = name
    if name != "generation":
        config.task[name].update(options or OPTIONS[name])
    if name == "prediction":
        config.sampler.task.name = name  # it is never shown a clip of nothing
    return config


class Spy:
    """A network that says zeros and remembers what it was shown."""

    def init(self, key):
        return {"w": jnp.zeros(())}

    def apply(self, params, xt, log_snr, frame_index, condition, *, keys=None):
        self.seen = xt, log_snr, frame_index
        return Prediction(xt * params["w"])


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    video = jnp.asarray(generator.integers(0, 256, (8, FRAMES, 8, 8, 3), np.uint8))
    return {"video": video, "index": jnp.arange(100, 108)}


@pytest.mark.feature("X1")
@pytest.mark.parametrize("name", ["generation", *OPTIONS])
def test_a_step_shows_given_frames_as_they_are_and_counts_the_others(name, batch):
    made = build.experiment(config_of(name))
    spy = Spy()
    model = dataclasses.replace(made, network=spy)
    u = jnp.linspace(0.1, 0.9, 8)
    losses, log_snr = steps.losses_of(model, jnp.int32(3), {"w": jnp.zeros(())}, (batch, u, None))
    xt, told, frame_index = spy.seen
    keys = random.example_keys(made.key(Purpose.TASK, 3), batch["index"])
    drawn, given = jax.vmap(lambda key: made.tasks.draw(key, FRAMES))(keys)
    np.testing.assert_array_equal(frame_index, drawn)
    x0 = np.take_along_axis(np.asarray(batch["video"]) / 127.5 - 1, np.asarray(drawn)[..., None, None, None], axis=1)
    given = np.asarray(given)
    np.testing.assert_allclose(np.asarray(xt)[given], x0[given] / made.objective.data_std, atol=1e-6)
    assert np.isposinf(np.asarray(told)[given]).all()
    np.testing.assert_array_equal(np.asarray(told)[~given], np.asarray(log_snr)[~given])
    assert given.any() == (name != "generation") and log_snr.shape == drawn.shape
    # a network that says zeros has the target itself as its error: v = alpha noise - sigma x0, of wanted frames
    alpha, sigma = (np.sqrt(1 / (1 + np.exp(sign * np.asarray(log_snr)))) for sign in (-1, 1))
    noise = np.asarray(xt) * np.hypot(alpha, sigma)[..., None, None, None] - alpha[..., None, None, None] * x0
    noise /= sigma[..., None, None, None]
    v = alpha[..., None, None, None] * noise - sigma[..., None, None, None] * x0
    per_frame = (v**2).mean(axis=(2, 3, 4))
    expected = [row[~mask].mean() for row, mask in zip(per_frame, given, strict=True)]
    np.testing.assert_allclose(losses.loss, expected, rtol=2e-3)


@pytest.mark.feature("X1")
def test_a_network_trains_with_given_frames(tmp_path):
    """Losses on held-out clips with tasks of their own fall, and are named by them."""
    config = config_of("random_frames")
    config.run.num_steps = 30
    config.optimizer.learning_rate = 3e-3
    assert train.main(config, str(tmp_path), overfit=0) == 0
    experiment = build.experiment(config)
    start, end = (
        validation.make_validation(experiment)(params)[f"validation/loss, {experiment.tasks}"][0][1]
        for params in (experiment.first_state().params, _trained(experiment, tmp_path))
    )
    assert end < 0.8 * start


def _trained(experiment, folder):
    return checkpoints.restore(epath.Path(folder) / "checkpoints", experiment.abstract_state()).params


def test_runs_of_earlier_code_keep_their_identity():
    config = tiny.get_config()
    earlier = {key: value for key, value in identity.resolve(config).items() if key != "task"}
    assert identity.identity_hash(earlier) == identity.identity_hash(config)
    assert identity.identity_hash(config) != identity.identity_hash(config_of("prediction"))
    assert "task" not in identity.identity(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": {"name": "predict"}}, "task.name is 'predict'; it must be one of: generation, prediction, blocks"),
        ({"task": {"name": "prediction", "prediction": {"num_given": 4}}}, "num_given is 4; of clips of 4 frames"),
        (
            {"task": {"name": "blocks", "blocks": {"num_past": 1, "num_future": 1}}, "schedule": {"name": "learned"}}
            | {"objective": {"weighting": {"name": "likelihood"}, "times": {"uniform": {"min": 0.0}}}},
            "task.name is blocks and config.schedule.name learned",
        ),
        (
            {"task": {"name": "any_subset", "any_subset": {"num_seen": 3}}}
            | {"objective": {"noise_prior": {"name": "progressive"}}},
            "noise_prior.name is progressive, of frames that follow each other",
        ),
    ],
)
def test_tasks_that_cannot_be_are_refused(changes, said):
    config = tiny.get_config()
    config.update(changes)
    with pytest.raises(ValueError, match=said):
        build.experiment(config)


def test_a_mesh_that_does_not_divide_the_frames_seen_is_refused():
    made = build.experiment(config_of("any_subset", num_seen=5))
    mesh = meshes.abstract_mesh(data=1, fsdp=1, tensor=1, frames=2)
    with pytest.raises(ValueError, match="splits frames 2 ways, which does not divide the 5 that the network sees"):
        refusals.check_tasks(made.config, mesh, made.tasks, made.objective)


def test_draws_differ_between_steps_and_not_between_validations(batch):
    made = build.experiment(config_of("random_frames"))
    clips = jnp.zeros((8, FRAMES, 8, 8, 3))

    def given(purpose, step=0):
        return validation.shown(made, made.tasks, clips, made.key(purpose, step), batch["index"]).given

    assert (given(Purpose.TASK, 1) != given(Purpose.TASK, 2)).any()
    np.testing.assert_array_equal(given(Purpose.VALIDATION_TASK), given(Purpose.VALIDATION_TASK))
    assert (given(Purpose.VALIDATION_TASK) != given(Purpose.SELECTION_TASK)).any()


def test_the_curve_of_the_bound_is_of_whole_clips_whatever_the_tasks_of_training():
    curves = []
    for name in ("generation", "random_frames"):
        config = config_of(name)
        config.scores.update(num_levels=3, num_likelihood=8, likelihoods=("bound",))
        made = build.experiment(config)
        curves.append(likelihoods.curve(made, made.first_state().params))
    assert curves[0] == curves[1]
    config = config_of("prediction")
    config.scores.update(num_likelihood=8, likelihoods=("bound",))
    with pytest.raises(ValueError, match=r"none of which config\.task \(prediction\) has shown the network"):
        likelihoods.check(build.experiment(config))
