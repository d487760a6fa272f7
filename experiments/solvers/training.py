"""The exact-answer comparison: small networks trained with every named objective, 30 seeds at once, held against the
exact denoiser.

The yardsticks are the same for all objectives. At each of 13 log-SNRs from -6 to 6 the squared distance of the learned
from the exact estimate of x0 is what the network's error exceeds the smallest possible one by. As an error of v (times
1 + SNR) or of the noise (times SNR, which is the error of sigma times the score) it is averaged over the levels and
divided by the average of the smallest possible error: that is the relative excess.
"""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.special import expit

from experiments.solvers.networks import GatedLinear, Perceptron, SmallNetwork
from experiments.solvers.paths import rounded
from experiments.solvers.rows import Row, proposals, trained_rows
from experiments.solvers.worlds import GaussianVideo, MixtureVideo, World, noisy
from vdm.diffusion import objectives, schedules
from vdm.diffusion.objectives import Objective
from vdm.types import Key, Level, Params, Video, register_tree

NUM_SEEDS = 30
BATCH = 64
EVERY = 40  # steps between two measurements
SEGMENT = 5  # measurements in one call
NUM_SEGMENTS = 10
LEARNING_RATE, EMA_DECAY = 1e-2, 0.99  # the rate falls to zero along a cosine
LOG_SNRS = np.arange(-6.0, 7.0)
EDGES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # of the buckets of log-SNR, the outer two of which are open
NUM_MEASURED = 10  # seeds whose gradients are looked at, before the first step and after the first segment
NUM_GRADIENTS = 1024  # of single clips, for each of these seeds
NUM_BATCHES = 32  # gradients of whole batches, for each of these seeds
NUM_REFERENCE = 20_000  # clips for the smallest possible error of the mixture, per log-SNR
NUM_THREADS = 2  # studies at a time: their programs are too small to fill two cores
NUM_POINTS = 64  # noisy clips per log-SNR at which a network on the mixture is measured
TARGETS = (0.1, 0.02, 0.01)  # relative excess that is waited for
YARDSTICKS = ("v", "noise")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A world and the network for it."""

    world: World
    network: SmallNetwork


SETTINGS = (
    Setting(GaussianVideo(3, 1, 2), GatedLinear(6)),
    Setting(MixtureVideo(3, 1, 3), Perceptron(9, 64)),
)


@register_tree
@dataclasses.dataclass(frozen=True)
class State:
    """Of one seed."""

    params: Params
    average: Params
    optimizer: Any
    memory: Any
    step: Float[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """One objective on one setting. Compared by identity: compiled functions know it, and a chain holds arrays."""

    setting: Setting
    row: Row

    @property
    def objective(self) -> Objective:
        return self.row.objective


_OPTIMIZER = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, NUM_SEGMENTS * SEGMENT * EVERY), b2=0.99)
_compiled = functools.partial(  # these programs compile for longer than they run
    jax.jit, static_argnames="study", compiler_options={"xla_backend_optimization_level": 1}
)


def draw_clips(world: World, key: Key, num_clips: int) -> Video:
    """Clean clips, float32."""
    which, normal = jax.random.split(key)
    if isinstance(world, GaussianVideo):
        root = jnp.asarray(np.linalg.cholesky(world.covariance), jnp.float32)
        white = jax.random.normal(normal, (num_clips, root.shape[0]))
        return (white @ root.T).reshape(num_clips, *world.shape)
    assert isinstance(world, MixtureVideo)
    means = jnp.asarray(world.means, jnp.float32)[jax.random.randint(which, (num_clips,), 0, len(world.means))]
    return means + world.std * jax.random.normal(normal, means.shape)


def batch_loss(study: Study, params: Params, memory: Any, key: Key, size: int) -> tuple[Array, tuple[Array, Array]]:
    """The mean loss of a batch, and (u, loss) of every clip in it."""
    world, objective = study.setting.world, study.objective
    of_clips, of_noise, of_levels = jax.random.split(key, 3)
    x0 = draw_clips(world, of_clips, size)
    uniform = jax.random.uniform(of_levels, (size,))
    u, importance = study.row.proposal.draw(memory, uniform, jnp.arange(size))
    t = objectives.times_of(objective, u, x0.shape[1])
    losses = objectives.loss(
        objective, study.setting.network.predict(params), x0, jax.random.normal(of_noise, x0.shape), t
    )
    return jnp.mean(importance * losses.loss), (u, losses.loss)


@functools.partial(jax.jit, static_argnames="study")
def start(study: Study, keys: Key) -> State:
    def first(key: Key) -> State:
        params = study.setting.network.init(key)
        return State(params, params, _OPTIMIZER.init(params), study.row.proposal.first(), jnp.zeros(()))

    return jax.vmap(first)(keys)


@_compiled
def train(study: Study, states: State, keys: Key, points: Video) -> tuple[State, Float[Array, "seeds times levels"]]:
    """SEGMENT times EVERY steps, and the x0 excess of the averaged parameters after each EVERY of them."""

    def step(state: State, key: Key) -> tuple[State, None]:
        gradient = jax.value_and_grad(lambda params: batch_loss(study, params, state.memory, key, BATCH), has_aux=True)
        (_, (u, losses)), grads = gradient(state.params)
        updates, optimizer = _OPTIMIZER.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(EMA_DECAY, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.average, params)
        memory = study.row.proposal.observe(state.memory, u, losses)
        return State(params, average, optimizer, memory, state.step + 1.0), None

    def measured(state: State, keys: Key) -> tuple[State, Float[Array, "levels"]]:
        state, _ = jax.lax.scan(step, state, keys)
        return state, excess(study, state.average, points)

    def one(state: State, key: Key) -> tuple[State, Float[Array, "times levels"]]:
        return jax.lax.scan(measured, state, jax.random.split(key, (SEGMENT, EVERY)))

    return jax.vmap(one)(states, keys)


def excess(study: Study, params: Params, points: Float[Array, "levels points ..."]) -> Float[Array, "levels"]:
    """Mean squared distance per pixel of the learned from the exact estimate of x0, at variance-preserving levels."""
    denoise = objectives.denoiser(study.objective, study.setting.network.predict(params))

    def at(x: Video, log_snr: Float[Array, ""]) -> Float[Array, ""]:
        level = vp_level(log_snr, x.shape[:2])
        return jnp.mean((denoise(x, level) - study.setting.world.denoise(x, level)) ** 2)

    return jax.vmap(at)(points, jnp.asarray(LOG_SNRS, jnp.float32))


def vp_level(log_snr: Float[Array, ""], shape: tuple[int, ...]) -> Level:
    """alpha^2 + sigma^2 = 1."""
    parts = jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr)), log_snr
    return Level(*(jnp.broadcast_to(part, shape) for part in parts))


@_compiled
def gradients(study: Study, states: State, keys: Key) -> dict[str, Array]:
    """Of every seed at its parameters.

    Returns:
      `draws` [seeds, buckets], the share of draws in each bucket of log-SNR; and, divided by the squared norm of the
      mean gradient, `within` [seeds, buckets], the variance of single clips' gradients in the bucket times its share of
      draws, `clip` [seeds], that of single clips over all levels, and `batch` [seeds], that of the mean over a batch.
    """

    def one(args: tuple[State, Key]) -> dict[str, Array]:
        state, key = args
        of_clips, of_batches = jax.random.split(key)
        of_clip = lambda key: _gradient(study, state, key, 1)  # noqa: E731
        grads, log_snr = jax.vmap(of_clip)(jax.random.split(of_clips, NUM_GRADIENTS))
        bucket = jax.nn.one_hot(jnp.searchsorted(jnp.asarray(EDGES), log_snr), len(EDGES) + 1)
        share = bucket.mean(axis=0)
        means = bucket.T @ grads / jnp.maximum(bucket.sum(axis=0), 1.0)[:, None]
        squares = bucket.T @ jnp.sum(grads**2, axis=1) / NUM_GRADIENTS
        of_batch = lambda key: _gradient(study, state, key, BATCH)[0]  # noqa: E731
        batches = jax.lax.map(of_batch, jax.random.split(of_batches, NUM_BATCHES))
        variance = jnp.sum(jnp.var(grads, axis=0, ddof=1))
        batch_variance = jnp.sum(jnp.var(batches, axis=0, ddof=1))
        signal = jnp.sum(batches.mean(axis=0) ** 2) - batch_variance / NUM_BATCHES
        within = squares - share * jnp.sum(means**2, axis=1)
        return {
            "draws": share,
            "within": within / signal,
            "clip": variance / signal,
            "batch": batch_variance / signal,
        }

    return jax.lax.map(one, (states, keys))


def _gradient(study: Study, state: State, key: Key, size: int) -> tuple[Float[Array, "params"], Float[Array, ""]]:
    """The flat gradient of a batch's loss, and the log-SNR of its first clip."""
    loss = lambda params: batch_loss(study, params, state.memory, key, size)  # noqa: E731
    grads, (u, _) = jax.grad(loss, has_aux=True)(state.params)
    schedule = study.objective.schedule
    log_snr = schedules.log_snr(schedule, study.objective.times.time(schedule, u[:1]))[0]
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)]), log_snr


