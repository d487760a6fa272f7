"""Config to objects: one of each kind is added by a line in its table and a run goes through all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from configs import folder
from data import prepare, video_io
from data.sources import Splits, moving_digits, simulated
from tests import tiny
from tests.nets.tiny import randomised
from vdm import build, sample, train, validation
from vdm.diffusion import targets, weightings
from vdm.nets import blocks
from vdm.nets.unet3d import UNet3DConfig, unet3d
from vdm.types import Condition, Prediction, register_tree


@register_tree
@dataclasses.dataclass(frozen=True)
class Angle:
    """A schedule: alpha = cos(angle), sigma = sin(angle), the angle from 0.01 to 1.56."""

    num_steps = None

    def alpha(self, t):
        return jnp.cos(0.01 + 1.55 * t)

    def sigma(self, t):
        return jnp.sin(0.01 + 1.55 * t)


@dataclasses.dataclass(frozen=True)
class TwoTimes:
    """A measure: the times 1 and `early`, as often as each other."""

    early: float

    def ends(self, schedule):
        return self.early, 1.0

    def time(self, schedule, u):
        return jnp.where(u < 0.5, 1.0, self.early)

    def density(self, schedule, t):
        return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class Guess:
    """A sampler: wherever it stands, it takes the denoiser's estimate."""

    evaluations = 1

    def __call__(self, denoiser, schedule, xt, t, s, noise):
        return denoiser(xt, build.schedules.level(schedule, t))


@dataclasses.dataclass(frozen=True)
class Doubled:
    """A proposal: every loss counts twice."""

    def first(self):
        return jnp.zeros(())

    def draw(self, memory, uniform, row):
        return uniform, 2.0 * jnp.ones_like(uniform)

    def observe(self, memory, u, loss):
        return memory + loss.size


@dataclasses.dataclass(frozen=True)
class Asked:
    """A noise prior that says it was asked."""

    asked: list

    def covariance(self, num_frames):
        self.asked.append(num_frames)
        return np.eye(num_frames)


@dataclasses.dataclass(frozen=True)
class Gray:
    """A network: one number, the colour of all it predicts."""

    def init(self, key):
        return {"scale": jnp.zeros(1)}

    def apply(self, params, xt, log_snr, frame_index, condition, *, keys=None):
        return Prediction(jnp.broadcast_to(params["scale"], xt.shape))


@dataclasses.dataclass(frozen=True)
class Counted:
    """A network that notes its calls."""

    network: Any
    calls: list

    def init(self, key):
        return self.network.init(key)

    def apply(self, *args, **options):
        jax.debug.callback(lambda: self.calls.append(1))
        return self.network.apply(*args, **options)


@dataclasses.dataclass(frozen=True)
class Flat:
    """A world: frames of one grey level."""

    num_frames: int
    height: int
    width: int
    level: int = 191

    rendering = "flat"
    num_channels = 1
    class_names = ("grey",)

    def draw(self, split, rng):
        return self.level

    def show(self, state, rng):
        video = np.full((self.num_frames, self.height, self.width, 1), state, np.uint8)
        return {"video": video, "label": np.int32(0)}

    def caption(self, state):
        return "grey"


def both(told, untold):
    """Guidance: the sum of what the network says with its label and without."""
    return lambda xt, level: told(xt, level) + untold(xt, level)


