import json

import pytest

from tests import features

pytest_plugins = ["pytester"]

OUTCOMES = {
    "O11": {
        "tests/diffusion/test_objectives.py::test_a": "passed",
        "tests/diffusion/test_objectives.py::test_b": "failed",
    },
    "R9": {"tests/records/test_identity.py::test_c": "passed"},
}
README = "# Title\n\n<!-- features:begin -->\nold\n<!-- features:end -->\n\nmore\n"


def _run(pytester, text, *arguments):
    pytester.makepyfile(text)
    path = pytester.path / "features.json"
    options = ("-p", "tests.features", "-p", "no:cacheprovider", f"--features-json={path}", *arguments)
    result = pytester.runpytest_inprocess(*options)
    return result, json.loads(path.read_text()) if path.exists() else None


def test_outcomes_are_gathered_per_feature_and_test(pytester):
    _, table = _run(
        pytester,
        """
        import pytest
        @pytest.mark.feature("O2", "O1")
        @pytest.mark.parametrize("x", [1, 2])
        def test_both(x): assert x == 1
        @pytest.mark.feature("O1")
        def test_good(): pass
        @pytest.mark.feature("S1")
        @pytest.mark.parametrize("x", [1, 2])
        def test_half(x):
            if x == 1: pytest.skip("here")
        @pytest.fixture
        def broken(): raise OSError
        @pytest.mark.feature("S2")
        def test_set_up(broken): pass
        @pytest.mark.feature("S4")
        @pytest.mark.slow
        def test_slow(): pass
        def test_without(): pass
        """,
        "-m",
        "not slow",
    )
    file = "test_outcomes_are_gathered_per_feature_and_test.py"
    assert table == {
        "O1": {f"{file}::test_both": "failed", f"{file}::test_good": "passed"},
        "O2": {f"{file}::test_both": "failed"},
        "S1": {f"{file}::test_half": "passed"},
        "S2": {f"{file}::test_set_up": "failed"},
        "S4": {f"{file}::test_slow": "not run"},
    }


def test_an_unknown_id_stops_the_session(pytester):
    result, _ = _run(pytester, "import pytest\n@pytest.mark.feature('O99')\ndef test_x(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_x: unknown feature 'O99'*"])


def test_every_row_of_the_field_is_named_once():
    """The counts of the reference: O20, S10, G13, A17, T7, X9, E7, R10, D7, M12, P13, 125 in all."""
    counts = {"O": 20, "S": 10, "G": 13, "A": 17, "T": 7, "X": 9, "E": 7, "R": 10, "D": 7, "M": 12, "P": 13}
    assert list(features.NAMES) == [f"{letter}{i + 1}" for letter, count in counts.items() for i in range(count)]
    assert len(set(features.NAMES.values())) == 125


def test_the_readmes_table_is_written_between_its_markers_and_checked_row_by_row():
    written = features.replace_block(README, features.BLOCK, features.readme_table(OUTCOMES))
    assert written.startswith("# Title\n\n") and written.endswith("\n\nmore\n") and "old" not in written
    assert "| R9 | reproducible configs with an identity | [identity](tests/records/test_identity.py) |" in written
    assert features.worst(OUTCOMES["O11"].values()) == "failed"
    assert features.stale(written, OUTCOMES) == []
    assert features.stale(written, {"R9": OUTCOMES["R9"]}) == [
        "the README lists O11 DDPM and SDE as two configs of one objective "
        "[objectives](tests/diffusion/test_objectives.py), which no test proves"
    ]
    more = OUTCOMES | {"S1": {"tests/x.py::test_x": "passed"}}
    assert features.stale(written, more) == ["the README lacks S1 ancestral DDPM sampler [x](tests/x.py)"]
    assert len(features.stale(written.replace("reproducible configs", "configs"), OUTCOMES)) == 2


@pytest.mark.parametrize(
    "readme", ["no markers", "<!-- features:begin -->", "<!-- features:end --> <!-- features:begin -->"]
)
def test_a_readme_without_markers_is_an_error(readme):
    with pytest.raises(ValueError, match="features:begin"):
        features.replace_block(readme, features.BLOCK, "")


def test_the_terminals_table_names_tests_outcomes_and_what_is_missing():
    text = features.text_table(OUTCOMES)
    assert "O11  failed   DDPM and SDE" in text
    assert "failed   tests/diffusion/test_objectives.py::test_b" in text
    assert "2 of 125 features have tests; not yet: O1 O2" in text
