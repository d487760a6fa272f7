from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "paper_ucf101"
    config.data.update(name="tfds", num_frames=16, height=64, width=64, batch_size=128)
    config.data.tfds.update(name="ucf101")
    config.network.unet3d.update(channels=256, multipliers=(1, 2, 4, 8), num_blocks=2, attention_levels=(1, 2, 3))
    config.network.unet3d.update(head_dim=64, groups=32, patch=1, dropout=0.1)
    config.network.unet3d.compute_dtype = "bfloat16"
    config.schedule.name = "cosine"
    config.objective.update(target="noise", data_std=0.5)
    config.objective.weighting.name = "simple"
    config.objective.times.uniform.min = 0.0
    config.optimizer.update(learning_rate=3e-4, ema_decay=0.9999)
    config.evaluation.update(batch_size=128)
    return config
