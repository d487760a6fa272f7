"""Kinetics-600, Ho et al. 2022 (arXiv:2204.03458), section 4.2: 16 x 64 x 64, 256 channels, v-prediction.

    python -m data.prepare --help     # writes a folder of the videos as the data set kinetics600, resized once
    python -m vdm train --config=configs/paper/kinetics600.py --workdir=DIR --config.data.tfds.data_dir=DATA \
        --config.run.mesh.fsdp=4

TFDS has no Kinetics: DATA is what `data.prepare` wrote. What stands here is the paper's unconditional model of whole
clips; the paper then predicts 11 frames from the first 5 with reconstruction guidance (Frechet video distance 16.2 +-
0.34 with Langevin steps, 220,000 steps on 256 TPU v4). Given frames are not part of `sample` yet, so that number cannot
be computed here. A run of this config has not been made. `kinetics600.py:twin` is the same at a size for tests.
"""

from ml_collections import ConfigDict

from configs.paper import ho2022


def get_config(size: str = "paper") -> ConfigDict:
    config = ho2022.get_config()
    config.name = "kinetics600"
    config.data.batch_size = 256
    config.data.tfds.update(dataset="kinetics600", train_split="train", validation_split="validation")
    config.objective.target = "v"
    config.optimizer.learning_rate = 2e-4
    config.run.num_steps = 220_000
    config.evaluation.batch_size = 256
    return ho2022.choose(config, size)
