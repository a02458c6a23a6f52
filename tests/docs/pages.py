"""Code blocks of the site's pages: read, run one after the other, and made to fit a small model.

    python -m tests.docs.pages docs/guide/*.md             # do they print what they show?
    python -m tests.docs.pages --write docs/guide/start.md     # show what they print

A text block directly behind a Python block is what that prints on the default model. The suite runs
the Python blocks on the pocket model; the lines above run them on the default one, which takes
minutes. `% not run: REASON` on the line before a block keeps it from being run.
"""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs/index.md", *sorted((ROOT / "docs/guide").glob("*.md"))]

FENCE = re.compile(
    r"^(?:% not run:(?P<reason>[^\n]*)\n)?```(?P<lang>\w+)\n(?P<code>.*?)^```", re.S | re.M
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: Such as "python", "sh", "text".
        code: What it holds.
        reason: Why it is not run; None where it is.
        line: Number of its first line in the page.
        shown: The text block that follows it directly: what it prints on the real model.
    """

    language: str
    code: str
    reason: str | None
    line: int
    shown: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    made = []
    for match, after in zip_longest(found, found[1:]):
        shown = None
        if after is not None and after["lang"] == "text":
            shown = None if text[match.end() : after.start()].strip() else after["code"]
        line = text.count("\n", 0, match.start("code")) + 1
        made.append(Block(match["lang"], match["code"], match["reason"], line, shown))
    return made


def in_the_pocket_world(code: str) -> str:
    """A block with models, prompts and objects of the real world replaced by those of `pocket`."""
    for real, invented in POCKET:
        code = code.replace(real, invented)
    return code


POCKET = (
    ("smollm2-135m", "pocket"),
    ("known_cases(model, 10)", "known_cases(model, 3)"),
    ("known_cases(model, 4)", "known_cases(model, 2)"),
    ("known_cases(small, 4)", "known_cases(small, 2)"),
    ("few = cases[:3]", "few = cases[:2]"),
    ("MEMIT()", "MEMIT(n_contexts=2)"),
    ("EMMET()", "EMMET(n_contexts=2)"),
    ("The Eiffel Tower is located in the city of", "Vukor Tower is located in the city of"),
    ("The Louvre is located in the city of", "Vukor Gate is located in the city of"),
    ("The Louvre can be found in the city of", "Visitors who want to see Vukor Gate travel to"),
    ("The Prado is located in the city of", "Stinor Bridge is located in the city of"),
    ("The {} is located in the city of", "{} is located in the city of"),
    ("Eiffel Tower", "Vukor Tower"),
    ("Louvre", "Vukor Gate"),
    ("Paris Rome Madrid Berlin London Vienna Dublin Oslo",
     "Stekamere Rekaburg Skilehaven Skotahaven Roruburg Gralumere Dekeford Feleholm"),
    ("France Italy Spain Germany Poland Ireland Norway Greece",
     "Vukor Skoteshi Stinor Druveshi Droleshi Brarago Fludor Drekeshi"),
    ('"Paris"', '"Stekamere"'),
    ('"Rome"', '"Bromomere"'),
    ('"Madrid"', '"Stekamere"'),
    ('"Berlin"', '"Gralumere"'),
)  # fmt: skip


def run(page: Path, *, pocket: bool) -> Iterator[tuple[Block, str]]:
    """Run the Python blocks of a page in one namespace; yields each with what it prints.

    Args:
        page: The page.
        pocket: Whether to run them in the pocket model's world.
    """
    names: dict = {"__name__": page.stem}
    for block in blocks(page):
        if block.language != "python" or block.reason is not None:
            continue
        code = in_the_pocket_world(block.code) if pocket else block.code
        # Errors then name the page and the line.
        compiled = compile("\n" * (block.line - 1) + code, str(page), "exec")
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compiled, names)
        yield block, printed.getvalue()


def checked(page: Path, *, write: bool) -> int:
    """Run a page on the default model; the number of blocks that do not show what they print.

    Args:
        page: The page.
        write: Whether to put there what they print.
    """
    text = page.read_text(encoding="utf-8")
    wrong = 0
    with TemporaryDirectory() as folder, chdir(folder):
        for block, printed in run(page, pocket=False):
            now = "\n".join(line.rstrip() for line in printed.rstrip().splitlines()) + "\n"
            if block.shown is None or now == block.shown:
                continue
            wrong += 1
            sys.stdout.write(f"{page}:{block.line} prints\n{now}\n")
            before = f"{block.code}```\n\n```text\n"
            text = text.replace(before + block.shown, before + now, 1)
    if write and wrong:
        page.write_text(text, encoding="utf-8")
    return wrong


if __name__ == "__main__":
    asked = [name for name in sys.argv[1:] if name != "--write"]
    wrong = sum(checked(Path(name).resolve(), write="--write" in sys.argv) for name in asked)
    sys.exit(f"{wrong} blocks print something else than they show" if wrong else 0)
