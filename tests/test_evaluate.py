"""What `evaluate` makes of an oracle's reading: collapse is seen beside validity, and who was told a class shows it."""

import numpy as np
import pytest

from tests import tiny
from vdm import build, evaluate

NUM = 90
NUM_CLASSES = 4  # two shapes of two colours
IN_TURN = np.arange(NUM) % NUM_CLASSES


def metrics_of(labels, class_conditional=False):
    """Of real clips that show these classes, by name."""
    config = tiny.get_config()
    config.data.moving_shapes.num_validation = 500
    config.network.class_conditional = class_conditional
    experiment = build.experiment(config)
    source = experiment.splits.validation
    clips = [source[index] for index in range(len(source))]
    of_class = [[clip["video"] for clip in clips if clip["label"] == label] for label in range(NUM_CLASSES)]
    chosen = np.stack([of_class[label].pop() for label in labels])
    return {metric.name: metric for metric in evaluate.oracle_metrics(experiment, chosen)}


@pytest.mark.feature("M12")
def test_valid_clips_of_a_single_class_have_collapsed():
    all_there, one_class = metrics_of(IN_TURN), metrics_of(np.zeros(NUM, int))
    for metrics in (all_there, one_class):
        assert metrics[evaluate.VALID].value > 0.97
        directions = metrics[evaluate.DIRECTIONS]
        assert directions.value < 2 * directions.floor < 0.5
    floor = one_class[evaluate.CLASSES].floor
    assert one_class[evaluate.CLASSES].value == pytest.approx(3 / 4) and 0.05 < floor < 0.1
    assert all_there[evaluate.CLASSES].value < floor
    assert one_class[evaluate.CLASSES].protocol == one_class[evaluate.VALID].protocol


@pytest.mark.feature("M12")
def test_a_network_that_is_told_a_class_is_held_to_it():
    right = metrics_of(IN_TURN, class_conditional=True)
    assert right[evaluate.ASKED].value == right[evaluate.VALID].value > 0.97
    half = metrics_of(np.where(np.arange(NUM) < NUM // 2, IN_TURN, IN_TURN[::-1]), class_conditional=True)
    share = half[evaluate.ASKED]
    assert share.value == pytest.approx(1 / 2, abs=0.03) and share.low < 1 / 2 < share.high
    assert half[evaluate.VALID].value > 0.97 and half[evaluate.CLASSES].value < 0.05
    assert evaluate.ASKED not in metrics_of(IN_TURN)


@pytest.mark.parametrize("class_conditional", [False, True])
def test_what_is_expected_of_a_run_is_what_it_is_given(class_conditional):
    config = tiny.get_config()
    config.network.class_conditional = class_conditional
    experiment = build.experiment(config)
    found = evaluate.oracle_metrics(experiment, np.zeros((config.evaluation.num_samples, 4, 8, 8, 3), np.uint8))
    given = {metric.name: evaluate.of_sampling(metric, evaluate.OWN, experiment).protocol for metric in found}
    asked = evaluate.expected(experiment, ())
    assert asked.items() <= given.items()
    others = {name for name in given.keys() - asked.keys() if not name.startswith("fail: ")}
    assert others == {evaluate.CLASSES}
