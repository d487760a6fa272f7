"""BAIR robot pushing, Ho et al. 2022 (arXiv:2204.03458), section 4.2: 16 x 64 x 64, 128 channels, v-prediction.

    python -m vdm train --config=configs/paper/bair.py --workdir=DIR --config.data.tfds.data_dir=DATA

DATA is where TFDS has prepared `bair_robot_pushing_small` with file_format="array_record". What stands here is the
paper's unconditional model of whole clips; the paper then predicts 15 frames from the first one with reconstruction
guidance (Frechet video distance 68.19 with 512 ancestral steps, 660,000 steps on 128 TPU v4). Given frames are not
part of `sample` yet, so that number cannot be computed here. A run of this config has not been made. `bair.py:twin` is
the same experiment at a size for tests.
"""

from ml_collections import ConfigDict

from configs.paper import ho2022


def get_config(size: str = "paper") -> ConfigDict:
    config = ho2022.get_config()
    config.name = "bair"
    config.data.tfds.update(dataset="bair_robot_pushing_small", train_split="train", validation_split="test")
    config.network.unet3d.update(channels=128, multipliers=(1, 2, 3, 4))
    config.objective.target = "v"
    config.optimizer.ema_decay = 0.999
    config.sampler.num_steps = 512
    config.run.num_steps = 660_000
    return ho2022.choose(config, size)
