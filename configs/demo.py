"""`make demo`: discrete DDPM against the continuous VP-SDE on moving shapes, the same network, data and noise.

    python -m vdm compare --config=configs/demo.py --workdir=runs/demo

A quarter of an hour on two cores; each trained arm should reach 40 % valid clips or more (the last record is in the
README). Two cores are slow, so the world is small (8 frames of 12 x 12, two shapes, three colours, eight directions)
and the network sees patches of 4 x 4 pixels: 9 positions a frame, where convolutions reach everywhere and attention
across frames is what learns motion.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import base, entries

HEALTHY = Path(__file__).parents[1] / "experiments" / "demo" / "records" / "seeds.json"


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "demo"
    config.data.update(height=12, width=12, batch_size=16)
    # a black ground would cost hundreds of steps, in which its mean is learned
    config.data.moving_shapes.background = 0.0
    config.network.unet3d.update(channels=64, multipliers=(1,), attention_levels=(0,), attention="temporal", head_dim=8)
    config.network.unet3d.update(patch=4, position="lag", embedding="scale_shift", skips="blocks")
    config.objective.update(target="x0", data_std=0.22)
    config.objective.weighting.name = "min_snr"  # half-way, or the noisy levels that decide colour and path come short
    config.objective.weighting.min_snr.update(gamma=20.0, power=0.5)
    config.optimizer.update(learning_rate=3e-3, warmup_steps=100, decay_steps=10900, ema_decay=0.998)
    config.sampler.num_steps = 24
    config.sampler.spacing.uniform.t_min = 0.02  # Heun in t is inaccurate where the log-SNR rises fastest
    config.run.update(num_steps=11000, log_every_steps=100, validate_every_steps=1000, sample_every_steps=2000)
    config.run.checkpoint_every_steps = 500

    config.compare.question = (
        "Are the discrete DDPM objective and the continuous VP-SDE objective separated by their samples? They are one "
        "objective up to O(1/T), so they should not be, and samples from the same noise should look alike."
    )
    lines = {"at_least": {"valid clips": 0.4}, "at_most": {"direction total variation": 0.25}}
    discrete = {"schedule": {"name": "ddpm_linear"}, "objective": {"times": {"name": "grid"}}}
    with config.unlocked():
        config.compare.arm.ddpm = entries.arm("Discrete DDPM", "t in {1..1000}/1000 on DDPM's betas", discrete, **lines)
        config.compare.arm.vp_sde = entries.arm("Continuous VP-SDE", "t uniform in (0.001, 1]", {}, **lines)
        config.compare.arm.untrained = entries.arm(
            "Untrained network",
            "the same network before its first step: what worse looks like",
            {"run": {"num_steps": 0}},
            at_most={"valid clips": 0.01},
        )
    config.compare.parallel = 2  # an arm a core
    config.compare.arms = ("ddpm", "vp_sde", "untrained")
    config.compare.healthy = str(HEALTHY)
    return config