def run() -> dict[str, Any]:
    """Settings with the smallest possible errors, and a row for every world and objective; see `_row`."""
    studies = [
        Study(setting, row)
        for setting in SETTINGS
        for row in (*trained_rows(setting.world.rms), *proposals(setting.world.rms))
    ]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        made = list(pool.map(_row, studies))
    return {
        "settings": {
            "num_seeds": NUM_SEEDS,
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
            "ema_decay": EMA_DECAY,
            "log_snrs": LOG_SNRS.tolist(),
            "edges": EDGES,
            "gradient_steps": (0, SEGMENT * EVERY),
            "smallest_noise_error": {
                setting.world.name: rounded(smallest_x0_error(setting.world) * np.exp(LOG_SNRS)) for setting in SETTINGS
            },
        },
        "rows": made,
    }


def _row(study: Study) -> dict[str, Any]:
    """One study, quartiles over seeds as [25 %, 50 %, 75 %].

    `steps` and the median relative `excess` by yardstick; `steps_to` each target by yardstick, None where so many seeds
    did not come there; `final` excess by yardstick; `score` [levels], the median final error of the noise; and what
    `gradients` measures, before the first step and later.
    """
    world = study.setting.world
    keys = jax.random.split(jax.random.key(0), (NUM_SEGMENTS + 1, NUM_SEEDS))
    states, points = start(study, keys[-1]), measuring_points(world)
    looked_at, excesses = [], []
    for segment in range(NUM_SEGMENTS):
        if segment < 2:
            few = jax.tree.map(lambda leaf: leaf[:NUM_MEASURED], states)
            looked_at.append(gradients(study, few, keys[-1][:NUM_MEASURED]))
        states, measured = train(study, states, keys[segment], points)
        excesses.append(np.asarray(measured, np.float64))
    by_level = np.concatenate(excesses, axis=1)  # seeds, times, levels
    steps = EVERY * np.arange(1, by_level.shape[1] + 1)
    relative = {name: _relative(name, by_level, smallest_x0_error(world)) for name in YARDSTICKS}
    return {
        "world": world.name,
        "objective": study.row.name,
        "steps": steps.tolist(),
        "excess": {name: rounded(np.median(values, axis=0), 3) for name, values in relative.items()},
        "steps_to": {
            name: {f"{target:g}": _steps_to(values, steps, target) for target in TARGETS}
            for name, values in relative.items()
        },
        "final": {name: _quartiles(values[:, -1]) for name, values in relative.items()},
        "score": rounded(np.median(by_level[:, -1], axis=0) * np.exp(LOG_SNRS), 3),
        "gradient": [_gradient_summary(measured) for measured in looked_at],
    }


