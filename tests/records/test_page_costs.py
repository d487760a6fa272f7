"""What arms cost is summed from their records, and curves over FLOPs appear where steps cost unlike."""

import dataclasses

import pytest

from tests.records import examples
from vdm.records import page_costs, report_text


def report_of(*flops):
    made = examples.a_report(num_clips=4)
    arms = tuple(dataclasses.replace(arm, flops=each) for arm, each in zip(made.arms, flops, strict=True))
    return dataclasses.replace(made, arms=arms)


@pytest.mark.feature("O20")
def test_costs_are_means_over_runs_and_sums_over_devices():
    made = report_of(1e12, 3e12, 5e11)
    environment = dataclasses.replace(made.arms[1].record.starts[-1].environment, devices={"an accelerator": 8})
    start = dataclasses.replace(made.arms[1].record.starts[-1], environment=environment)
    timings = {"set-up": 999.0, "compile": 40.0, "train": 320.0, "evaluate": 90.0}
    second = dataclasses.replace(made.arms[1].record, starts=(start,), timings=timings)
    arms = [
        dataclasses.replace(made.arms[0], group="both"),
        dataclasses.replace(made.arms[1], group="both", record=second),
        dataclasses.replace(made.arms[2], flops=None),
    ]
    (both,) = page_costs.costs(arms)
    assert (both.title, both.num_steps, both.flops) == ("both", 1000, 2e12)
    devices = sum(arms[0].record.starts[-1].environment.devices.values())
    first = devices * (41.0 + 312.4 + 22.0)
    assert both.training == pytest.approx((first + 8 * 360.0) / 2 / 3600)
    assert both.evaluation == pytest.approx(8 * 90.0 / 2 / 3600)


def test_losses_are_drawn_over_flops_where_steps_cost_unlike():
    """The second arm takes thrice the FLOPs a step: at the same loss its curve is thrice as far to the right."""
    alike, unlike = (page_costs.render(report_of(1e12, each, 1e11)) for each in (1e12, 3e12))
    assert "by FLOPs" not in alike and unlike.count("by FLOPs</figcaption>") == 3
    points = page_costs._by_flops(report_of(1e12, 3e12, 1e11).arms[1], "validation/log_snr 0")
    assert points[0][0] == pytest.approx(100 * 3e9) and points[-1][0] == pytest.approx(3e12)
    assert page_costs.render(report_of(None, None, None)) == ""


def test_the_text_tells_the_costs():
    lines = report_text.markdown(report_of(1e12, 3e12, 1e11)).splitlines()
    (row,) = (line for line in lines if line.startswith("| Discrete DDPM | 1000 |"))
    assert "3.00e+12" in row
