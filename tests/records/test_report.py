import base64
import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.records import examples
from vdm.records import comparison, identity, plot, report
from vdm.records.comparison import Comparison, Healthy, PassLine
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


def test_a_score_stands_beside_that_of_the_data(page, the_report):
    text = " ".join(_Page(page).text)
    assert text.count("the data: 0.034") == len(the_report.arms)


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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_builds_the_player(the_report, tmp_path):
    path = report.write(tmp_path, the_report)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=2000", "--dump-dom", f"file://{path}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert 'class="player live"' in shown
    assert "samples 1–8 of 10" in shown
    assert shown.count("<canvas") == 4 * 8 + 4 * 8
