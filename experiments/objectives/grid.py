"""The studies of objectives as configs of `vdm compare`: what is compared, by what, and when it ends stand here.

    python -m vdm compare --config=experiments/objectives/grid.py:factorial --workdir=runs/objectives/factorial

factorial: target x effective weight, with one schedule, one range of log-SNR and levels drawn alike;
density:   how levels are drawn, at one effective weight: it may change the speed of training and nothing else;
presets:   objectives as they were published, each with its own schedule, levels and sampler;
floor:     bits/dim of a chain by three routes, on data whose entropy is known.

Budget: 2,000 steps a run. All arms have one network, so these are equal FLOPs as well. An arm is written down before it
runs and none is left out afterwards: one that diverges at every learning rate stops the comparison. Primary outcomes
(`OUTCOMES`): the share of valid clips by the sampler that all arms share, at 64 evaluations, and bits/dim by the bound;
of factorial, their means over the other factor, corrected for the pairs of a factor; of density, the variance of the
gradient at one network and the error of the noise at the steps of validation; of floor, bits/dim by each route.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base, demo, entries, objectives

EVALUATIONS = (8, 16, 32, 64, 256)  # of the samplers that all arms share, for a clip
COMMON = (-8.0, 7.5)  # log-SNR of the shared samplers: VE ends at 7.8
RANGE = (-8.0, 9.0)  # log-SNR that is trained and measured: DDPM's chain starts at 9.2
NUM_STEPS = 2000
VALIDATE_EVERY = 500
SENSOR_NOISE = 0.05  # makes nearly all of the data's entropy, so that it is known

VALID, BITS = SCORES = ("valid clips, common_64", "bits/dim (bound)")
VARIANCE = "variance of the gradient, against even"
ERRORS = tuple(f"noise error, step {step}" for step in range(VALIDATE_EVERY, NUM_STEPS + 1, VALIDATE_EVERY))
OUTCOMES = {
    "factorial": SCORES,
    "density": (VARIANCE, *ERRORS),
    "presets": SCORES,
    "floor": ("bits/dim (chain)", "bits/dim (bound)", "bits/dim (flow)"),
}

TARGETS = ("noise", "x0", "v")
_EDM_LEVELS = {"name": "log_normal_sigma", "log_normal_sigma": {"mean": -1.2, "std": 1.2}}
_EVEN = {"name": "log_snr_uniform", "log_snr_uniform": {"min": RANGE[0], "max": RANGE[1]}}
_DRAWN_EVENLY = {"name": "measure", "measure": {"times": _EVEN, "own_share": 0.01}}
WEIGHTS: dict[str, tuple[str, dict[str, Any]]] = {  # title, objective; with the measure it is the effective weight
    "uniform": ("1", {"weighting": {"name": "simple"}, "times": _EVEN}),
    "exponential": (
        "exp(-log-SNR / 2)",
        {"weighting": {"name": "p2", "p2": {"k": 1e-12, "gamma": 0.5}}, "times": _EVEN},
    ),
    "min_snr": ("min-SNR", {"weighting": {"name": "min_snr"}, "times": _EVEN}),
    "edm": ("EDM", {"weighting": {"name": "edm"}, "times": _EDM_LEVELS, "proposal": _DRAWN_EVENLY}),
}
EVEN = "uniform"
DENSITIES: dict[str, tuple[str, dict[str, Any]]] = {
    EVEN: ("even in log-SNR", {}),
    "log_normal": (
        "as EDM's",
        {"proposal": {"name": "measure", "measure": {"times": _EDM_LEVELS, "own_share": 0.1}}},
    ),
    "adaptive": ("by the losses", {"proposal": {"name": "loss_aware"}}),
}
_STOCHASTIC = {"name": "ancestral", "num_steps": 64, "spacing": {"name": "log_snr"}}
_LANGEVIN = {"name": "predictor_corrector", "predictor_corrector": {"predictor": "reverse_diffusion", "snr": 0.16}}
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {  # title, own sampler
    "ddpm": ("DDPM", {"name": "ancestral", "ancestral": {"variance_interpolation": 1.0}, "num_steps": 64}),
    "vp_sde": ("VP SDE", {"name": "euler_maruyama", "num_steps": 64}),
    "sub_vp_sde": ("sub-VP SDE", {"name": "euler_maruyama", "num_steps": 64}),
    "ve_sde": ("VE SDE", _LANGEVIN | {"num_steps": 32}),
    "edm": ("EDM", {"name": "heun", "num_steps": 32, "spacing": {"name": "karras"}}),
    "vlb": ("continuous bound", {"name": "ancestral", "num_steps": 64, "spacing": {"name": "log_snr"}}),
    "flow": ("flow matching", {"name": "euler", "num_steps": 64}),
}
# log-SNRs of Kingma et al. 2021, whose levels are even in it before they are learned; at the noisy end not -5, but
# where the shared samplers start
_VDM = (COMMON[0], 13.3)
CHAINS = {"ddpm": "L_simple", "ddpm_vlb": "L_vlb"}


def get_config(study: str = "presets") -> ConfigDict:
    """The comparison of a study.

    Raises:
      ValueError: there is no such study.
    """
    if study not in STUDIES:
        raise ValueError(f"no study is called {study!r}; there are: {', '.join(STUDIES)}")
    config = _shared(study)
    with config.unlocked():
        for name, arm in STUDIES[study](config):
            config.compare.arm[name] = arm
            config.compare.arms += (name,)
    return config


def _shared(study: str) -> ConfigDict:
    """A smaller world than the demo's, seen through a noisy sensor, and a network like the demo's; all but the arms."""
    config = demo.get_config()
    with config.unlocked():
        config.compare = base.get_config().compare
        for count in EVALUATIONS:
            config.scores.sampling[f"common_{count}"] = entries.common_sampling(count, *COMMON)
    config.name = f"objectives/{study}"
    config.data.update(height=8, width=8, num_selection=256)
    config.data.moving_shapes.update(shapes=("disk",), num_directions=4, radius=2.0, noise=SENSOR_NOISE)
    config.network.unet3d.update(channels=48, patch=2)
    config.objective.update(data_std=0.254, normalise=True, dequantise=True)
    config.objective.weighting.min_snr.update(gamma=5.0, power=1.0)  # as published
    config.optimizer.update(decay_steps=NUM_STEPS - 100, ema_decay=0.998, ema_decay_short=0.99)
    config.sampler.spacing.uniform.t_min = 1e-3
    config.evaluation.update(num_samples=128, num_validation=128, log_snrs=(-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0))
    config.scores.update(samplings=tuple(config.scores.sampling), num_likelihood=128, num_levels=32)
    config.scores.update(log_snr_min=RANGE[0], log_snr_max=RANGE[1], likelihoods=("bound",))
    config.run.update(
        num_steps=NUM_STEPS, log_every_steps=50, validate_every_steps=VALIDATE_EVERY, sample_every_steps=0
    )
    config.compare.select.factors = (0.4, 1.0, 2.5)
    # density's are no metrics of a run: the tables compare them, and its report has verdicts on scores that it asks not
    config.compare.outcomes = SCORES if study == "density" else OUTCOMES[study]
    config.compare.parallel = 2
    config.compare.num_shown = 4
    return config


def _factorial(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    config.compare.question = (
        "Does what a network predicts matter beside what its errors weigh? The same schedule, levels, network, data "
        "and noise; three targets under four effective weights."
    )
    config.compare.seeds = (0, 1, 2, 3, 4)
    config.schedule.name = "cosine"
    config.schedule.cosine.update(log_snr_min=RANGE[0], log_snr_max=RANGE[1])
    config.scores.samplings = ("common_64",)
    config.sampler.update(_STOCHASTIC)  # no paper has a sampler for a cell of a grid
    for target in TARGETS:
        for name, (title, objective) in WEIGHTS.items():
            changes = {"objective": objective | {"target": target}}
            yield f"{target}_{name}", entries.arm(f"{target}, {title}", "", changes)


def _density(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    config.compare.question = "Does it matter how often levels are drawn, where the effective weight stays the same?"
    config.compare.seeds = (0, 1, 2)
    config.schedule.name = "cosine"
    config.schedule.cosine.update(log_snr_min=RANGE[0], log_snr_max=RANGE[1])
    config.scores.samplings = ("common_64",)
    config.sampler.update(_STOCHASTIC)
    config.objective.update(target="v", times=_EVEN)
    config.objective.weighting.name = "simple"
    for name, (title, objective) in DENSITIES.items():
        yield name, entries.arm(title, "", {"objective": objective})


def _presets(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    config.compare.question = (
        "Which published objective is ahead on this world, at an equal number of steps? Schedule, target, weighting, "
        "levels and sampler are the papers', so what makes a difference is not told apart here: see factorial."
    )
    config.compare.seeds = (0, 1, 2, 3, 4)
    config.scores.likelihoods = ("bound", "flow")
    for name, (title, sampler) in PRESETS.items():
        row = objectives.ROWS[name]
        changes = row | {"sampler": sampler}
        if name == "flow":  # the integral of its effective weight is not finite; its loss is of the order of 1 as it is
            changes["objective"] = row["objective"] | {"normalise": False}
        if name == "vlb":
            low, high = _VDM
            changes["schedule"] = row["schedule"] | {"cosine": {"log_snr_min": low, "log_snr_max": high}}
            levels = {"name": "log_snr_uniform", "log_snr_uniform": {"min": low, "max": high}}
            changes["objective"] = row["objective"] | {"times": levels}
        yield name, entries.arm(title, f"configs/objectives.py:{name}", changes)


def _floor(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    config.compare.question = (
        "How far are the chain's bits/dim from the entropy of the data, and do the discrete bound, the continuous "
        "bound and the flow agree?"
    )
    config.compare.seeds = (0, 1, 2)
    config.scores.update(samplings=("common_64",), likelihoods=("chain", "bound", "flow"))
    config.scores.flow.probes = 4
    config.sampler.update(_STOCHASTIC | {"spacing": {"name": "uniform"}})  # a chain's
    for name, title in CHAINS.items():
        yield name, entries.arm(f"DDPM, {title}", f"configs/objectives.py:{name}", objectives.ROWS[name])


STUDIES = {"factorial": _factorial, "density": _density, "presets": _presets, "floor": _floor}
