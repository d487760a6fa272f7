"""The report in a real browser: it plays in step, sorts, fits a phone, and asks nobody for anything."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, Browser
from tests.records import examples
from vdm.records import report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]
# for every row: whether each of its pictures is that frame of its sheet of clips
IN_STEP = """[...document.querySelectorAll(".player .clips:not(.strip)")].map((row) => {
  const sheet = row.parentElement.querySelector(".sheet");
  return [...row.querySelectorAll("canvas")].map((canvas, clip) => {
    const part = document.createElement("canvas");
    [part.width, part.height] = [canvas.width, canvas.height];
    const at = [clip * canvas.width, FRAME * canvas.height, canvas.width, canvas.height];
    part.getContext("2d").drawImage(sheet, ...at, 0, 0, canvas.width, canvas.height);
    return part.toDataURL() === canvas.toDataURL();
  });
})"""
SCRUB = """(() => {
  const at = document.querySelector(".scrub");
  at.value = FRAME;
  at.dispatchEvent(new Event("input"));
})()"""
VALUES = '[...document.querySelector("table.sortable").tBodies[0].rows].map((row) => +row.cells[1].dataset.value)'


def text(selector):
    return f'document.querySelector("{selector}").textContent'


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return report.write(tmp_path_factory.mktemp("report"), examples.a_report(num_clips=10))


@pytest.fixture
def page(written, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.open(written)
        yield browser
        assert browser.complaints == []


@pytest.mark.feature("O20")
def test_all_clips_play_in_step_until_they_are_stopped(page):
    frames = set()
    for _ in range(40):
        frames.add(page.value(text(".frame")))
        time.sleep(0.05)
    assert frames == {f"frame {frame} of 8" for frame in range(1, 9)}, "8 frames a second, for two seconds"
    page.value('document.querySelector(".play").click()')
    stopped = page.value(text(".frame"))
    time.sleep(0.5)
    assert page.value(text(".frame")) == stopped and page.value(text(".play")) == "Play"
    for frame in (2, 5):
        page.value(SCRUB.replace("FRAME", str(frame)))
        assert page.value(text(".frame")) == f"frame {frame + 1} of 8"
        rows = page.value(IN_STEP.replace("FRAME", str(frame)))
        assert len(rows) == 4 and all(len(row) == 8 and all(row) for row in rows)
        assert not all(all(row) for row in page.value(IN_STEP.replace("FRAME", str(frame - 1))))


@pytest.mark.feature("O20")
def test_a_click_on_a_title_sorts_the_arms(page):
    before = page.value(VALUES)
    click = 'document.querySelector("table.sortable th button").click()'
    page.value(click)
    assert page.value(VALUES) == sorted(before, reverse=True) != before
    page.value(click)
    assert page.value(VALUES) == sorted(before)


@pytest.mark.feature("O20")
def test_it_asks_for_nothing_but_itself(page, written):
    page.value('document.querySelector(".next").click()')
    assert page.value(text(".range")) == "samples 9–10 of 10"
    assert {url for url in page.requested if not url.startswith("data:")} == {written.as_uri()}


@pytest.mark.feature("O20")
def test_it_is_readable_on_a_phone(written, tmp_path):
    with Browser(tmp_path / "profile", width=390, height=844) as browser:
        browser.open(written)
        assert browser.value("document.documentElement.scrollWidth") <= 390, "it scrolls sidewards"
        assert browser.value('parseFloat(getComputedStyle(document.querySelector("p")).fontSize)') >= 12
        shown = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"), float)
        assert shown.shape == (844, 390) and shown.std() > 10, "the window is empty"
