"""Kill commands in the middle of writing, and look for what is left.

    python -m tests.benchmarks.kills              # 40 kills over six commands, seed 0
    python -m tests.benchmarks.kills --kills 100 --seed 3

Each command runs on the pocket model with a cache of its own, first undisturbed: how long it
takes, and what it writes. Then it is killed (`kill -9`), every other time at a random moment,
otherwise a random moment after its first temporary file is there, and started again in the
same words. It holds if then

1. what stood at the place of the output was nothing, a whole output, or a run to resume;
2. the second start ends well, or is refused because the output is whole;
3. what it wrote is what the undisturbed one wrote, seconds and moments aside;
4. no temporary file is left, beside the outputs or in the cache.

A process is a fork of one that has imported everything: kills then hit the work, not imports.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

MODEL = ("--model", "pocket")
KINDS: dict[str, tuple[str, ...]] = {
    "trace": (
        *("trace", *MODEL, "--prompt", "The Nukor Tower stands in", "--subject", "Nukor Tower"),
        *("--samples", "2", "--out", "{out}"),
    ),
    "trace --facts": ("trace", *MODEL, "--facts", "{facts}", "--samples", "2", "--out", "{out}"),
    "probe map": (
        *("probe", "map", *MODEL, "--tasks", "relation", "--n-train", "60"),
        *("--depths", "0-2", "--out", "{out}"),
    ),
    "export hf": ("export", *MODEL, "--delta", "{delta}", "--out", "{out}"),
    "export gguf": (
        *("export", "--model", "random-llama", "--delta", "{other_delta}"),
        *("--format", "gguf", "--base", "{gguf}", "--out", "{out}"),
    ),
    "evaluate": (
        *("evaluate", *MODEL, "--cases", "{cases}", "--method", "rome"),
        *("--tokens", "0", "--out", "{out}"),
    ),
}
"""Commands that write, by what the table calls them; in braces what `material` makes."""

TIMED = ("seconds", "started", "date", "out", "created")
"""Entries of JSON that differ between two runs of the same thing."""

IMPORTED = ("editing.evaluation.many_cases", "labkit.models.loading", "probes.probing.map")
"""Behind these stands what takes seconds to import."""

TOO_LONG = 120
"""Seconds after which a command that nobody kills is given up."""


@dataclass
class Row:
    """What the kills of one command came to."""

    kills: int = 0
    late: int = 0
    temporary: int = 0
    half: int = 0
    refused: int = 0
    other: int = 0
    left: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.half or self.refused or self.other or self.left)


def start(arguments: list[str], log: Path) -> int:
    """Run a command line in a fork of this process; its id."""
    from labkit import cli
    from labkit.cli.ending import run

    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        into = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(into, 1)
        os.dup2(into, 2)
        status = int(run(cli.app, arguments))
    finally:
        os._exit(status)


def finish(pid: int) -> int:
    """Wait for a process to end; its exit status, negative for a signal."""
    limit = time.monotonic() + TOO_LONG
    while time.monotonic() < limit:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise SystemExit(f"a command ran for more than {TOO_LONG} s")


def kill(pid: int, when: Callable[[], bool]) -> bool:
    """Kill a process at a moment; whether it was still running."""
    while not when():
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def temporaries(root: Path) -> list[Path]:
    """Temporary files and folders anywhere below a folder."""
    found = []
    for folder, folders, files in os.walk(root):
        found += [Path(folder) / name for name in (*folders, *files) if name.endswith(".tmp")]
    return found


def written(out: Path) -> dict[str, str]:
    """What a command wrote, by path: digests, without what differs from run to run."""
    found = {}
    for path in sorted(out.rglob("*")) if out.is_dir() else [out]:
        skipped = path.suffix in (".html", ".md") or path.name in ("environment.json", ".lock")
        if not path.is_file() or skipped or path.name.startswith("."):
            continue
        data = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            lines = data.decode().splitlines() if path.suffix == ".jsonl" else [data.decode()]
            data = json.dumps([_untimed(json.loads(line)) for line in lines]).encode()
        found[str(path.relative_to(out))] = hashlib.sha256(data).hexdigest()
    return found


def _untimed(value: object) -> object:
    """JSON without its times."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not any(word in k for word in TIMED)}
        return {k: _untimed(v) for k, v in kept.items()}
    return [_untimed(v) for v in value] if isinstance(value, list) else value


def material(root: Path) -> dict[str, str]:
    """Everything that the commands are handed, made by a process of its own: see the module."""
    files = {name: str(root / name) for name in ("facts", "cases", "delta", "other_delta", "gguf")}
    pid = os.fork()
    if not pid:
        status = 1
        try:
            _make(files)
            status = 0
        finally:
            os._exit(status)
    if finish(pid):
        raise SystemExit("the material could not be made")
    return files


