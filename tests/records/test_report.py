import base64
import csv
import dataclasses
import html.parser
import io
import itertools
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.records import examples
from vdm.records import comparison, identity, plot, record, report, report_text
from vdm.records.comparison import Comparison, Healthy, OverSeeds, PassLine, Selection, Spread, Tried
from vdm.records.statistics import Interval


@pytest.fixture(scope="module")
def the_report():
    return examples.a_report(num_clips=10)


@pytest.fixture(scope="module")
def page(the_report, tmp_path_factory):
    return report.write(tmp_path_factory.mktemp("report"), the_report).read_text()


@pytest.fixture(scope="module")
def numbers(the_report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report.write(folder, the_report)
    return json.loads((folder / report.JSON_NAME).read_text(), parse_constant=pytest.fail)


class _Page(html.parser.HTMLParser):
    """Collects tags and text, and checks that every tag that opens is closed in order."""

    VOID = ("meta", "img", "input", "br", "hr", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.feature("O20")
def test_the_sheets_hold_every_clip_pixel_for_pixel(page, the_report):
    sources = [attributes["src"] for tag, attributes in _Page(page).tags if tag == "img"]
    videos = [the_report.real, *(arm.videos for arm in the_report.arms)]
    assert len(sources) == len(videos)
    for source, clips in zip(sources, videos, strict=True):
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for clip in range(10):
            for frame in range(8):
                shown = sheet[frame * 16 : (frame + 1) * 16, clip * 16 : (clip + 1) * 16]
                np.testing.assert_array_equal(shown, clips[clip, frame])


def test_the_page_is_whole_and_asks_for_nothing(page):
    parsed = _Page(page)
    assert parsed.open == []
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object")
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
    assert "http://" not in page and "https://" not in page and "$" not in re.sub(r"<style>.*</style>", "", page)
    (policy,) = [
        attributes for _, attributes in parsed.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy["content"].startswith("default-src 'none'")


def test_what_a_person_wrote_is_shown_as_text(the_report):
    evil = "<script>alert('&')</script>"
    arm = dataclasses.replace(the_report.arms[0], title=evil, description=evil)
    entry = dataclasses.replace(the_report.comparisons[0], metric=evil)
    changed = dataclasses.replace(
        the_report, title=evil, question=evil, notes=(evil,), arms=(arm, *the_report.arms[1:]), comparisons=(entry,)
    )
    parsed = _Page(report.page.render(changed))
    assert sum(tag == "script" for tag, _ in parsed.tags) == 1
    assert "".join(parsed.text).count(evil) >= 10


@pytest.mark.feature("O20")
def test_verdicts_and_pass_marks_follow_the_numbers(page, numbers):
    (over_seeds,) = numbers["over_seeds"]
    assert over_seeds["verdict"] == "separated"
    assert [line["passed"] for line in numbers["pass_lines"]] == [True, True, True, False]
    text = " ".join(_Page(page).text)
    assert "3 of 4 pass lines hold" in text
    # the healthy run's three differences straddle zero; those of this one do not
    assert text.index("over these 3 seeds Separated") < text.index("over the healthy run's 3 seeds Not separated")
    assert text.lower().count("separated") == 2 + 2  # the verdicts and their explanation: none for a single training
    assert (text.count("✓ pass"), text.count("✗ fail")) == (3, 1)


def with_a_bias(arms):
    """The arms with a distance that falls with the number of clips along a straight line, to 0.2 or so."""
    made = []
    for index, arm in enumerate(arms):
        at_infinity = 0.2 + 0.1 * index
        curve = tuple((number, at_infinity + 10.0 / number) for number in (100, 75, 50))
        metric = record.Metric("FVD", curve[0][1], None, None, "", False, {}, 0.05 + 0.01 * index, at_infinity, curve)
        changed = dataclasses.replace(arm.record, metrics=(*arm.record.metrics, metric))
        made.append(dataclasses.replace(arm, record=changed))
    return tuple(made)


@pytest.mark.feature("O20")
def test_a_score_stands_beside_that_of_the_data_and_of_infinitely_many_clips(page, the_report):
    text = " ".join(_Page(page).text)
    assert text.count("the data: 0.034") == len(the_report.arms) and "of infinitely many" not in text
    changed = dataclasses.replace(the_report, arms=with_a_bias(the_report.arms))
    told = " ".join(_Page(report.page.render(changed)).text)
    for index in range(3):
        assert f"the data: {0.05 + 0.01 * index:.2f} of infinitely many: {0.2 + 0.1 * index:.1f}" in told
    (row,) = (line for line in report_text.markdown(changed).splitlines() if "; of infinitely many 0.3" in line)
    assert row.startswith("| Discrete DDPM |") and "0.4; the data 0.06;" in row


@pytest.mark.feature("O20")
def test_a_mean_over_seeds_stands_beside_those_of_floor_and_of_infinitely_many_clips(of_seeds):
    changed = dataclasses.replace(of_seeds, arms=with_a_bias(of_seeds.arms))
    means = report.page.render(changed).split("mean over seeds</th>")[1].split("</tbody>")[0]
    assert re.findall(r"the data: ([\d.]+)</small><small>of infinitely many: ([\d.]+)", means) == [
        ("0.055", "0.25"),
        ("0.075", "0.45"),
    ]
    first, *others = changed.arms
    bare = dataclasses.replace(first.record.metrics[-1], floor=None)
    lacking = dataclasses.replace(first.record, metrics=(*first.record.metrics[:-1], bare))
    arms = (dataclasses.replace(first, record=lacking), *others)
    means = report.page.render(dataclasses.replace(changed, arms=arms)).split("mean over seeds</th>")[1]
    assert re.findall(r"the data: ([\d.]+)", means.split("</tbody>")[0]) == ["0.075"], "a mean of one of two runs"


@pytest.mark.feature("O20")
def test_the_fall_with_the_number_of_clips_is_drawn_to_where_it_leads(the_report, page):
    """Over 1 / clips the line is straight, and its end at zero is the value at infinity."""
    changed = dataclasses.replace(the_report, arms=with_a_bias(the_report.arms))
    lines = _points(_chart(report.page.render(changed), "FVD, by the number of clips"), "polyline")
    assert len(lines) == 3
    for line in lines.values():
        slopes = np.diff(line[:, 1]) / np.diff(line[:, 0])
        assert len(line) == 4 and line[0][0] == pytest.approx(plot.LEFT, abs=0.1)
        np.testing.assert_allclose(slopes, slopes[0], rtol=0.05)
    assert "by the number of clips" not in page.lower(), "nothing depends on it"


@pytest.mark.parametrize(("relation", "passed"), [(">=", [False, True, True]), ("<=", [True, True, False])])
def test_a_pass_line_includes_its_limit(relation, passed):
    assert [PassLine("x", "y", value, relation, 0.4, "").passed for value in (0.39, 0.4, 0.41)] == passed


@pytest.mark.feature("O20")
def test_the_json_holds_the_whole_records_and_what_differs(numbers, the_report):
    assert numbers["version"] == report.VERSION
    for shown, arm in zip(numbers["arms"], the_report.arms, strict=True):
        assert identity.identity_hash(shown["record"]["config"]) == arm.record.identity_hash
        assert shown["record"]["curves"]["train/loss"] == [list(point) for point in arm.record.curves["train/loss"]]
    assert numbers["arms"][0]["differences"] == []
    assert 'schedule.name: "vp_linear" -> "ddpm_linear"' in numbers["arms"][1]["differences"]
    hashes = {arm["clips_sha256"] for arm in numbers["arms"]}
    assert len(hashes) == 3


def test_the_page_names_the_config_keys_that_differ_and_no_others(page):
    keys = re.findall(r"<td><code>((?:\w+\.)+\w+)</code></td>", page)
    assert "schedule.name" in keys and "run.num_steps" in keys
    assert not {"data.batch_size", "optimizer.learning_rate", "seed"} & set(keys)


def test_a_report_needs_arms_that_can_stand_side_by_side(the_report):
    first, second = the_report.arms[:2]
    with pytest.raises(ValueError, match="name of its own"):
        dataclasses.replace(the_report, arms=(first, first))
    with pytest.raises(ValueError, match="'discrete' with 'absent'"):
        entry = Comparison("x", "discrete", "absent", Interval(0.0, -1.0, 1.0), "")
        dataclasses.replace(the_report, comparisons=(entry,))
    with pytest.raises(ValueError, match="play in step"):
        dataclasses.replace(the_report, real=the_report.real[:, :7])
    other = dataclasses.replace(second.record.metrics[0], protocol={"num_samples": 64})
    unlike = dataclasses.replace(second, record=dataclasses.replace(second.record, metrics=(other,)))
    with pytest.raises(ValueError, match=r"unlike protocols .*protocol\.num_samples: 256 -> 64"):
        dataclasses.replace(the_report, arms=(first, unlike), comparisons=(), correlations=())


@pytest.mark.feature("O20")
def test_a_run_of_another_seed_is_compared_where_each_was_measured_with_its_own(the_report):
    def arm(number, own, measured):
        one = the_report.arms[number]
        metric = one.record.metrics[0]
        metric = dataclasses.replace(metric, protocol=metric.protocol | {"seed": measured})
        changed = dataclasses.replace(one.record, seeds={"config": own}, metrics=(metric,))
        return dataclasses.replace(one, record=changed)

    def compare(*arms):
        return dataclasses.replace(the_report, arms=arms, comparisons=(), correlations=())

    assert len(compare(arm(0, own=0, measured=0), arm(1, own=1, measured=1)).arms) == 2
    with pytest.raises(ValueError, match=r"unlike protocols .*protocol\.seed"):
        compare(arm(0, own=0, measured=0), arm(1, own=0, measured=1))


@pytest.mark.feature("O20")
def test_a_report_of_several_seeds_is_read_as_a_healthy_run(the_report, tmp_path):
    report.write(tmp_path, the_report)
    healthy = report.read_healthy(tmp_path / report.JSON_NAME)
    assert healthy.over_seeds == the_report.over_seeds
    # the third arm was trained for 100 steps: only there do all three have a loss
    losses = [dict(arm.record.curves["train/loss"]) for arm in the_report.arms]
    expected = [(step, min(loss[step] for loss in losses), max(loss[step] for loss in losses)) for step in (50, 100)]
    assert list(healthy.bands["train/loss"]) == expected


@pytest.mark.parametrize(
    ("content", "answer"),
    [(None, "cannot be read"), ("{", "not strict JSON"), ('{"version": 1}', "schema version 1; this code reads 2")],
)
def test_what_is_no_report_is_no_healthy_run(content, answer, tmp_path):
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=rf"some\.json.*{answer}"):
        report.read_healthy(path)


def test_a_number_that_is_not_one_writes_no_report(the_report, tmp_path):
    with pytest.raises(ValueError, match=r"report\.json\.timings\.total is nan"):
        report.write(tmp_path, dataclasses.replace(the_report, timings={"total": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def test_correlation_tells_the_same_noise_from_other_noise():
    videos = examples.clips(40, 3)
    videos[5] = 0
    found = comparison.correlate("a", "b", videos, videos, seed=0)
    assert found.same_noise.estimate == pytest.approx(1.0)
    assert found.other_noise.high < 0.5
    # clip 5 takes itself out, and clip 6 its partner from different noise
    assert (found.num_clips, found.num_constant) == (38, 2)


def test_an_arm_without_training_has_no_curve_and_breaks_nothing(the_report):
    untrained = dataclasses.replace(the_report.arms[2].record, curves={}, level_losses={}, metrics=(), timings={})
    arms = (*the_report.arms[:2], dataclasses.replace(the_report.arms[2], record=untrained))
    parsed = _Page(report.page.render(dataclasses.replace(the_report, arms=arms, healthy=Healthy(), pass_lines=())))
    assert parsed.open == []


def test_grey_clips_are_shown_as_grey(the_report):
    grey = the_report.real[..., :1]
    arms = tuple(dataclasses.replace(arm, videos=arm.videos[..., :1]) for arm in the_report.arms)
    shown = _Page(report.page.render(dataclasses.replace(the_report, arms=arms, real=grey)))
    source = next(attributes["src"] for tag, attributes in shown.tags if tag == "img")
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    np.testing.assert_array_equal(sheet[:16, :16], np.repeat(grey[0, 0], 3, axis=-1))


@pytest.mark.parametrize("log", [False, True])
def test_ticks_and_points_lie_where_the_axis_says(log):
    axis = plot.Axis(0.01, 100.0, 200.0, 0.0, log)
    assert [axis(0.01), axis(100.0)] == pytest.approx([200.0, 0.0])
    assert axis(1.0) == pytest.approx(100.0 if log else 200 * (1 - 0.99 / 99.99))
    assert axis.ticks() == pytest.approx([0.01, 0.1, 1.0, 10.0, 100.0] if log else [25.0, 50.0, 75.0, 100.0])


def test_a_chart_draws_every_line_inside_its_frame():
    lines = [plot.Line(0, [(x, 2.0**-x) for x in range(2000)][:900]), plot.Line(1, [(0.0, 1.0), (899.0, 1e-3)])]
    drawn = re.findall(r'<polyline class="line slot(\d)" points="([^"]+)"', plot.chart("loss", "step", lines))
    assert [slot for slot, _ in drawn] == ["0", "1"]
    for _, text in drawn:
        points = np.array([pair.split(",") for pair in text.split()], float)
        assert len(points) <= plot.MAX_POINTS + 1
        assert (np.diff(points[:, 0]) > 0).all() and (np.diff(points[:, 1]) >= 0).all()
        assert points.min() >= 0 and (points.max(axis=0) <= [plot.WIDTH, plot.HEIGHT]).all()


@pytest.mark.parametrize("points", [[(0.0, 0.0)], [(5.0, 2.0), (6.0, 2.0)], [(1.0, -1.0), (2.0, 3.0)]])
def test_a_chart_of_one_value_or_of_signs_has_finite_places(points):
    assert "nan" not in plot.chart("x", "step", [plot.Line(0, points)])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.6931, "0.693"),
        (-12.34, "-12.3"),
        (1234.5, "1,234"),
        (0.5, "0.5"),
        (2e-7, "2.00e-07"),
        (100.0, "100"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert plot.number(value) == text


@pytest.fixture(scope="module")
def of_seeds():
    return examples.a_report_of_seeds()


def _chart(page, title):
    return page.split(f"<figcaption>{title}</figcaption>")[1].split("</figure>")[0]


def _points(chart, kind):
    drawn = re.findall(rf'<{kind} class="(?:line|spread) slot(\d)" points="([^"]+)"', chart)
    return {slot: np.array([pair.split(",") for pair in text.split()], float) for slot, text in drawn}


@pytest.mark.feature("O20")
def test_an_arm_is_one_line_over_its_seeds_with_a_band_around_it(of_seeds):
    page = report.page.render(of_seeds)
    chart = _chart(page, "train/loss")
    lines, bands = _points(chart, "polyline"), _points(chart, "polygon")
    assert lines.keys() == bands.keys() == {"0", "1"}
    # arm 0 has the losses 1 and 2 in step 1: its mean lies half-way between the band's edges, and arm 1 has the same
    high, low = bands["0"][0], bands["0"][-1]
    np.testing.assert_allclose(lines["0"][0], (high + low) / 2, atol=0.1)
    np.testing.assert_allclose(lines["0"][0], lines["1"][0], atol=0.1)
    assert lines["1"][1][1] < lines["0"][1][1], "a higher loss stands higher, and pixels count downwards"


@pytest.mark.feature("O20")
def test_bits_per_log_snr_are_shown_beyond_the_best_arm(of_seeds):
    chart = _chart(report.page.render(of_seeds), f"{record.PER_LOG_SNR}: minus the best arm&#x27;s")
    lines = _points(chart, "polyline")
    # at -2 arm 0 is the best, by 1; at 2 arm 1 is, by 1: the best lie on zero, the others one above it
    np.testing.assert_allclose(lines["0"][0][1], lines["1"][1][1], atol=0.1)
    np.testing.assert_allclose(lines["0"][1][1], lines["1"][0][1], atol=0.1)
    assert lines["1"][0][1] < lines["0"][0][1]
    # a seed adds 0.1 to both arms at -2, which is no part of how far they are apart: no band is left
    for band in _points(chart, "polygon").values():
        assert abs(band[0][1] - band[-1][1]) < 0.1


@pytest.mark.feature("O20")
def test_scores_of_several_seeds_are_means_that_sort_and_shared_samplers_stand_apart(of_seeds):
    page = report.page.render(of_seeds)
    own, shared = page.split("By samplers that the arms share")
    cells = re.findall(r'data-value="([^"]+)"', own)
    assert [float(cell) for cell in cells] == pytest.approx([0.51, 0.71, 0.5, 0.52, 0.7, 0.72])  # means, then runs
    interval = 12.706 * 0.02 / 2  # t(0.975) with 1 degree of freedom times the standard error of two values
    assert f"{51 - 100 * interval:.1f} to {51 + 100 * interval:.1f}".replace("-", "−") in own
    assert "common_" not in own and "common_8: ddim, 8 network evaluations a clip" in shared
    lines = _points(_chart(shared, "valid clips, by network evaluations of ddim"), "polyline")
    assert all(len(points) == 2 and points[1][1] < points[0][1] for points in lines.values())
    assert own.count('<button type="button">') == 2 and '<th aria-sort="none">' in own


@pytest.mark.feature("O20")
def test_the_text_has_the_same_numbers(of_seeds, tmp_path):
    report.write(tmp_path, of_seeds)
    rows = list(csv.DictReader((tmp_path / report.CSV_NAME).open()))
    found = {(row["arm"], row["sampling"]): float(row["value"]) for row in rows}
    assert found == {
        (arm.name, metric.sampling): metric.value for arm in of_seeds.arms for metric in arm.record.metrics
    }
    assert {row["seed"] for row in rows} == {"0", "1"} and {row["network_evaluations"] for row in rows} == {
        "",
        "8",
        "16",
    }
    text = (tmp_path / report.MARKDOWN_NAME).read_text()
    own, *shared = text.split("## Scores by")[1:]
    assert "own sampler" in own and "50.0 %" in own and len(shared) == 2 and "common_8" in shared[0]
    assert "3 of" not in text and "| valid clips | real clips | 100.0 % | >= 99.0 % | passed |" in text


def test_what_a_person_wrote_is_text_in_the_markdown_too(the_report):
    arm = dataclasses.replace(the_report.arms[0], title="a | b `c` <script>")
    text = report_text.markdown(dataclasses.replace(the_report, arms=(arm, *the_report.arms[1:])))
    assert "a &#124; b &#96;c&#96; &lt;script&gt;" in text and "<script>" not in text


def test_rates_that_were_tried_are_shown_with_where_they_end(the_report):
    title = the_report.arms[0].title
    tried = (Tried(0.5, 1e-3, {"long": 0.3}), Tried(1.0, 2e-3, {"long": 0.25, "short": 0.2}), Tried(2.0, 4e-3, {}))
    inside = dataclasses.replace(the_report, selections=(Selection(title, tried),))
    at_end = dataclasses.replace(the_report, selections=(Selection(title, tried[:2]),))
    pages = [report.page.render(each) for each in (inside, at_end)]
    assert (
        '<td class="num">0.002</td><td>short</td><td>0.001: 0.3, 0.002: 0.25 and 0.2, 0.004: diverged</td>' in pages[0]
    )
    assert ">0.002, the last that was tried on its side</td>" in pages[1]
    assert f"| {title} | 0.002 | yes | short |" in report_text.markdown(inside)
    assert f"| {title} | 0.002 | NO | short |" in report_text.markdown(at_end)
    numbers = report.to_json(inside)["selections"]
    assert (numbers[0]["rate"], numbers[0]["average"], numbers[0]["is_interior"]) == (2e-3, "short", True)


@pytest.mark.feature("O20")
def test_many_pairs_are_a_table_that_sorts_and_one_run_of_every_arm_is_shown(of_seeds):
    entries = tuple(
        OverSeeds("valid clips", f"arm {i}", f"arm {j}", (0.1 * i, 0.2 * j), "%", 0.04 * j, 0.5)
        for i, j in itertools.combinations(range(5), 2)
    )
    healthy = Healthy(over_seeds=(dataclasses.replace(entries[0], p_value=0.9),))
    page = report.page.render(dataclasses.replace(of_seeds, over_seeds=entries, healthy=healthy))
    assert page.count("over the healthy run's 2 seeds".replace("'", "&#x27;")) == 1
    table = page.split("Do the arms differ?")[1].split("</table>")[0]
    assert table.count("<tr>") == 1 + len(entries) == 11
    p_values = [float(value) for value in re.findall(r'data-value="([^"]+)"', table)[1::3]]
    assert p_values == [entry.p_value for entry in entries]
    assert table.count("<td>separated") == sum(p <= 0.05 for p in p_values) == 1
    assert page.count('<img class="sheet"') == 1 + 2  # the data, and each arm's first run


def test_spreads_are_over_n_minus_one(the_report):
    entry = Spread("valid clips", "Discrete DDPM", "init", (0.5, 0.6), "%")
    assert entry.standard_deviation == pytest.approx(0.1 / 2**0.5)
    page = report.page.render(dataclasses.replace(the_report, spreads=(entry,)))
    assert '<td>init</td><td class="num">7.1</td><td class="num">50.0, 60.0</td>' in page
