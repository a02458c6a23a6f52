"""One command line, run in this process and in a folder of its own."""

import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from labkit import cli
from labkit.cli.command import ModelOptions
from tests.bad_inputs import material

SLOW, TOO_SLOW = 20.0, 90
"""Seconds after which a line counts as slow, and after which it is stopped."""

KEPT = ("pocket", "random-llama", "random-gpt2")
"""Models that are opened once."""


class Stopped(BaseException):
    """A line that took too long."""


@dataclass(frozen=True)
class Found:
    """What became of a line.

    Attributes:
        kind: Its kind.
        line: The command line.
        wanted: "refused" or "done".
        status: Exit status; -1 if it was stopped, -2 if an exception came out.
        said: Its last line on standard error.
        errors: Number of lines on standard error that begin with "error:".
        lines: Number of all of its lines there.
        seconds: How long it took.
        left: What lies in the folder that did not before, and was not asked for.
        changed: What was there before and is gone, or has another size.
    """

    kind: str
    line: tuple[str, ...]
    wanted: str
    status: int
    said: str
    errors: int
    lines: int
    seconds: float
    left: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.status == -1:
            return "stopped"
        if self.status in (-2, 70):
            return "traceback"
        if self.changed or (self.status and self.left):
            return "left something"
        if self.wanted == "refused" and self.status == 0:
            return "accepted"
        if self.wanted == "done" and self.status != 0:
            return "refused wrongly"
        if self.status and self.errors != 1:
            return "not one line"
        if self.seconds > SLOW:
            return "slow"
        return "done" if self.status == 0 else "one line"


GOOD = ("done", "one line")
"""Verdicts that are as they should be."""


@contextlib.contextmanager
def workshop() -> Iterator["Workshop"]:
    """Models opened once, files made once, and a cache of its own, taken away afterwards."""
    from labkit import load

    with tempfile.TemporaryDirectory(prefix="labkit-bad-inputs-") as folder:
        root = Path(folder)
        opened = cache(lambda model, device, dtype: load(model, device=device, dtype=dtype))
        own = ModelOptions.load

        def once(options: ModelOptions) -> Any:
            plain = options.model in KEPT and options.device == "cpu"
            if not plain or options.dtype != "float32":
                return own(options)
            return opened(options.model, options.device, options.dtype)

        before = {name: os.environ.get(name) for name in ("LABKIT_CACHE", "TMPDIR")}
        os.environ["LABKIT_CACHE"] = str(root / "cache")
        (root / "tmp").mkdir()
        os.environ["TMPDIR"], tempfile.tempdir = str(root / "tmp"), None
        ModelOptions.load = once  # type: ignore[method-assign]
        try:
            (root / "files").mkdir()
            material.prepare(root / "files", load("pocket"), load("random-llama"))
            yield Workshop(root)
        finally:
            ModelOptions.load = own  # type: ignore[method-assign]
            tempfile.tempdir = None
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


@dataclass
class Workshop:
    """Where lines are run.

    Attributes:
        root: Its folder.
    """

    root: Path

    def run(self, kind: str, line: Sequence[str], wanted: str = "refused") -> Found:
        """Run a line in a copy of the files, and look at what became of it."""
        place = self.root / "place"
        shutil.copytree(self.root / "files", place, symlinks=True, copy_function=material.linked)
        os.mkfifo(place / "pipe")
        before = listing(place)
        asked = {Path(line[i + 1]).name for i, one in enumerate(line[:-1]) if one in OUTPUTS}
        asked |= {os.readlink(place / name) for name in asked & {"link", "link_to_nothing"}}
        here, argv = Path.cwd(), sys.argv
        errors, start = io.StringIO(), time.perf_counter()
        os.chdir(place)
        try:
            sys.argv = ["labkit", *line]
            status = _status(errors)
        finally:
            sys.argv = argv
            os.chdir(here)
        seconds = time.perf_counter() - start
        after = listing(place)
        shutil.rmtree(place)
        said = [one for one in errors.getvalue().splitlines() if one.strip()]
        left = [name for name in after.keys() - before.keys() if Path(name).parts[0] not in asked]
        if status:
            left = sorted(after.keys() - before.keys())
        gone = [n for n in before if after.get(n) != before[n] and Path(n).name not in asked]
        return Found(
            kind, tuple(line), wanted, status, said[-1] if said else "",
            sum(one.startswith("error:") for one in said), len(said), seconds,
            tuple(sorted(left)), tuple(sorted(gone)),
        )  # fmt: skip


OUTPUTS = ("--out", "--json", "--html")


def _status(errors: io.StringIO) -> int:
    """Run `sys.argv`; what it says on standard error goes into `errors`."""
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(TOO_SLOW)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            cli.main()
        return 0
    except SystemExit as stop:
        return int(stop.code or 0) if not isinstance(stop.code, str) else 1
    except Stopped:
        return -1
    except Exception as error:
        errors.write(f"\n{type(error).__name__}: {error}\n")
        return -2
    finally:
        signal.alarm(0)


def _stop(*_: Any) -> None:
    raise Stopped


def listing(folder: Path) -> dict[str, int]:
    """Everything below a folder, with sizes of files; links as such."""
    return {
        str(path.relative_to(folder)): path.lstat().st_size if path.is_file() else 0
        for path in folder.rglob("*")
    }
