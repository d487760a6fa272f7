"""The compiled step of training."""

import jax
import pytest

from tests import tiny
from vdm import build, traces


def scratch_bytes(remat):
    """What the compiled step needs besides its arguments, of a network whose blocks are many and alike."""
    config = tiny.get_config()
    config.data.update(height=32, width=32)
    config.network.unet3d.update(num_blocks=3, patch=1, attention="temporal")
    config.run.remat = remat
    experiment = build.experiment(config)
    step, arguments = traces.step_of(experiment)
    with jax.set_mesh(experiment.mesh):
        return step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.feature("R8")
def test_what_is_computed_again_is_not_held_on_a_cpu_either():
    """Of all blocks the inputs, of one what its gradient needs."""
    assert scratch_bytes("blocks") < 0.3 * scratch_bytes("none")