def _make(files: dict[str, str]) -> None:
    from editing.edits.delta import LowRank, WeightDelta
    from labkit import load
    from labkit.facts.records import to_record, write_jsonl
    from labkit.pocket import demo_case, facts
    from tests.editing.export.test_export_gguf import write_base

    case = demo_case()
    write_jsonl(Path(files["cases"]), [case])
    write_jsonl(Path(files["facts"]), [f for f in facts() if f.relation == "landmark_city"][:4])
    for name, folder in (("pocket", "delta"), ("random-llama", "other_delta")):
        model = load(name)
        rows, columns = model.hf.get_parameter(model.ffn_out_name(1)).shape
        change = LowRank(torch.full((rows, 1), 0.01), torch.ones(1, columns))
        said = {"method": "planted", "rewrites": [to_record(case.rewrite)]}
        delta = WeightDelta({model.ffn_out_name(1): change}, model.fingerprint, said)
        delta.save(Path(files[folder]))
    write_base(model, Path(files["gguf"]))


def command(kind: str, given: dict[str, str], out: Path) -> list[str]:
    """The command line of a kind."""
    return [part.format(**given, out=out) for part in KINDS[kind]]


def once(kind: str, given: dict[str, str], root: Path) -> tuple[float, dict[str, str]]:
    """Run a command undisturbed: seconds, and what it writes."""
    os.environ["LABKIT_CACHE"] = str(root / "cache")
    began = time.monotonic()
    status = finish(start(command(kind, given, root / "out"), root / "log"))
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"{kind} ends in {status}: {(root / 'log').read_text()[-400:]}")
    return seconds, written(root / "out")


def attempt(kind: str, given: dict[str, str], root: Path, moment: float, watch: bool) -> bool:
    """Kill a command `moment` seconds after its start, or after its first temporary file."""
    os.environ["LABKIT_CACHE"] = str(root / "cache")
    began: list[float] = []

    def when() -> bool:
        if not began and (not watch or temporaries(root)):
            began.append(time.monotonic())
        return bool(began) and time.monotonic() - began[0] >= moment

    pid = start(command(kind, given, root / "out"), root / "log")
    return kill(pid, when)


def judge(kind: str, given: dict[str, str], root: Path, whole: dict[str, str], row: Row) -> None:
    """Start a killed command again, and count what does not hold."""
    out = root / "out"
    row.temporary += bool(temporaries(root))
    before = written(out) if out.exists() else None
    resumes = (out / "config.json").is_file() and (out / "environment.json").is_file()
    ready = before == whole
    if before and not ready and not resumes:
        row.half += 1
        print(f"{kind}: half an output, {sorted(before)}")
    log = root / "again"
    status = finish(start(command(kind, given, out), log))
    if status and not ready:
        row.refused += 1
        print(f"{kind}: the second start ends in {status}: {log.read_text()[-300:]}")
    elif written(out) != whole:
        row.other += 1
        found = written(out)
        names = sorted(n for n in {*found, *whole} if found.get(n) != whole.get(n))
        print(f"{kind}: another output, {names}")
    if not status and temporaries(root):
        row.left += 1
        print(f"{kind}: left behind {[p.name for p in temporaries(root)]}")


def main() -> None:
    """Kill, start again, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one kind of command")
    asked = parser.parse_args()
    for module in IMPORTED:
        importlib.import_module(module)
    torch.set_num_threads(1)
    draw = random.Random(asked.seed)
    kinds = [kind for kind in KINDS if asked.only in (None, kind)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        given = material(root)
        rows, known = {kind: Row() for kind in kinds}, {}
        for kind in kinds:
            (root / "once").mkdir()
            known[kind] = once(kind, given, root / "once")
            shutil.rmtree(root / "once")
            print(f"{kind}: {known[kind][0]:.1f} s, {len(known[kind][1])} file(s)", flush=True)
        for i in range(asked.kills):
            kind, watch = kinds[i % len(kinds)], bool(i // len(kinds) % 2)
            seconds, whole = known[kind]
            here = root / f"kill{i}"
            here.mkdir()
            moment = draw.uniform(0, 0.01 if watch else seconds)
            rows[kind].kills += 1
            rows[kind].late += not attempt(kind, given, here, moment, watch)
            judge(kind, given, here, whole, rows[kind])
            shutil.rmtree(here)
    heads = "kills late temporary half refused other left".split()
    print(f"{'':14}" + "".join(f"{head:>10}" for head in heads))
    for kind, row in rows.items():
        print(f"{kind:14}" + "".join(f"{getattr(row, head):10}" for head in heads))
    sys.exit(not all(row.holds for row in rows.values()))


if __name__ == "__main__":
    main()
