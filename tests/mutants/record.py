"""A planted mistake: one change of one file, and the tests that have to notice it."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

PACKAGES = ("labkit", "editing", "probes")

WITHOUT_MISTAKES = ("labkit/data", "labkit/cli")
"""Rooms in which none is planted: derived files, and commands, whose lines are tried one by one."""

ONE_ROOM = ("labkit/plots",)
"""Folders that are one room with all that is in them."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One planted mistake.

    Attributes:
        name: What is wrong, in a few words; unique.
        file: Where, from the root of the checkout.
        before: What stands there now, exactly once.
        after: What is put in its place.
        tests: Test files or node ids, at least one of whose tests has to fail.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    @property
    def room(self) -> str:
        """The folder that it is planted in."""
        return room_of(self.file)

    def applied(self, text: str) -> str:
        """The file's text with the mistake in it.

        Raises:
            ValueError: If what should be changed does not stand there exactly once.
        """
        times = text.count(self.before)
        if times != 1:
            raise ValueError(f"{self.file} has {self.before!r} {times} times")
        return text.replace(self.before, self.after)


def room_of(file: str) -> str:
    """The room of a file."""
    folder = PurePosixPath(file).parent.as_posix()
    return next((room for room in ONE_ROOM if folder.startswith(room)), folder)


def rooms() -> set[str]:
    """Every folder of the packages that holds code besides its door."""
    files = (
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("__")
    )
    return {room_of(file) for file in files} - set(WITHOUT_MISTAKES)
