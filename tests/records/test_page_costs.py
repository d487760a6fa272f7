"""What arms cost is summed from their records, and curves over FLOPs appear where steps cost unlike."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.records import examples
from vdm import build, traces
from vdm.costs import jaxpr
from vdm.records import page_costs, page_links, report_text
from vdm.records.comparison import OverSeeds
from vdm.types import Condition


def report_of(*flops):
    made = examples.a_report(num_clips=4)
    arms = tuple(dataclasses.replace(arm, flops=each) for arm, each in zip(made.arms, flops, strict=True))
    return dataclasses.replace(made, arms=arms)


def shown(made):
    return page_costs.render(made, page_links.of(made.arms))


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
    made = dataclasses.replace(made, arms=tuple(arms), comparisons=made.comparisons[:1])
    (both,) = page_costs.costs(made)
    assert (both.title, both.num_steps, both.flops) == ("both", 1000, 2e12)
    values = [arm.record.metrics[0].value for arm in arms[:2]]
    assert both.outcomes == {"valid clips": pytest.approx(sum(values) / 2)} and values[0] != values[1]
    devices = sum(arms[0].record.starts[-1].environment.devices.values())
    first = devices * (41.0 + 312.4 + 22.0)
    assert both.training == pytest.approx((first + 8 * 360.0) / 2 / 3600)
    assert both.evaluation == pytest.approx(8 * 90.0 / 2 / 3600)


def test_losses_are_drawn_over_flops_where_steps_cost_unlike():
    """The second arm takes thrice the FLOPs a step: at the same loss its curve is thrice as far to the right."""
    alike, unlike = (shown(report_of(1e12, each, 1e11)) for each in (1e12, 3e12))
    assert "by FLOPs" not in alike and unlike.count("by FLOPs</figcaption>") == 3
    points = page_costs._by_flops(report_of(1e12, 3e12, 1e11).arms[1], "validation/log_snr 0")
    assert points[0][0] == pytest.approx(100 * 3e9) and points[-1][0] == pytest.approx(3e12)
    assert shown(report_of(None, None, None)) == ""


@pytest.mark.feature("O20")
def test_scores_stand_beside_what_they_cost():
    """By what a sample takes, as curves, and by training as a column of the means; both where steps cost alike, too."""
    made = examples.a_report_of_seeds()
    arms = tuple(dataclasses.replace(arm, flops=1e12 * (1 + int(arm.name[0]))) for arm in made.arms)
    entry = OverSeeds("valid clips", "arm 0", "arm 1", (0.1, 0.2), "%", 0.04)
    page = shown(dataclasses.replace(made, arms=arms, over_seeds=(entry,)))
    head, *rows = page.split("</table>")[0].split("<tr>")[1:]
    assert "valid clips ↑" in head and "protocol-1" in head
    last = [float(re.findall(r'data-value="([^"]+)"', row)[-1]) for row in rows]
    assert last == pytest.approx([0.51, 0.71])
    chart = page.split("<figcaption>valid clips, by FLOPs of ddim</figcaption>")[1].split("</figure>")[0]
    drawn = [
        np.array([pair.split(",") for pair in points.split()], float)
        for points in re.findall(r'<polyline class="line slot\d" points="([^"]+)"', chart)
    ]
    # twice the FLOPs a step: the second arm's 8 evaluations lie where the first one's 16 do
    assert drawn[0][1][0] == pytest.approx(drawn[1][0][0], abs=0.1) and drawn[0][0][0] < drawn[0][1][0]


def test_a_sample_takes_its_evaluations_of_the_network():
    """A third of a step of training is, to a few per cent, what the jaxpr of the network alone counts."""
    config, data = tiny.get_config(), traces.Data(3, None)
    model = build.model(config, traces.here(), num_channels=3, num_classes=None)
    clips, frames = 4, config.data.num_frames
    xt = jax.ShapeDtypeStruct((clips, frames, *model.frame_shape), jnp.float32)
    log_snr = jax.ShapeDtypeStruct((clips, frames), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0))
    with jax.set_mesh(traces.here()):
        traced = jax.make_jaxpr(lambda *given: model.predict(given[0], Condition())(*given[1:]).value)(
            params, xt, log_snr
        )
    counted = jaxpr.work_of(traced).flops / clips
    arm = examples.a_report(num_clips=4).arms[0]
    of_training = traces.flops_a_clip(config, data) * arm.record.config["data"]["batch_size"] * arm.record.num_steps
    assert page_costs.sample_flops(dataclasses.replace(arm, flops=of_training), 5) == pytest.approx(
        5 * counted, rel=0.05
    )
    assert page_costs.sample_flops(dataclasses.replace(arm, flops=None), 5) is None


def test_the_text_tells_the_costs():
    lines = report_text.markdown(report_of(1e12, 3e12, 1e11)).splitlines()
    (row,) = (line for line in lines if line.startswith("| Discrete DDPM | 1,000 |"))
    share = report_of(1e12, 3e12, 1e11).arms[1].record.metrics[0].value
    assert "3.00e+12" in row and row.endswith(f" {100 * share:.1f} % |")
