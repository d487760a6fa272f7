"""The list of mutants fits the source; whether they are caught says `python -m tests.mutations` (make test-all)."""

from pathlib import Path

from tests.mutants import MUTANTS, TESTS
from tests.mutations import FOLDER, ROOT, is_sound, relevant_tests


def test_every_mutant_is_found_once_and_changes_something():
    assert len(MUTANTS) >= 60
    for mutant in MUTANTS:
        assert is_sound(mutant), mutant


def test_every_file_of_the_mathematics_has_mutants_and_tests():
    files = {str(path.relative_to(ROOT / FOLDER)) for path in (ROOT / FOLDER).rglob("*.py") if path.stem != "__init__"}
    assert files == {mutant.file for mutant in MUTANTS}
    for file in files:
        assert all((Path(__file__).parent / "diffusion" / test).exists() for test in relevant_tests(file)), file
    assert set(TESTS) <= files | {f"{Path(file).parent}/" for file in files}
