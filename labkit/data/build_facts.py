"""Build `facts.jsonl` from the hand-written lists and from well-kept packages.

    python -m labkit.data.build_facts

`relations.jsonl` is written by hand. A relation's facts come from `written/ID.txt` or, where
there is one, from the function of that name in `labkit.data.derived`.
"""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from labkit.data.derived import DERIVED, written
from labkit.errors import InputError
from labkit.facts.bundled import bundled_relations
from labkit.files import atomic_write

HERE = Path(__file__).parent


def build() -> list[dict[str, Any]]:
    """Every row of `facts.jsonl`, relation by relation.

    Raises:
        InputError: If a relation gives one subject two objects.
    """
    derive = {function.__name__: function for function in DERIVED}
    facts = []
    for relation in bundled_relations():
        rows = derive[relation]() if relation in derive else written(relation)
        seen: dict[str, str] = {}
        for row in rows:
            if row.subject in seen:
                raise InputError(
                    f"{relation}: {row.subject!r} has two objects, "
                    f"{seen[row.subject]!r} and {row.object!r}"
                )
            seen[row.subject] = row.object
            fact: dict[str, Any] = {
                "relation": relation,
                "subject": row.subject,
                "object": row.object,
            }
            if row.aliases:
                fact["aliases"] = list(dict.fromkeys(row.aliases))
            facts.append({**fact, "source": row.source})
    return facts


def main() -> None:
    """Write `facts.jsonl` and say how much is in it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    facts = build()
    lines = (json.dumps(fact, ensure_ascii=False) + "\n" for fact in facts)
    atomic_write(HERE / "facts.jsonl", "".join(lines))
    counts = Counter(fact["relation"] for fact in facts)
    for relation, count in counts.items():
        logging.info("%5d  %s", count, relation)
    logging.info("%5d  facts of %d relations", len(facts), len(counts))


if __name__ == "__main__":
    main()
