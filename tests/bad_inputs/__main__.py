"""Run the lines, print what is not as it should be, and a summary by kind."""

import argparse
import json
import os
import resource
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from tests.bad_inputs.lines import LINES
from tests.bad_inputs.runner import GOOD, Found, workshop


def main() -> int:
    """Run all lines, or those of one kind; 1 if one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=sorted(LINES), action="append")
    parser.add_argument("--out", type=Path, help="what became of each, as JSON")
    parser.add_argument("--all", action="store_true", help="show every line")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
    found: list[Found] = []
    with workshop() as shop:
        for kind in asked.kind or LINES:
            for line, wanted in LINES[kind]:
                one = shop.run(kind, line, wanted)
                found.append(one)
                if asked.all or one.verdict not in GOOD:
                    show(told(one))
    if asked.out is not None:
        asked.out.write_text(json.dumps([asdict(one) | {"verdict": one.verdict} for one in found]))
    for kind in dict.fromkeys(one.kind for one in found):
        show(counted(kind, [one for one in found if one.kind == kind]))
    show(counted("all", found))
    return int(any(one.verdict not in GOOD for one in found))


def show(line: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def told(one: Found) -> str:
    """What became of a line."""
    shown = " ".join(repr(part) if len(part) < 60 else "..." for part in one.line)
    return (
        f"{one.verdict}: {shown}\n    {one.status}, {one.lines} line(s), {one.seconds:.1f} s: "
        f"{one.said[:300]} {one.left[:4]} {one.changed[:4]}"
    )


def counted(name: str, found: list[Found]) -> str:
    """How many lines ended in which way."""
    count = Counter(one.verdict for one in found)
    slowest = max(one.seconds for one in found)
    return f"{name:10} {len(found):4} lines, slowest {slowest:.1f} s: {dict(count)}"


if __name__ == "__main__":
    raise SystemExit(main())
