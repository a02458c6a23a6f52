"""The bench: a process that is ready for an exercise, and forks one that runs a student's code.

Started by `session` as a program. It runs the teacher's setup once and no student's code ever. For
each exercise of each student it forks a guard, which forks the student's process; the guard holds
one end of a *lease* and kills the student's process when the grader closes the other, or dies.

The student's process answers calls with values (`wire`). It could send any bytes that it likes in
the place of them, and gains nothing: an answer is a value that a check doubts in any case, and
what was called with which arguments is judged elsewhere.
"""

import ast
import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from labkit.course.check.asking import ask
from labkit.course.grading import isolation
from labkit.course.grading.wire import Malformed, decode, encode, receive, send
from labkit.errors import CheckFailed, one_line


def main() -> None:
    """Set up, say so, and fork whenever the grader asks."""
    import torch

    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    torch.set_num_threads(1)
    told = receive(control)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for source in told["setup"]:
        exec(compile(source, "<setup>", "exec"), namespace)
    send(control, {"isolated": _isolated(told["hidden"])})
    while True:
        control.settimeout(None)
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _guard(descriptors[0], descriptors[1], namespace, told["hidden"])
        for descriptor in descriptors:
            os.close(descriptor)


def _isolated(hidden: list[str]) -> dict[str, bool]:
    """What the system lets be cut off, tried in a process that ends."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        with tempfile.TemporaryDirectory() as work:
            processes = isolation.own_processes()
            os.write(writing, bytes([processes, isolation.own_files(Path(work), hidden)]))
            os._exit(0)
    os.close(writing)
    found = os.read(reading, 2) + b"\0\0"
    os.close(reading)
    return {"processes": bool(found[0]), "files": bool(found[1])}


def _guard(connection: int, lease: int, namespace: dict[str, Any], hidden: list[str]) -> None:
    """Fork the student's process, and end it with the lease."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    work = Path(tempfile.mkdtemp(prefix="submission-"))
    isolation.own_processes()
    student = os.fork()
    if student == 0:
        os.close(lease)
        os.setsid()
        try:
            _student(socket.socket(fileno=connection), namespace, work, hidden)
        finally:
            os._exit(1)
    os.close(connection)
    select.select([lease], [], [])  # until the grader lets go of it
    with contextlib.suppress(ProcessLookupError):
        os.killpg(student, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(student, signal.SIGKILL)
    os.waitpid(student, 0)
    shutil.rmtree(work, ignore_errors=True)
    os._exit(0)


def _student(
    connection: socket.socket, namespace: dict[str, Any], work: Path, hidden: list[str]
) -> None:
    """Run a student's cell, then answer calls of the function that it defines."""
    isolation.own_files(work, hidden)
    os.chdir(work)
    os.environ["HOME"] = str(work)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    told = receive(connection)
    isolation.limit()
    model = namespace.get("model")
    send(connection, _outcome(lambda: _run(told["source"], namespace)))
    while True:
        asked = receive(connection)
        arguments = [decode(one, model) for one in asked["arguments"]]

        def call(arguments: list[Any] = arguments) -> Any:
            function = namespace.get(told["exercise"])
            if not callable(function):
                raise CheckFailed(f"the cell defines no function {told['exercise']}")
            return encode(ask(function, *arguments))

        send(connection, _outcome(call))


def _run(source: str, namespace: dict[str, Any]) -> None:
    """Run a cell, without the calls of checks in it: they are the grader's to make."""
    tree = ast.parse(source)
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.Expr) and ast.unparse(node).startswith("check."))
    ]
    exec(compile(tree, "<cell>", "exec"), namespace)


def _outcome(step: Any) -> dict[str, Any]:
    """What a step of a student's code came to."""
    try:
        return {"value": step()}
    except NotImplementedError:
        return {"stub": True}
    except CheckFailed as error:
        return {"failed": str(error)}
    except Malformed as error:
        return {"failed": f"the answer is {error}, which cannot be handed over"}
    except BaseException as error:  # SystemExit, KeyboardInterrupt and MemoryError too
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == "<cell>"]
        where = f" (line {lines[-1]} of the cell)" if lines else ""
        return {"error": f"{one_line(error)}{where}"}


if __name__ == "__main__":
    main()
