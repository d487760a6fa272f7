"""Eight forced CPU devices: what is drawn, made, trained and saved does not depend on the mesh."""

import pytest

from tests import eight_devices


@pytest.fixture(scope="module")
def outcomes():
    return eight_devices.outcomes("tests.runtime.on_eight_devices")


@pytest.mark.parametrize(
    "check",
    [
        "noise_is_the_same_on_every_mesh",
        "dropout_masks_do_not_depend_on_the_mesh",
        pytest.param("state_is_born_split_and_the_same_on_every_mesh", marks=pytest.mark.feature("R5")),
        pytest.param("training_is_the_same_on_every_mesh", marks=pytest.mark.feature("R5")),
        pytest.param("a_checkpoint_moves_to_any_mesh", marks=pytest.mark.feature("R7")),
        "rows_of_the_batch_lie_where_the_mesh_says",
        "what_the_mesh_cannot_split_is_refused",
    ],
)
def test_on_eight_devices(outcomes, check):
    assert outcomes[check] is None, outcomes[check]
