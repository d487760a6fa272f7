"""The smallest experiment that is whole: moving shapes of 4 x 8 x 8 and a network of a few thousand parameters."""

from __future__ import annotations

from configs import base
from vdm.types import Config


def get_config() -> Config:
    """A fresh config; tests change its keys."""
    tiny = base.get_config()
    tiny.name = "tiny"
    tiny.data.num_frames, tiny.data.height, tiny.data.width, tiny.data.batch_size = 4, 8, 8, 8
    tiny.data.moving_shapes.update(num_train=64, num_validation=16, radius=1.5, colours=("red", "blue"))
    tiny.network.unet3d.update(channels=8, multipliers=(1,), attention_levels=(), head_dim=8, patch=2, groups=4)
    tiny.optimizer.update(warmup_steps=2, ema_decay=0.9)
    tiny.sampler.update(num_steps=2)
    tiny.evaluation.update(num_samples=8, num_validation=8, batch_size=8, log_snrs=(-2.0, 2.0))
    tiny.run.update(num_steps=6, log_every_steps=2, validate_every_steps=0, sample_every_steps=0)
    tiny.run.update(checkpoint_every_steps=2, num_grid_samples=2)
    return tiny
