"""`make demo`: discrete DDPM against the continuous VP-SDE on moving shapes, the same network, data and noise.

    python -m vdm compare --config=configs/demo.py --workdir=runs/demo

Two cores are slow, so the world is small (8 frames of 16 x 16, two shapes, three colours, eight directions) and the
network sees patches of 4 x 4 pixels: 16 positions a frame, where convolutions reach everywhere and attention across
frames is what learns motion.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "demo"
    config.data.batch_size = 32
    # a black ground would cost hundreds of steps, in which its mean is learned; large shapes are seen at high noise
    config.data.moving_shapes.update(background=0.0, radius=3.0)
    config.network.unet3d.update(channels=64, multipliers=(1,), attention_levels=(0,), attention="temporal", head_dim=8)
    config.network.unet3d.update(patch=4, position="lag", embedding="scale_shift", skips="blocks")
    config.objective.update(target="x0", data_std=0.2)
    config.optimizer.update(learning_rate=3e-3, warmup_steps=100, decay_steps=4400, ema_decay=0.995)
    config.sampler.update(num_steps=24, t_min=0.02)  # Heun in t is inaccurate where the log-SNR rises fastest
    config.run.update(num_steps=4500, log_every_steps=50, validate_every_steps=500, sample_every_steps=1000)
    config.run.checkpoint_every_steps = 250

    config.compare.question = (
        "Are the discrete DDPM objective and the continuous VP-SDE objective separated by their samples? They are one "
        "objective up to O(1/T), so they should not be, and samples from the same noise should look alike."
    )
    lines = {"at_least": {"valid clips": 0.4}, "at_most": {"direction total variation": 0.25}}
    discrete = {"schedule": {"name": "ddpm_linear"}, "objective": {"times": {"name": "grid"}}}
    with config.unlocked():
        config.compare.arm.ddpm = base.arm("Discrete DDPM", "t in {1..1000}/1000 on DDPM's betas", discrete, **lines)
        config.compare.arm.vp_sde = base.arm("Continuous VP-SDE", "t uniform in (0.001, 1]", {}, **lines)
        config.compare.arm.untrained = base.arm(
            "Untrained network",
            "the same network before its first step: what worse looks like",
            {"run": {"num_steps": 0}},
            at_most={"valid clips": 0.01},
        )
    config.compare.parallel = 2  # an arm a core
    config.compare.arms = ("ddpm", "vp_sde", "untrained")
    return config
