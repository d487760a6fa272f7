"""The network and the training of the package video-diffusion-pytorch: its weights can be taken over, and ours given.

Its `Unet3D(dim=32, dim_mults=(1, 2, 4))` as one config of parts, and the objective of its `GaussianDiffusion`: a chain
of 1,000 steps of the cosine schedule, noise prediction, squared errors. Clips of 16 frames of 32 x 32 pixels.
`vdm/nets/video_diffusion_pytorch.py` converts weights either way; `experiments/speed` runs both beside each other.

    python -m vdm train --config=configs/video_diffusion_pytorch.py --workdir=runs/video_diffusion_pytorch
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from vdm.nets.video_diffusion_pytorch import PARTS


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "video_diffusion_pytorch"
    config.network.unet3d.update(PARTS | {"channels": 32, "multipliers": (1, 2, 4), "attention_levels": (0, 1, 2)})
    config.schedule.name = "ddpm_cosine"
    config.schedule.ddpm_cosine.max_beta = 0.9999
    config.objective.update(target="noise", data_std=1.0)
    config.data.update(num_frames=16, height=32, width=32, batch_size=4)
    return config
