"""Eight forced CPU devices: what is drawn, made, trained and saved does not depend on the mesh."""

import pytest

from tests import eight_devices

CHECKS = {  # and the feature that each proves
    "noise_is_the_same_on_every_mesh": None,
    "dropout_masks_do_not_depend_on_the_mesh": None,
    "state_is_born_split_and_the_same_on_every_mesh": "R5",
    "training_is_the_same_on_every_mesh": "R5",
    "a_checkpoint_moves_to_any_mesh": "R7",
    "rows_of_the_batch_lie_where_the_mesh_says": None,
    "what_the_mesh_cannot_split_is_refused": None,
}


@pytest.fixture(scope="module")
def outcomes():
    return eight_devices.outcomes("tests.runtime.on_eight_devices", list(CHECKS))


@pytest.mark.parametrize(
    "check",
    [pytest.param(name, marks=[pytest.mark.feature(proves)] if proves else []) for name, proves in CHECKS.items()],
)
def test_on_eight_devices(outcomes, check):
    assert outcomes[check] is None, outcomes[check]