def test_one_of_each_is_added_by_a_line_in_its_table_and_trained_through(tmp_path, monkeypatch):
    def gray(config, frame_shape, num_classes, remat):
        return Gray(), (("scale", PartitionSpec()),)

    def sgd(learning_rate, *, beta1, beta2, epsilon, momentum):
        return optax.sgd(learning_rate, momentum=momentum)

    twice_x0 = targets.Target("twice_x0", lambda level: (2 * jnp.ones_like(level.alpha), jnp.zeros_like(level.sigma)))
    thrice = weightings.Weighting("thrice", None, lambda schedule, t: jnp.log(3.0) * jnp.ones_like(t))
    asked: list[int] = []
    added: tuple[tuple[dict[str, Any], str, Any], ...] = (
        (build.WORLDS, "flat", Flat),
        (build.SOURCES, "flat", build.SOURCES["moving_shapes"]),
        (build.NETWORKS, "gray", gray),
        (build.SCHEDULES, "angle", Angle),
        (build.TARGETS, "twice_x0", lambda data_std: twice_x0),
        (build.WEIGHTINGS, "thrice", lambda data_std: thrice),
        (build.TIMES, "two", TwoTimes),
        (build.SAMPLERS, "guess", Guess),
        (build.OPTIMIZERS, "sgd", sgd),
        (build.PROPOSALS, "doubled", Doubled),
        (build.NOISE_PRIORS, "asked", lambda: Asked(asked)),
        (build.THRESHOLDS, "darker", lambda: lambda denoiser: lambda xt, level: 0.5 * denoiser(xt, level)),
        (build.GUIDANCE, "both", lambda: both),
        (build.grids.GRIDS, "halves", lambda schedule, num_steps: jnp.asarray([1.0, 0.5])),
    )
    for table, name, entry in added:
        monkeypatch.setitem(table, name, entry)
    config = tiny.get_config()
    with config.unlocked():
        config.data.update(name="flat", flat={"num_train": 16, "num_validation": 8, "level": 191})
        config.objective.times.update(name="two", two={"early": 0.5})
        config.optimizer.update(name="sgd", sgd={"momentum": 0.0}, learning_rate=0.05, clip_norm=1e6, ema_decay=0.0)
        config.network.name, config.schedule.name, config.sampler.name = "gray", "angle", "guess"
        config.objective.update(target="twice_x0", data_std=0.5)
        config.objective.weighting.name, config.objective.proposal.name = "thrice", "doubled"
        config.objective.noise_prior.name = "asked"
        config.sampler.threshold.name, config.sampler.spacing.name = "darker", "halves"
        config.sampler.guidance.name = "both"
        config.network.update(class_conditional=True, label_dropout=0.5)
        config.run.update(num_steps=6, log_every_steps=1, checkpoint_every_steps=0)
    done = train.train(config, tmp_path)
    # the loss is 6 (scale - 2 x0)^2, its slope 12 (scale - 2 x0): a step of rate r leaves 1 - 12 r of what is missing
    x0 = 191 / 127.5 - 1
    missing = np.cumprod([2 * x0, 1 - 12 * 0.025, *(1 - 12 * 0.05 for _ in range(5))])  # the first step is warmed up
    np.testing.assert_allclose([loss for _, loss in done.curves["train/loss"]], 6 * missing[:6] ** 2, rtol=1e-4)
    experiment, params, _ = sample.restore(config, tmp_path)
    np.testing.assert_allclose(params["scale"], 2 * x0 - missing[6], rtol=1e-5)
    clips = sample.make_draw(experiment)(params, 2)
    np.testing.assert_array_equal(clips, round(127.5 * (1 + 0.5 * 2 * (x0 - missing[6] / 2))))
    assert set(asked) == {4} and float(experiment.proposal.first()) == 0.0
    assert done.config["data"]["flat"]["level"] == 191 and "moving_shapes" not in done.config["data"]


