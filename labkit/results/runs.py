"""Run directories: what a run leaves behind, with its provenance.

A run directory holds everything needed to believe a number later:

    config.json        what was asked for
    environment.json   what it ran on: versions, threads, model and its fingerprint, commit
    cases.jsonl        one record per case, written as each one ends; a killed run resumes here
    metrics.json       the summary, every number with its interval
    ...                report.html, delta/, checkpoint/: whatever the run makes besides
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import (
    FingerprintMismatch,
    InputError,
    MalformedRecord,
    MissingFile,
    OutputError,
)
from labkit.files import atomic_folder, atomic_write, is_free, output_errors
from labkit.results.encoding import dumps, to_json
from labkit.results.provenance import environment


@dataclass(frozen=True)
class RunDirectory:
    """A folder of one run. Make it with `create`, read it with `open`.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        model: object | None = None,
        *,
        resume: bool = False,
    ) -> "RunDirectory":
        """Make the folder with its config and environment, or go on with a killed run.

        Args:
            path: A folder that does not exist or is empty; with `resume`, also one that
                holds a run of the same config and the same model.
            config: Everything that determines the outcome of the run.
            model: The model it runs on, recorded in `environment.json`.
            resume: Whether to go on with the run that is there.

        Raises:
            OutputError: If the folder holds something else, or cannot be written.
            FingerprintMismatch: If the run to be resumed was made with another model.
        """
        run = cls(Path(path))
        asked, here = to_json(config), environment(model)
        if is_free(run.path):
            with atomic_folder(run.path) as folder:
                atomic_write(folder / "config.json", dumps(asked) + "\n")
                atomic_write(folder / "environment.json", dumps(here) + "\n")
            return run
        if not resume:
            raise OutputError(f"{path} is not empty; choose another folder, or resume its run")
        run._check_same(asked, here)
        run._drop_torn_line()
        earlier = run.environment
        resumed = [*earlier.get("resumed", []), here["started"]]
        atomic_write(run.path / "environment.json", dumps({**earlier, "resumed": resumed}) + "\n")
        return run

    @classmethod
    @contextlib.contextmanager
    def session(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        model: object | None = None,
        *,
        resume: bool = False,
    ) -> Iterator["RunDirectory"]:
        """The same for the duration of a block, in which no other process works in the folder.

        A folder that this made is taken away again when the block ends in an error (a refusal,
        Ctrl-C) and there is nothing in it to resume: the next attempt may ask for something
        else.

        Args:
            path: As in `create`.
            config: As in `create`.
            model: As in `create`.
            resume: As in `create`.

        Yields:
            The run directory.

        Raises:
            OutputError: As in `create`, or if another process is at work in the folder.
            FingerprintMismatch: As in `create`.
        """
        fresh = is_free(path)
        existed = Path(path).is_dir()
        made = [place for place in Path(path).absolute().parents if not place.exists()]
        with contextlib.ExitStack() as locked:
            if not fresh:
                locked.enter_context(_locked(path))
            run = cls.create(path, config, model, resume=resume)
            if fresh:
                locked.enter_context(_locked(path))
            try:
                yield run
            except BaseException:
                if fresh and not (resume and run._has_begun()):
                    shutil.rmtree(run.path, ignore_errors=True)
                    if existed:
                        run.path.mkdir()
                    for place in made:  # innermost first; stops mattering once one is in use
                        with contextlib.suppress(OSError):
                            place.rmdir()
                raise

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """An existing run, to be read.

        Raises:
            MissingFile: If the folder holds no run.
        """
        if not (Path(path) / "config.json").is_file():
            raise MissingFile(f"{path} is not a run directory: it has no config.json")
        return cls(Path(path))

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for."""
        return self._read("config.json")

    @property
    def environment(self) -> dict[str, Any]:
        """What the run was made on."""
        return self._read("environment.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """The summary that `write_metrics` left."""
        return self._read("metrics.json")

    def append_case(self, record: Mapping[str, Any]) -> None:
        """Add one finished case to `cases.jsonl`, at once on disk.

        Args:
            record: Anything `to_json` takes, with a `case_id`.

        Raises:
            InputError: If the record has no `case_id`.
            OutputError: If it cannot be written; the cases before it are intact.
        """
        if record.get("case_id") is None:
            raise InputError("a case needs a case_id, so that a killed run can be resumed")
        line = dumps(record, indent=None).encode() + b"\n"
        file_path = self.path / "cases.jsonl"
        # Unbuffered: a buffer that could not be flushed would be written again at closing.
        with output_errors(file_path), file_path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
            except BaseException:
                os.truncate(file_path, before)
                raise

    def cases(self) -> Iterator[dict[str, Any]]:
        """The finished cases in the order they ended; a torn last line is not one.

        Raises:
            MalformedRecord: If a complete line is not a JSON object with a `case_id`.
        """
        file_path = self.path / "cases.jsonl"
        lines = file_path.read_bytes().split(b"\n")[:-1] if file_path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                record["case_id"]
            except (ValueError, KeyError, TypeError) as error:
                raise MalformedRecord(f"{file_path} line {number} is not a case") from error
            yield record

    def finished_cases(self) -> set[str]:
        """The ids, as strings, of the cases that need not be run again."""
        return {str(record["case_id"]) for record in self.cases()}

    def write_metrics(self, metrics: Mapping[str, Any]) -> Path:
        """Write `metrics.json`; estimates keep their mean, low, high and n."""
        return self.write_text("metrics.json", dumps(metrics) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file of the run in one step, replacing an earlier one.

        Args:
            name: Path inside the run directory.
            text: Its content.

        Raises:
            InputError: If `name` points outside the run directory.
            OutputError: If it cannot be written.
        """
        target = self.path / name
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise InputError(f"{name} is outside the run directory {self.path}")
        return atomic_write(target, text)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise MissingFile(f"{self.path} has no {name}") from error
        except ValueError as error:
            raise MalformedRecord(f"{self.path / name} is not valid JSON: {error}") from error

    def _check_same(self, config: dict[str, Any], here: dict[str, Any]) -> None:
        if not (self.path / "config.json").is_file():
            raise OutputError(f"{self.path} is not empty and holds no run to resume")
        earlier = self.config
        differing = [
            key for key in sorted({*earlier, *config}) if earlier.get(key) != config.get(key)
        ]
        if differing:
            raise OutputError(
                f"{self.path} holds a run of another config (they differ in "
                f"{', '.join(differing)}); choose another folder"
            )
        before, now = (record["model"] or {} for record in (self.environment, here))
        if before.get("fingerprint") != now.get("fingerprint"):
            raise FingerprintMismatch(
                f"the run in {self.path} was made with model {before.get('fingerprint')}, "
                f"not with {now.get('fingerprint')}"
            )
        for name, what in (("in_effect", "other weights"), ("is_patched", "other hooks")):
            if before.get(name) != now.get(name):
                raise FingerprintMismatch(
                    f"the run in {self.path} was made with {what} in effect than there are now: "
                    "resume it as it was begun, or choose another folder"
                )

    def _has_begun(self) -> bool:
        """Whether the folder holds more than what was asked for and on what."""
        files = (place for place in self.path.rglob("*") if not place.is_dir())
        return any(place.name not in ("config.json", "environment.json") for place in files)

    def _drop_torn_line(self) -> None:
        """Cut what a killed run had begun to write after the last complete line."""
        file_path = self.path / "cases.jsonl"
        if file_path.exists():
            with output_errors(file_path):
                os.truncate(file_path, file_path.read_bytes().rfind(b"\n") + 1)


@contextlib.contextmanager
def _locked(path: str | Path) -> Iterator[None]:
    """A folder that no other process may work in; the system lets go of it when this one ends.

    Raises:
        OutputError: If another one is at work there.
    """
    with output_errors(Path(path)):
        handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another process is writing to {path}: wait for it, or choose another folder"
            ) from error
        except OSError:  # file systems without locks
            pass
        yield
    finally:
        os.close(handle)
