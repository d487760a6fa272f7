"""Unconditional generation of UCF-101, Ho et al. 2022 (arXiv:2204.03458), section 4.1: 16 x 64 x 64, 256 channels.

    python -m vdm plan  --config=configs/paper/ucf101.py --topology=v5p:4x4x4 --mesh=data=16,fsdp=4
    python -m vdm train --config=configs/paper/ucf101.py --workdir=DIR --config.data.tfds.data_dir=DATA \
        --config.run.mesh.fsdp=4

DATA is where TFDS has prepared `ucf101/ucf101_1_256` with file_format="array_record". The paper trained 60,000 steps on
128 TPU v4 and reports an inception score of 57.00 +- 0.62 and a C3D Frechet distance of 295 +- 3 over 10,000 samples;
it gives no number of parameters (here 1.14 billion). A run of this config has not been made. `ucf101.py:twin` is the
same experiment at a size for tests.
"""

from ml_collections import ConfigDict

from configs.paper import ho2022


def get_config(size: str = "paper") -> ConfigDict:
    config = ho2022.get_config()
    config.name = "ucf101"
    config.data.tfds.update(dataset="ucf101", train_split="train", validation_split="test")
    config.objective.target = "noise"
    config.objective.weighting.name = "simple"
    config.run.num_steps = 60_000
    return ho2022.choose(config, size)
