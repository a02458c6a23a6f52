"""Every planted mistake still applies, and none of the rooms is without one."""

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.record import ROOT, rooms


def test_every_planted_mistake_applies():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40
    for mutant in MUTANTS:
        text = (ROOT / mutant.file).read_text(encoding="utf-8")
        assert mutant.applied(text) != text, mutant.name
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), test


def test_every_room_has_a_planted_mistake():
    assert rooms() - {mutant.room for mutant in MUTANTS} == set()