def _gradient_summary(measured: dict[str, Array]) -> dict[str, Any]:
    draws, within = (np.mean(np.asarray(measured[name]), axis=0) for name in ("draws", "within"))
    return {
        "draws": rounded(draws, 3),
        "within": rounded(within, 3),
        "clip": _quartiles(np.asarray(measured["clip"])),
        "batch": _quartiles(np.asarray(measured["batch"])),
    }


def measuring_points(world: World) -> Float[Array, "levels points frames height width channels"]:
    """Noisy clips at every log-SNR, alpha^2 + sigma^2 = 1: for the Gaussian video a design with their exact second
    moments, for the mixture draws.
    """
    random = np.random.default_rng(0)
    levels = [(np.sqrt(expit(log_snr)), np.sqrt(expit(-log_snr))) for log_snr in LOG_SNRS]
    if isinstance(world, GaussianVideo):
        return jnp.asarray(np.stack([world.marginal_design(*level) for level in levels]), jnp.float32)
    return jnp.asarray(np.stack([noisy(world, random, NUM_POINTS, *level) for level in levels]), jnp.float32)


@functools.cache
def smallest_x0_error(world: World) -> Float[np.ndarray, "levels"]:
    """Mean squared error per pixel of the exact denoiser at every log-SNR."""
    if isinstance(world, GaussianVideo):
        values, _ = world.modes
        return np.mean(values / (1.0 + np.exp(LOG_SNRS)[:, None] * values), axis=1)
    random = np.random.default_rng(1)
    errors = []
    for log_snr in LOG_SNRS:
        level = vp_level(jnp.asarray(log_snr, jnp.float32), (NUM_REFERENCE, world.shape[0]))
        x0 = world.draw(random, NUM_REFERENCE)
        xt = np.sqrt(expit(log_snr)) * x0 + np.sqrt(expit(-log_snr)) * random.normal(size=x0.shape)
        errors.append(np.mean((np.asarray(world.denoise(jnp.asarray(xt, jnp.float32), level)) - x0) ** 2))
    return np.array(errors)


def _relative(
    yardstick: str, x0_excess: Float[np.ndarray, "... levels"], smallest: Float[np.ndarray, "levels"]
) -> Float[np.ndarray, "..."]:
    snr = np.exp(LOG_SNRS)
    weight = {"v": 1.0 + snr, "noise": snr}[yardstick]
    return np.mean(weight * x0_excess, axis=-1) / np.mean(weight * smallest)


def _steps_to(
    values: Float[np.ndarray, "seeds times"], steps: Float[np.ndarray, "times"], target: float
) -> list[float | None]:
    reached = values <= target
    first = np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], np.inf)
    return rounded(np.quantile(first, (0.25, 0.5, 0.75), method="inverted_cdf"))


def _quartiles(values: Float[np.ndarray, "seeds"]) -> list[float | None]:
    return rounded(np.quantile(values, (0.25, 0.5, 0.75)), 3)
