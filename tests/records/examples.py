"""Records and reports as a small comparison would leave them, with made numbers, for the tests of this room."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from configs.base import get_config
from vdm.records import comparison, record
from vdm.records.comparison import Arm, Comparison, Healthy, OverSeeds, PassLine, Report
from vdm.records.statistics import Interval, paired_proportion_difference, proportion

LOSS_DIFFERENCES = {1: Interval(-0.001, -0.004, 0.002), 2: Interval(-0.061, -0.072, -0.05)}
COLOURS = ((230, 70, 60), (70, 200, 90), (80, 120, 240))


def clips(num_clips: int, seed: int, jitter: float = 0.0) -> np.ndarray:
    """A soft disk on a straight path, uint8 [num_clips, 8, 16, 16, 3]; `jitter` in pixels shakes it."""
    generator = np.random.default_rng(seed)
    start, angle = generator.uniform(5, 11, (num_clips, 2)), generator.uniform(0, 2 * np.pi, num_clips)
    colour = np.array(COLOURS)[generator.integers(3, size=num_clips)]
    shake = jitter * np.random.default_rng(seed + 1).normal(size=(num_clips, 8, 2))
    step = np.stack([np.cos(angle), np.sin(angle)], -1)
    centre = start[:, None] + 0.6 * np.arange(8)[None, :, None] * step[:, None] + shake
    rows, columns = np.mgrid[:16, :16]
    distance = np.hypot(rows - centre[..., 0, None, None], columns - centre[..., 1, None, None])
    mask = np.clip(3.0 - distance, 0, 1)[..., None]
    return (mask * colour[:, None, None, None]).astype(np.uint8)


def a_record(arm: int = 0, successes: int = 200) -> record.Record:
    """Arm 0 is continuous, 1 discrete, 2 trained for a tenth of the steps."""
    config = get_config()
    if arm == 1:
        config.schedule.name, config.objective.times.name = "ddpm_linear", "grid"
    if arm == 2:
        config.run.num_steps = 100
    begun = record.begin(
        config,
        mesh={"data": 1, "fsdp": 1, "tensor": 1, "frames": 1},
        data_fingerprint="3f1c9a55d2b0",
        seeds={"all": 0},
        num_parameters=412_345,
        effective_weight=_weight(arm),
    )
    steps = np.arange(50, config.run.num_steps + 1, 50)
    loss = 0.05 + 0.9 * np.exp(-steps / 180) + 0.01 * np.sin(steps + arm)
    curves = {"train/loss": [(int(step), float(value)) for step, value in zip(steps, loss, strict=True)]}
    for level in (-4, 0, 4):
        scale = 0.1 + 0.12 * (level + 4)
        curves[f"validation/log_snr {level}"] = [
            (int(s), float(scale * v)) for s, v in zip(steps[1::2], loss[1::2], strict=True)
        ]
    share = proportion(successes, 256)
    protocol = {"num_samples": 256, "sampler": "heun 32", "tolerance_pixels": 0.5}
    metrics = (
        record.Metric("valid clips", share.estimate, share.low, share.high, "%", True, protocol),
        record.Metric(
            "distance of directions", 0.08 + 0.02 * arm, None, None, "", False, {"num_samples": 256}, floor=0.034
        ),
    )
    levels = tuple(
        (float(level), 0.6 / (1 + np.exp(level / 2)) + 0.01 + 0.05 * (arm == 2)) for level in range(-8, 7, 2)
    )
    return dataclasses.replace(
        begun,
        curves={name: tuple(points) for name, points in curves.items()},
        status="finished",
        num_steps=config.run.num_steps,
        timings={"set-up": 3.2, "compile": 41.0, "train": 312.4, "sample": 22.0},
        level_losses={"v error": tuple((level, float(value)) for level, value in levels)},
        metrics=metrics,
    )


def _weight(arm: int) -> record.EffectiveWeight:
    log_snr = np.linspace(-10, 10, 41)
    weight = np.exp(-(((log_snr + 2) / 5) ** 2)) * (1 + 0.01 * (arm == 1))
    return record.EffectiveWeight(tuple(map(float, log_snr)), tuple(map(float, weight)))


def a_report(num_clips: int = 24) -> Report:
    """Two arms that agree and a weak one."""
    generator = np.random.default_rng(5)
    shared = generator.normal(size=256)
    flags = [shared + 0.4 * generator.normal(size=256) < limit for limit in (0.9, 0.95, -1.5)]
    samples = [clips(num_clips, 1, 0.1), clips(num_clips, 1, 0.12), clips(num_clips, 1, 2.0)]
    names = (("continuous", "Continuous VP-SDE", "times uniform in (0, 1]"),)
    names += (("discrete", "Discrete DDPM", "1,000 steps, linear betas"),)
    names += (("weak", "A tenth of the training", "the same as the first, stopped early"),)
    arms = tuple(
        Arm(name, title, text, a_record(index, int(flags[index].sum())), samples[index])
        for index, (name, title, text) in enumerate(names)
    )
    pairs = ((0, 1), (0, 2))
    return Report(
        title="DDPM and the VP-SDE are one objective",
        question="Discrete DDPM and the continuous VP-SDE differ by O(1/T). Trained on the same clips, noise and "
        "network, can their samples be told apart? They should not; the third arm shows what worse looks like.",
        command="make demo",
        arms=arms,
        real=clips(num_clips, 9),
        comparisons=tuple(
            entry
            for i, j in pairs
            for entry in (
                Comparison(
                    "valid clips", names[i][0], names[j][0], paired_proportion_difference(flags[i], flags[j]), "%"
                ),
                Comparison(
                    "validation loss",
                    names[i][0],
                    names[j][0],
                    LOSS_DIFFERENCES[j],
                    "",
                ),
            )
        ),
        correlations=tuple(
            comparison.correlate(names[i][0], names[j][0], samples[i], samples[j], seed=0) for i, j in pairs
        ),
        pass_lines=(
            PassLine("valid clips", "real clips", 1.0, ">=", 0.99, "%"),
            PassLine("valid clips", "frame-shuffled real clips", 0.02, "<=", 0.05, "%"),
            PassLine("valid clips", "Continuous VP-SDE", float(flags[0].mean()), ">=", 0.4, "%"),
            PassLine("valid clips", "A tenth of the training", float(flags[2].mean()), ">=", 0.4, "%"),
        ),
        notes=(
            "One seed per arm is a demonstration, not evidence: another seed could move any of these numbers.",
            "Intervals are over samples, not over trainings.",
        ),
        timings={"set-up": 71.0, "everything after": 1031.0},
        over_seeds=(OverSeeds("valid clips", names[0][1], names[2][1], (0.7, 0.74, 0.72), "%"),),
        healthy=Healthy(
            {"train/loss": tuple((step, *_healthy(step)) for step in range(50, 1001, 50))},
            (OverSeeds("valid clips", names[0][1], names[1][1], (0.074, 0.0, 0.027), "%"),),
        ),
    )


def a_report_of_seeds() -> Report:
    """Two arms with two seeds each, whose curves and scores are known, and clips drawn by a shared sampler too."""
    whole, arms = a_report(num_clips=10), []
    for arm, seed in itertools.product((0, 1), (0, 1)):
        one = whole.arms[arm]
        metric, value = one.record.metrics[0], 0.5 + 0.2 * arm + 0.02 * seed
        shared = [
            dataclasses.replace(
                metric,
                name=f"valid clips, common_{count}",
                value=value * count / 16,
                protocol={"sampling": f"common_{count}", "sampler": {"name": "ddim", "num_steps": count - 1}}
                | {"network_evaluations": count, "seed": seed},
            )
            for count in (8, 16)
        ]
        curve = {record.PER_LOG_SNR: ((-2.0, 1.0 + arm + 0.1 * seed), (2.0, 3.0 - arm))}
        changed = dataclasses.replace(
            one.record,
            metrics=(dataclasses.replace(metric, value=value), *shared),
            level_losses=curve,
            curves={"train/loss": ((1, 1.0 + seed), (2, 0.5 + seed + arm))},
            seeds={"config": seed},
        )
        arms.append(dataclasses.replace(one, name=f"{arm}_{seed}", group=f"arm {arm}", record=changed))
    return dataclasses.replace(
        whole, arms=tuple(arms), comparisons=(), correlations=(), over_seeds=(), healthy=Healthy(), selections=()
    )


def _healthy(step: int) -> tuple[float, float]:
    decay = float(np.exp(-step / 180))
    return 0.03 + 0.85 * decay, 0.08 + 0.95 * decay
