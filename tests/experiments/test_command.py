"""What the studies' command line computes, writes and refuses."""

import pytest

from experiments import command


def run(monkeypatch, page, *arguments, parts=("one", "two")):
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    computed = []
    figures = []
    command.main(
        "experiments.study",
        "What it does.",
        compute=computed.append,
        pages=lambda: {page: "as recorded"},
        figures=lambda: figures.append(page.read_text()),
        parts=parts,
    )
    return computed, figures


def test_what_is_asked_for_is_computed_and_the_pages_are_written(monkeypatch, tmp_path):
    page = tmp_path / "README.md"
    for arguments, expected in (((), [None]), (("--only", "two"), ["two"]), (("--draw",), [])):
        page.write_text("old")
        assert run(monkeypatch, page, *arguments) == (expected, ["old"])
        assert page.read_text() == "as recorded"
    with pytest.raises(SystemExit):
        run(monkeypatch, page, "--only", "three")
    with pytest.raises(SystemExit):
        run(monkeypatch, page, "--only", "one", parts=())


def test_check_writes_nothing_and_names_the_page_that_is_stale(monkeypatch, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("as recorded")
    assert run(monkeypatch, page, "--check") == ([], [])
    page.write_text("edited")
    with pytest.raises(SystemExit, match=r"README.md; run python -m experiments.study --draw, or undo the edit"):
        run(monkeypatch, page, "--check")
    assert page.read_text() == "edited"
