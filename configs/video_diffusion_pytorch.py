"""The network and the objective of the package video-diffusion-pytorch: its weights can be taken over, and ours given.

Its `Unet3D(dim=32, dim_mults=(1, 2, 4))` as one config of parts, and the objective of its `GaussianDiffusion`: a chain
of 1,000 steps of the cosine schedule, noise prediction, squared errors, at its rate, betas and average of Adam. Clips
of 16 frames of 32 x 32 pixels.
`vdm/nets/video_diffusion_pytorch.py` converts weights either way; `experiments/speed` runs both beside each other.

    python -m vdm train --config=configs/video_diffusion_pytorch.py --workdir=runs/video_diffusion_pytorch
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "video_diffusion_pytorch"
    unet = config.network.unet3d
    unet.update(channels=32, multipliers=(1, 2, 4), attention_levels=(0, 1, 2), num_blocks=2, num_heads=8, head_dim=32)
    unet.update(norm="rms", attention_norm="layer", block="conv_first", embedding="scale_shift", patch=1)
    unet.update(noise_level="cosine_step", stem="wide_temporal", attention="linear_time", position="rotary_bucket")
    unet.update(resampling="conv_4x4", skips="levels")
    config.schedule.name = "ddpm_cosine"
    config.schedule.ddpm_cosine.max_beta = 0.9999
    config.objective.update(target="noise", data_std=1.0)
    config.objective.times.name = "grid"
    config.optimizer.update(learning_rate=1e-4, beta2=0.999, ema_decay=0.995)
    config.data.update(num_frames=16, height=32, width=32, batch_size=4)
    return config
