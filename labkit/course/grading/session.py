"""The grader's side of the bench: one session per exercise and student."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from labkit.course.grading.wire import Malformed, decode, encode, receive, send
from labkit.errors import CheckFailed, LabkitError, one_line

PATIENCE = 60.0
"""Seconds for all that a check asks of one function."""

STARTING = 300.0
"""Seconds for the setup of an assignment."""


class StudentError(Exception):
    """A student's code did not answer: it raised, ended its process or took too long."""


class Bench:
    """A process that is ready for an assignment's exercises.

        with Bench(assignment.setup) as bench, bench.session("rome_update", source) as function:
            check.rome_update(function, seed=seed)

    Args:
        setup: The teacher's own setup cells.
        hidden: Folders that students' code is not to see.
        patience: Seconds for one exercise.

    Attributes:
        isolated: What is cut off: network, files, processes.
    """

    def __init__(
        self, setup: Sequence[str], hidden: Sequence[str] = (), patience: float = PATIENCE
    ) -> None:
        self.patience = patience
        self._home = tempfile.mkdtemp(prefix="grading-")
        self._control, theirs = socket.socketpair()
        alone = _alone()
        command = [*alone, sys.executable, "-P", "-m", "labkit.course.grading.bench"]
        environment = {
            "HOME": self._home, "LABKIT_CACHE": self._home, "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "PYTHONIOENCODING": "utf-8",
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment,
                cwd=self._home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )  # fmt: skip
        try:
            send(self._control, {"setup": list(setup), "hidden": list(hidden)})
            ready = receive(self._control, time.monotonic() + STARTING)
        except (EOFError, OSError, TimeoutError) as error:
            self._process.kill()
            said = self._process.communicate()[1].decode(errors="replace").strip()
            self.close()
            last = said.splitlines()[-1:] or ["no word"]
            raise LabkitError(f"the grading process did not start: {last[0]}") from error
        self.isolated = {"network": bool(alone), **ready["isolated"]}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """End the process, and what it started."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        shutil.rmtree(self._home, ignore_errors=True)

    @contextmanager
    def session(self, exercise: str, source: str) -> Iterator["Remote"]:
        """A student's function, in a process that ends with the block.

        Raises:
            StudentError: If the cell cannot be run.
        """
        ours, theirs = socket.socketpair()
        reading, lease = os.pipe()
        try:
            with theirs:
                socket.send_fds(self._control, [b"f"], [theirs.fileno(), reading])
            os.close(reading)
            remote = Remote(ours, time.monotonic() + self.patience)
            remote.exchange({"exercise": exercise, "source": source})
            yield remote
        finally:
            os.close(lease)
            ours.close()


class Remote:
    """A student's function, called like any other, that runs elsewhere."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection = connection
        self._until = until

    def __call__(self, *arguments: Any) -> Any:
        """Call it.

        Raises:
            CheckFailed: If it left the model or its arguments changed.
            NotImplementedError: If it is a stub.
            StudentError: If it did not answer.
        """
        answer = self.exchange({"arguments": [encode(one) for one in arguments]})
        try:
            return decode(answer)
        except Malformed as error:
            raise CheckFailed(f"the answer is {error}") from error

    def exchange(self, message: Any) -> Any:
        """Send something, and wait for what it came to."""
        try:
            send(self._connection, message)
            outcome = receive(self._connection, self._until)
        except TimeoutError as error:
            raise StudentError("no answer in time: an endless loop?") from error
        except (EOFError, OSError) as error:
            raise StudentError("the code ended its process, or was ended at a limit") from error
        except Malformed as error:
            raise CheckFailed(f"the answer is {error}") from error
        if not isinstance(outcome, dict):
            raise CheckFailed("the answer is no answer")
        if "stub" in outcome:
            raise NotImplementedError
        if "failed" in outcome:
            raise CheckFailed(one_line(outcome["failed"], 400))
        if "error" in outcome:
            raise StudentError(one_line(outcome["error"], 400))
        return outcome.get("value")


def _alone() -> list[str]:
    """The command that starts a process without a network; none where the system refuses."""
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None:
        return []
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else []