LEARNED: dict[str, Any] = {
    "schedule.name": "learned",
    "objective.weighting.name": "likelihood",
    "objective.times.uniform.min": 0.0,
}
HYBRID: dict[str, Any] = {
    "schedule.name": "ddpm_linear",
    "objective.times.name": "grid",
    "objective.variance_weight": 0.1,
    "network.learned_variance": True,
}
REFUSALS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"schedule.zero_terminal_snr": True, "objective.target": "noise"}, "noise does not determine x0; predict v or x0"),
    ({"schedule.zero_terminal_snr": True, "objective.weighting.name": "min_snr"}, "min_snr gives no weight"),
    ({"schedule.name": "ve", "schedule.zero_terminal_snr": True}, "variance-preserving schedules; VE"),
    ({"schedule.name": "ddpm_linear", "schedule.discretise": 10}, "a chain of 1000"),
    ({"schedule.name": "flow", "objective.target": "noise"}, "at t = 1 noise does not determine x0"),
    ({"schedule.name": "flow", "sampler.name": "euler_maruyama"}, "Flow has no signal left"),
    ({"schedule.name": "flow", "sampler.spacing.name": "log_snr"}, "no signal at t = 1"),
    ({"schedule.name": "ddpm_linear", "objective.times.name": "grid", "sampler.num_steps": 1001}, "take fewer"),
    ({"sampler.name": "ddim", "sampler.ddim.eta": 1.5}, r"eta must be in \[0, 1\]"),
    (
        {"sampler.guidance.name": "classifier_free"},
        "no null condition: set network.class_conditional=True and network.label_drop",
    ),
    ({"sampler.guidance.name": "classifier_free", "network.class_conditional": True}, "no null condition"),
    (
        {
            "sampler.guidance.name": "classifier_free",
            "sampler.guidance.classifier_free.weight": -1.0,
            "network.class_conditional": True,
            "network.label_dropout": 0.1,
        },
        "weight >= 0",
    ),
    ({"sampler.threshold.name": "static", "sampler.threshold.static.high": 0.5}, r"the data lie in \[-1, 1\]: widen"),
    ({"sampler.threshold.name": "dynamic", "sampler.threshold.dynamic.percentile": 0.0}, "percentile must be in"),
    ({"objective.noise_prior.name": "shared", "objective.weighting.name": "likelihood"}, "weighting likelihood needs"),
    ({"objective.noise_prior.name": "shared", "sampler.name": "predictor_corrector"}, "a Langevin step needs"),
    ({"objective.noise_prior.name": "shared", "sampler.name": "annealed_langevin"}, "a Langevin step needs"),
    ({"network.learned_variance": True}, "a variance is learned where both are set"),
    (HYBRID | {"objective.dequantise": True}, r"takes pixels at 2 k/255 - 1: set"),
    ({"objective.variance_weight": 0.1}, "belongs to the steps of a chain"),
    ({"sampler.name": "learned_ancestral"}, "needs network.learned_variance=True"),
    ({"objective.weighting.name": "vlb"}, "set schedule.discretise"),
    ({"schedule.name": "learned"}, "a learned schedule is trained to lower the variance"),
    (LEARNED | {"sampler.spacing.name": "karras"}, "log-SNRs are not known"),
    ({"run.keep_every_steps": 3}, "saved every 2 steps: make it a multiple"),
    ({"run.num_microbatches": 0}, "run.num_microbatches is 0"),
    ({"run.num_microbatches": 3}, "3 microbatches"),
    (LEARNED | {"run.num_microbatches": 2}, "over the whole batch: set run.num_microbatches to 1"),
    ({"network.unet3d.groups": 8}, "the network is blind to level and class"),
)


@pytest.mark.parametrize(("changes", "said"), REFUSALS)
def test_what_cannot_work_is_refused_before_any_compute(changes, said):
    config = tiny.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=said):
        build.experiment(config)


def test_guidance_and_noise_priors_reach_the_samples(tmp_path):
    """One untrained class-conditional network whose clips change with each of the options."""
    config = tiny.get_config()
    config.network.update(class_conditional=True, label_dropout=0.1)
    config.sampler.name = "ddim"
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"sampler.guidance.name": "classifier_free", "sampler.guidance.classifier_free.weight": 3.0},
        {"objective.noise_prior.name": "shared"},
        {"sampler.threshold.name": "static", "sampler.threshold.static.high": 1.01},
    )
    clips = []
    for change in changes:
        config_of = tiny.get_config()
        config_of.update(config)
        config_of.update_from_flattened_dict(change)
        experiment = build.experiment(config_of)
        params = randomised(jax.eval_shape(experiment.init, jax.random.key(0)))
        clips.append(np.asarray(sample.make_sampler(experiment)(params, np.arange(8))))
        if not change or "sampler.guidance.name" in change:
            calls = []
            counted = dataclasses.replace(experiment, network=Counted(experiment.network, calls))
            jax.block_until_ready(sample.make_sampler(counted)(params, np.arange(2)))
            jax.effects_barrier()
            assert len(calls) == experiment.sampler.num_evaluations == (3 if not change else 6)
    plain, guided, shared, clipped = clips
    assert np.abs(guided - plain).max() > 0.05
    assert np.abs(shared - plain).max() > 0.05
    assert clipped.max() <= np.float32(1.01) < plain.max()


@pytest.mark.feature("O13", "O17")
def test_what_is_learned_beside_the_network_is_saved_and_goes_on(tmp_path):
    """A learned schedule and a loss-aware proposal: a run that stops and goes on is the run that does not. The
    schedule's numbers move, its ends stay, and samples and validation use what was learned.
    """
    config = tiny.get_config()
    config.update_from_flattened_dict(LEARNED | {"objective.proposal.name": "loss_aware", "objective.dequantise": True})
    config.objective.proposal.loss_aware.num_buckets = 4
    config.run.num_steps = 4
    train.train(config, tmp_path / "run")
    config.run.num_steps = 6
    done = train.train(config, tmp_path / "run")
    straight = train.train(config, tmp_path / "straight")
    assert done.curves["train/loss"] == straight.curves["train/loss"]
    experiment, params, _ = sample.restore(config, tmp_path / "run")
    first, last = experiment.objective.schedule, params["schedule"]
    assert type(last) is type(first)
    for name in ("linear", "inner", "bias", "outer"):
        assert np.abs(np.asarray(getattr(last, name)) - np.asarray(getattr(first, name))).max() > 1e-4, name
    assert (float(last.log_snr_min), float(last.log_snr_max)) == (-10.0, 10.0)
    reached = jax.jit(build.schedules.log_snr)(last, experiment.times_of(params, config.evaluation.log_snrs))
    np.testing.assert_allclose(reached, config.evaluation.log_snrs, atol=1e-3)
    # the sampler uses the numbers that were learned
    clips = [sample.make_sampler(experiment)(params | {"schedule": one}, np.arange(2)) for one in (last, first)]
    assert np.abs(np.asarray(clips[0] - clips[1])).max() > 1e-6


