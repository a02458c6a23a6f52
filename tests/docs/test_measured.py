"""Every measured number says its version, its machine and its command."""

import csv
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLES = sorted((DOCS / "measured").glob("*.csv"))
PROVENANCE = ("version", "machine", "command", "date")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *found = list(csv.reader(file, strict=True))
    assert len(set(header)) == len(header)
    assert all(len(row) == len(header) for row in found)
    return [dict(zip(header, row, strict=True)) for row in found]


def test_there_are_tables():
    assert len(TABLES) > 5


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_row_says_where_it_comes_from(path):
    found = rows(path)
    assert found
    for row in found:
        assert all(row[name].strip() for name in PROVENANCE), row
        assert re.fullmatch(r"\d+\.\d+\.\d+", row["version"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"])
        assert "core" in row["machine"] and "thread" in row["machine"]
        assert row["command"].split()[0] in ("labkit", "python", "jupyter")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_an_interval_holds_its_number(path):
    for row in rows(path):
        for text in row.values():
            for value, low, high in re.findall(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text):
                assert float(low) <= float(value) <= float(high), row


def test_the_page_shows_every_table():
    shown = re.findall(r":file: measured/(\w+)\.csv", (DOCS / "measured.md").read_text("utf-8"))
    assert sorted(shown) == [path.stem for path in TABLES]
