"""The config of the peer's network: its parts are the converter's, and its parameters as many as the package counts."""

import json

import jax
import numpy as np

from configs import video_diffusion_pytorch
from experiments.speed import reference
from vdm import build
from vdm.nets import video_diffusion_pytorch as peer
from vdm.runtime import mesh as meshes


def test_the_network_of_the_config_is_the_peers():
    config = video_diffusion_pytorch.get_config()
    assert {name: config.network.unet3d[name] for name in peer.PARTS} == peer.PARTS
    model = build.model(config, meshes.make_mesh(devices=jax.devices()[:1]), num_channels=3, num_classes=None)
    found = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.network.init, jax.random.key(0))))
    with np.load(reference.FILE) as stored:
        shapes = json.loads(str(stored["main/told"]))["shapes"]
    assert found == sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.endswith("freqs"))