def test_the_data_of_a_likelihood_lie_anywhere_in_their_bins():
    """objective.dequantise: 2 (k + u)/256 - 1, u uniform by the example's own key; False: the middle of 255 steps."""
    config = tiny.get_config()
    config.objective.dequantise = True
    experiment = build.experiment(config)
    video = np.random.default_rng(0).integers(0, 256, (64, 4, 8, 8, 3), np.uint8)
    batch = {"video": jnp.asarray(video), "index": jnp.arange(64)}
    with jax.set_mesh(experiment.mesh):
        x0 = np.asarray(validation.clean_clips(experiment, batch, jax.random.key(0)))
        config.objective.dequantise = False
        plain = np.asarray(validation.clean_clips(build.experiment(config), batch, jax.random.key(0)))
    u = (x0 + 1) * 128 - video
    assert u.min() > -1e-4 and u.max() < 1 + 1e-4
    distance = np.abs(np.sort(u.ravel()) - (np.arange(u.size) + 0.5) / u.size).max()
    assert distance < 1.95 / np.sqrt(u.size) + 1e-4
    np.testing.assert_allclose(plain, video / 127.5 - 1, atol=1e-6)


def test_a_part_of_the_unet_is_added_by_a_line_in_its_table(monkeypatch):
    class Undone(blocks.RmsNorm):
        def __call__(self, x):
            return 0 * super().__call__(x)

    config = UNet3DConfig(3, 3, 8, (1,), 1, (), head_dim=8, norm="rms")
    inputs = jnp.ones((1, 2, 8, 8, 3)), jnp.zeros((1, 2)), jnp.arange(2)[None], Condition()
    outputs = []
    for norm, make in (("rms", blocks.RmsNorm), ("undone", Undone)):
        monkeypatch.setitem(blocks.NORMS, norm, make)
        network = unet3d(dataclasses.replace(config, norm=norm))
        params = jax.tree.map(lambda leaf: leaf + 0.1, network.init(jax.random.key(0)))
        outputs.append(np.asarray(network.apply(params, *inputs).value))
    assert np.ptp(outputs[0]) > 0.01
    assert np.ptp(outputs[1]) == 0  # no norm, nothing of the input


def test_the_config_of_a_folder_fits_a_folder_of_videos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        video_io.write(tmp_path / f"{name}.mp4", rng.integers(0, 256, (18, 48, 64, 3), np.uint8), fps=8)
    config = folder.get_config()
    config.data.folder.path = str(tmp_path)
    config.objective.data_std = 0.3
    experiment = build.experiment(config)
    assert len(experiment.splits.train) + len(experiment.splits.validation) == 3
    assert experiment.splits.train[0]["video"].shape == (16, 32, 32, 3)


def test_a_prepared_data_set_is_trained_on_with_its_classes(tmp_path):
    made: Splits = simulated.splits(moving_digits.World(4, 16, 16, num_digits=1), 8, 8)
    prepare.write(made, "digits", tmp_path / "tfds")
    config = tiny.get_config()
    config.data.update(name="tfds", height=16, width=16)
    config.data.tfds.update(dataset="digits", data_dir=str(tmp_path / "tfds"), validation_split="validation")
    config.network.class_conditional = True
    config.objective.data_std = 0.9
    experiment = build.experiment(config)
    assert (experiment.num_classes, experiment.frame_shape) == (10, (16, 16, 1))
    for i in range(8):
        np.testing.assert_array_equal(experiment.splits.train[i]["video"], made.train[i]["video"])
    config.data.tfds.validation_split = "test"
    with pytest.raises(ValueError, match=r"no split 'test'"):
        build.experiment(config)
