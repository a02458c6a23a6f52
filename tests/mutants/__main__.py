# ruff: noqa: T201
"""Plant one mistake after the other in a copy of the packages, and see whether tests notice.

    python -m tests.mutants                        # all of them
    python -m tests.mutants --room editing/edits   # those of one room, or of all below it
    python -m tests.mutants --only NAME            # one; may be given several times

First the tests themselves have to pass on the copy as it is. A mistake is *killed* if one of its
tests then fails, and has *survived* if none does. The exit status is 1 if one survived, or does
not apply.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.record import PACKAGES, ROOT, Mutant

SECONDS = 300
"""After so long a mistake counts as noticed: nothing goes on for ever."""

PASSED, FAILED = 0, 1
"""Exit statuses of pytest; all others say that the tests did not run as they should."""

SHARED = ("torch", "transformers", "pandas", "pytest")
"""Imported before the first process is forked; what its tests import besides, before the rest."""

OWN = (*PACKAGES, "tests", "conftest")
"""What every process imports for itself, from the copy."""

NOT_SHARED = (*OWN, "_pytest", "pytest", "_hypothesis_pytestplugin", "__main__", "__mp_main__")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen mistakes; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this one")
    parser.add_argument("--room", metavar="ROOM", help="those of a room, or of all below it")
    parser.add_argument("--no-clean", action="store_true", help="take it that the tests pass")
    asked = parser.parse_args(arguments)
    chosen = [
        mutant
        for mutant in MUTANTS
        if (not asked.only or mutant.name in asked.only)
        and (not asked.room or f"{mutant.room}/".startswith(f"{asked.room.rstrip('/')}/"))
    ]
    if not chosen:
        parser.error("there is no such mistake")
    for name in SHARED:
        import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = copied(Path(folder) / "copy")
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        if not asked.no_clean and (status := run(copy, tests)) != PASSED:
            print((copy.parent / "log").read_text(encoding="utf-8")[-2000:])
            print(f"the tests themselves do not pass (pytest says {status})")
            return 1
        share(copy)
        outcomes = [tried(copy, mutant) for mutant in chosen]
    summary(chosen, outcomes)
    return int(set(outcomes) != {"killed"})


def share(copy: Path) -> None:
    """Import all that the tests imported which is not the project's: it need be done only once."""
    names = copy.parent / "modules"
    for name in names.read_text(encoding="utf-8").split() if names.is_file() else ():
        if name.partition(".")[0] not in NOT_SHARED:
            with suppress(Exception):  # some are made while others are imported
                import_module(name)


def copied(place: Path) -> Path:
    """The packages, their tests and the project's files, elsewhere."""
    place.mkdir()
    for name in (*PACKAGES, "tests", "notebooks"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, place / file.name)
    return place


def tried(copy: Path, mutant: Mutant) -> str:
    """What comes of one mistake: "killed", "survived", "does not apply" or "does not run"."""
    path = copy / mutant.file
    text, before = path.read_text(encoding="utf-8"), path.stat()
    start = time.perf_counter()
    try:
        changed = mutant.applied(text)
    except ValueError as error:
        return told(mutant, "does not apply", f"{error}")
    try:
        path.write_text(changed, encoding="utf-8")
        # Compiled files are told apart by second and size: no other state of the file has this.
        os.utime(path, (before.st_atime, before.st_mtime + 2 + MUTANTS.index(mutant)))
        status = run(copy, mutant.tests)
    finally:
        path.write_text(text, encoding="utf-8")
        os.utime(path, (before.st_atime, before.st_mtime))
    outcome = {PASSED: "survived", FAILED: "killed"}.get(status, f"does not run ({status})")
    return told(mutant, outcome, f"{time.perf_counter() - start:.0f} s")


def told(mutant: Mutant, outcome: str, note: str) -> str:
    """Print an outcome."""
    print(f"{outcome:9} {mutant.room:28} {mutant.name} ({note})", flush=True)
    return outcome


def run(copy: Path, tests: Iterable[str]) -> int:
    """Run some tests of the copy in a process of their own; pytest's exit status."""
    process = multiprocessing.get_context("fork").Process(target=_tests, args=(copy, [*tests]))
    process.start()
    process.join(SECONDS * (1 if len([*tests]) < 10 else 10))
    if process.is_alive():
        process.kill()
        process.join()
        return FAILED
    return int(process.exitcode or 0)


def _tests(copy: Path, tests: list[str]) -> None:
    """The forked process: all that is imported from now on comes from the copy."""
    import pytest

    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]
    os.chdir(copy)
    sys.path = [str(copy), *(part for part in sys.path if Path(part or ".").resolve() != ROOT)]
    os.environ["PYTHONPATH"] = str(copy)
    log = copy.parent / "log"
    with log.open("w", encoding="utf-8") as file, tempfile.TemporaryDirectory() as cache:
        os.environ["LABKIT_CACHE"] = cache  # nothing wrong may get into the user's own
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        import labkit

        (copy.parent / "modules").write_text("\n".join(sys.modules), encoding="utf-8")
        ours = Path(labkit.__file__).resolve().is_relative_to(copy.resolve())
    sys.stdout.flush()
    os._exit(int(status) if ours else 70)


def summary(chosen: Sequence[Mutant], outcomes: Sequence[str]) -> None:
    """Print how many came to what, room by room."""
    by_room: dict[str, Counter] = {}
    for mutant, outcome in zip(chosen, outcomes, strict=True):
        by_room.setdefault(mutant.room, Counter())[outcome] += 1
    print()
    for room, counts in sorted(by_room.items()):
        print(f"{room:28} " + ", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
    print(f"{len(outcomes)} planted, {outcomes.count('killed')} killed")


if __name__ == "__main__":
    raise SystemExit(main())
