"""What a student's process may not do, as far as the system can be told.

Always: limits on processor time, address space, the size of a file and core dumps; a temporary
working folder, which is HOME too, and no variable of the teacher's environment.

On Linux where user namespaces are allowed, besides: no network; every file system read-only but
for the working folder, which lies in memory and is bounded; submissions, grades and the sources of
the course hidden; a process namespace, so that whatever was started ends with the student.

Limits of it: the kernel is shared. Files that the teacher may read can be read where they are not
hidden. The limit on processes does not bind the user root, nor does that on memory bind several
processes together; the end of the namespace does end them. Grade strangers' code in a container or
a virtual machine.
"""

import ctypes
import os
import resource
import struct
from pathlib import Path

MEMORY = 2 * 2**30
"""Bytes that a student's process may take beside what it is forked with."""

SECONDS = 40
"""Seconds of processor time at most."""

FILE = 16 * 2**20
"""Bytes of a file at most."""

_NEWNS, _NEWUSER, _NEWPID = 0x00020000, 0x10000000, 0x20000000
_PRIVATE = (1 << 18) | 16384  # MS_PRIVATE | MS_REC
_MOUNT_SETATTR, _RECURSIVE, _AT_FDCWD = 442, 0x8000, -100


def _call(name: str, *arguments: object) -> bool:
    """Call the C library; False if the system refuses, or does not know it."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    return function is not None and function(*arguments) == 0


def own_processes() -> bool:
    """Let the next process that is forked be the first of a namespace of its own."""
    return _call("unshare", _NEWPID)


def own_files(work: Path, hidden: list[str]) -> bool:
    """Make all that is mounted read-only, hide some folders, and mount a new working folder."""
    if not (_call("unshare", _NEWNS) and _call("mount", None, b"/", None, _PRIVATE, None)):
        return False
    there = [os.fsencode(path) for path in hidden if os.path.isdir(path)]
    size = b"size=64m"
    done = all(_call("mount", b"tmpfs", path, b"tmpfs", 0, b"size=4k") for path in there)
    read_only = struct.pack("QQQQ", 1, 0, 0, 0)
    done &= _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, b"/", _RECURSIVE, read_only, len(read_only))
    done &= _call("mount", b"tmpfs", os.fsencode(work), b"tmpfs", 0, size)
    # Mounts are locked for whoever is in a namespace below the one that made them.
    return done and _call("unshare", _NEWUSER)


def limit() -> None:
    """Set the limits that every system has."""
    pages = (
        int(Path("/proc/self/statm").read_text().split()[0]) if os.path.isdir("/proc/self") else 0
    )
    bounds = {
        resource.RLIMIT_CPU: SECONDS,
        resource.RLIMIT_AS: pages * resource.getpagesize() + MEMORY,
        resource.RLIMIT_FSIZE: FILE,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for which, bound in bounds.items():
        resource.setrlimit(which, (bound, bound))
