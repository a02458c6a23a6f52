"""Where places lie, as numbers: the table of Gurnee and Tegmark, read from a path.

A place's name stands alone, and latitude or longitude is read at its last token; the table says
which places are for testing. A bag of tokens can do what a language gives away ("Lake", "Saint",
Portuguese spelling): it is the baseline.

References:
    Gurnee and Tegmark (2023), Language Models Represent Space and Time, section 2.
"""

import csv
import io
import os

from labkit.errors import MalformedRecord
from labkit.fields import text_of
from probes.tasks.factual import subject_task
from probes.tasks.task import Label, Task


def read_places(
    path: str | os.PathLike[str], *, coordinate: str = "latitude", least_views: float = 0.0
) -> Task:
    """Latitude or longitude of places: the table of Gurnee and Tegmark (2023), with its split.

    Args:
        path: The CSV file (name, latitude, longitude, page_views, is_test, ...).
        coordinate: "latitude" or "longitude", in degrees.
        least_views: Places whose article is read less often are left out.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If it lacks a column, or a number is none; with the line.
    """
    table = csv.DictReader(io.StringIO(text_of(path)))
    needed = ("name", coordinate, "page_views", "is_test")
    absent = [column for column in needed if column not in (table.fieldnames or ())]
    if absent:
        raise MalformedRecord(f"{path}: no column {absent[0]!r} in {table.fieldnames}")
    labels: dict[str, Label] = {}
    held_out = set()
    for row in table:
        try:
            degrees, views = float(row[coordinate]), float(row["page_views"])
        except (TypeError, ValueError) as error:
            raise MalformedRecord(f"{path}, line {table.line_num}: {error}") from error
        name = row["name"].strip()
        if not name or abs(degrees) > 180 or row["is_test"] not in ("True", "False"):
            raise MalformedRecord(f"{path}, line {table.line_num}: not a place: {row}")
        if views >= least_views and name not in labels:
            labels[name] = degrees
            held_out |= {name} if row["is_test"] == "True" else set()
    return subject_task(
        coordinate,
        labels,
        source="world places of Gurnee and Tegmark",
        numeric=True,
        openings=("{}",),
        held_out=held_out,
    )
