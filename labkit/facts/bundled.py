"""The project's own facts and relations, which ship with the package.

Each row of the files says where it comes from. Which of the facts a given model knows is
measured, not assumed: see `known_facts` in `labkit.facts.known`.
"""

import json
from importlib import resources
from typing import Any

from labkit.errors import InputError
from labkit.facts.fact import Fact, Relation


def bundled_relations() -> dict[str, Relation]:
    """The project's own relations by id, in the order of the file."""
    relations = (
        Relation(**{**row, "templates": tuple(row["templates"])})
        for row in _bundled("relations.jsonl")
    )
    return {relation.id: relation for relation in relations}


def bundled_facts(relation: str | None = None) -> list[Fact]:
    """The project's own facts, of one relation or of all, in the order of the file.

    Raises:
        InputError: If there is no such relation.
    """
    relations = bundled_relations()
    if relation is not None and relation not in relations:
        raise InputError(f"no relation {relation!r}; there are {', '.join(relations)}")
    return [
        Fact(
            subject=row["subject"],
            template=relations[row["relation"]].templates[0],
            object=row["object"],
            relation=row["relation"],
            paraphrases=relations[row["relation"]].templates[1:],
            source=row["source"],
            aliases=tuple(row.get("aliases", ())),
        )
        for row in _bundled("facts.jsonl")
        if relation in (None, row["relation"])
    ]


def _bundled(name: str) -> list[dict[str, Any]]:
    """The rows of one of the package's own JSONL files."""
    text = resources.files("labkit.data").joinpath(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
