"""Unconditional generation from a folder of your own videos (mp4, webm, gif).

    python -m vdm train --config=configs/folder.py --workdir=runs/mine --config.data.folder.path=/path/to/videos

16 frames of 32 x 32 pixels, a two-level network. On a GPU, raise `network.unet3d.channels` to 128 and `data.height` and
`data.width` to 64. A first check that your data can be learned at all: add `--overfit=8 --config.run.num_steps=2000`
and look at `samples/`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "folder"
    config.data.name = "folder"
    config.data.num_frames = 16
    config.data.height = config.data.width = 32
    config.data.batch_size = 16
    config.data.folder.flip = True
    config.schedule.name = "cosine"
    config.objective.data_std = 0.5  # of ordinary videos; the error that yours differ names the number to set
    config.evaluation.num_validation = 0  # all the clips that the folder holds out
    config.run.num_steps = 20_000
    return config
