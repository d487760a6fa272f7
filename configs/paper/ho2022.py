"""What the experiments of Ho et al. 2022, "Video Diffusion Models" (arXiv:2204.03458) have in common.

Clips of 16 x 64 x 64, the factorised UNet with attention at 32 x 32, 16 x 16 and 8 x 8, heads of 64 channels, the
continuous cosine schedule over log-SNRs of -20 to 20, Adam with beta2 0.99. Of numbers that the paper gives as a range
over its experiments (batch 128 to 256, rate 2e-4 to 3e-4, average 0.999 to 0.9999) each config names its choice.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.data.update(name="tfds", num_frames=16, height=64, width=64, batch_size=128)
    config.network.unet3d.update(channels=256, multipliers=(1, 2, 4, 8), num_blocks=2, attention_levels=(1, 2, 3))
    config.network.unet3d.update(head_dim=64, groups=32, patch=1, dropout=0.1)
    config.network.unet3d.update(compute_dtype="bfloat16")
    config.schedule.name = "cosine"
    config.objective.data_std = 0.5  # of ordinary videos; the error that the data differ names the number to set
    config.objective.times.uniform.min = 0.0
    config.optimizer.update(learning_rate=3e-4, warmup_steps=5000, beta2=0.99, ema_decay=0.9999)
    config.sampler.update(name="ancestral", num_steps=256)
    config.sampler.threshold.name = "static"
    config.evaluation.update(batch_size=128)
    config.run.remat = "blocks"
    config.run.update(log_every_steps=100, validate_every_steps=5000, sample_every_steps=5000)
    config.run.update(checkpoint_every_steps=1000, keep_every_steps=20_000)
    return config


def twin(config: ConfigDict) -> ConfigDict:
    """The same experiment for tests on a CPU: every part and level, few channels and blocks, moving shapes as data."""
    config.name += "_twin"
    config.data.update(name="moving_shapes", num_frames=4, height=16, width=16, batch_size=4)
    config.data.moving_shapes.update(num_train=64, num_validation=16, background=0.0)
    config.objective.data_std = 0.22
    config.network.unet3d.update(channels=8, num_blocks=1, head_dim=8, groups=4)
    config.sampler.num_steps = 2
    config.evaluation.update(num_samples=4, num_validation=4, batch_size=4)
    config.run.update(num_steps=2, log_every_steps=1, validate_every_steps=0, sample_every_steps=0)
    config.run.update(checkpoint_every_steps=2, keep_every_steps=0, num_grid_samples=2)
    return config


def choose(config: ConfigDict, size: str) -> ConfigDict:
    """The config itself for size "paper", its twin for "twin". Raises ValueError for another name."""
    sizes = {"paper": lambda made: made, "twin": twin}
    if size not in sizes:
        raise ValueError(f"there is no size {size!r}; there are: {', '.join(sizes)}")
    return sizes[size](config)
