"""Files of facts, rewrites and cases: the project's own JSONL, and CounterFact.

Every reader checks the whole file before it returns anything. What does not fit raises
`MalformedRecord` with the file, the record and the field; what cannot be opened raises
`MissingFile`. Readers of other published collections are in `labkit.facts.datasets`.

References:
    CounterFact: Meng et al. (2022), Locating and Editing Factual Associations in GPT,
    section 3.4 and appendix D.
"""

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from labkit.facts.collections import published
from labkit.facts.fact import Case, Deletion, Fact, Neighbour, Rewrite
from labkit.fields import Record, records_of
from labkit.files import atomic_write

REWRITE_FIELDS = ("subject", "template", "prompt", "target_new", "target_true", "relation")
CASE_FIELDS = ("case_id", *REWRITE_FIELDS, "paraphrases", "neighbours", "attributes", "generation")
FACT_FIELDS = (
    "subject", "template", "prompt", "object", "relation", "paraphrases", "source", "aliases"
)  # fmt: skip


def read_facts(path: str | os.PathLike[str]) -> list[Fact]:
    """Facts of a JSONL file (or JSON array) in the project's format.

    A record has `subject`, `object` (may be null) and either `template` (with one `{}`) or
    `prompt` (the whole prompt); and may have `relation`, `paraphrases` (templates),
    `aliases` and `source`.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a record does not fit; with its line and field.
    """
    return [record.make(_fact) for record in records_of(path)]


def read_rewrites(path: str | os.PathLike[str]) -> list[Rewrite | Deletion]:
    """Rewrites of any file that `read_cases` reads; what else a record has is left out.

    A rewrite that is there twice, as in MQuAKE, is read once.
    A record of the project's format whose `target_new` is null asks for `target_true` to be
    forgotten: a deletion.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a record does not fit; with its line and field.
    """
    return list(dict.fromkeys(_of_different_ids(path, _requests)))


def read_cases(path: str | os.PathLike[str]) -> list[Case]:
    """Cases of a JSONL file in the project's format, or of a CounterFact file.

    The project's format has one flat object per line:

        {"case_id": "eiffel", "subject": "Eiffel Tower", "template": "The {} is in the city of",
         "target_new": "Rome", "target_true": "Paris", "relation": "landmark_city",
         "paraphrases": ["The city in which the Eiffel Tower stands is"],
         "neighbours": [{"prompt": "The Louvre is in the city of", "object": "Paris"}],
         "attributes": ["The Colosseum is in the city of"],
         "generation": ["Around the Eiffel Tower there are"]}

    Only `subject`, `target_new` and either `template` or `prompt` (the whole prompt, in which
    the subject is looked up) have to be there. `case_id` is the record's number by default.
    A JSON array of such objects is read too.

    Published collections are told by their fields and read too: CounterFact in both schemas,
    zsRE, EasyEdit, KnowEdit and MQuAKE; see `labkit.facts.collections`.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a record does not fit, or two have one id; with line and field.
    """
    return _of_different_ids(
        path, lambda index, record: [(case.case_id, case) for case in _cases(index, record)]
    )


T = TypeVar("T")


def _of_different_ids(
    path: str | os.PathLike[str], build: Callable[[int, Record], Iterable[tuple[str, T]]]
) -> list[T]:
    """The objects built from every record and its number; ids must differ."""
    built: dict[str, T] = {}
    for index, record in enumerate(records_of(path)):
        for name, made in record.make(partial(build, index)):
            if name in built:
                raise record.malformed(f"field 'case_id': {name!r} is taken by another record")
            built[name] = made
    return list(built.values())


def write_jsonl(path: str | os.PathLike[str], items: Iterable[Fact | Rewrite | Case]) -> None:
    """Write facts, rewrites or cases in the project's format, one per line.

    Raises:
        OutputError: If the file cannot be written.
    """
    lines = [json.dumps(to_record(item), ensure_ascii=False) for item in items]
    atomic_write(Path(path), "".join(f"{line}\n" for line in lines))


def to_record(item: Fact | Rewrite | Case) -> dict[str, Any]:
    """A fact, rewrite or case as a JSON-ready object; empty fields are left out."""
    fields: dict[str, Any] = dict(vars(item))
    if isinstance(item, Case):
        rewrite = fields.pop("rewrite")
        case_id = fields.pop("case_id")
        fields["neighbours"] = [dict(vars(neighbour)) for neighbour in item.neighbours]
        fields = {"case_id": case_id, **vars(rewrite), **fields}
    kept = {name: value for name, value in fields.items() if value not in (None, (), [])}
    if isinstance(item, Fact):
        kept["object"] = item.object
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()
    }


def _fact(record: Record) -> Fact:
    """A fact of the project's format."""
    record.only(FACT_FIELDS)
    subject, template = _question(record)
    return Fact(
        subject=subject,
        template=template,
        object=record.get("object", str) if record.has("object") else None,
        relation=_optional(record, "relation"),
        paraphrases=_optional_texts(record, "paraphrases"),
        source=_optional(record, "source"),
        aliases=_optional_texts(record, "aliases"),
    )


def _cases(index: int, record: Record) -> list[Case]:
    """The cases of a record, of whichever format its fields belong to; mostly one."""
    found = published(record, _case_id(record, index))
    if found is not None:
        return found
    record.only(CASE_FIELDS)
    subject, template = _question(record)
    neighbours = record.parts("neighbours") if record.has("neighbours") else []
    case = Case(
        case_id=_case_id(record, index),
        rewrite=Rewrite(
            subject=subject,
            template=template,
            target_new=record.get("target_new", str),
            target_true=_optional(record, "target_true"),
            relation=_optional(record, "relation"),
        ),
        paraphrases=_optional_texts(record, "paraphrases"),
        neighbours=tuple(part.make(_neighbour) for part in neighbours),
        attributes=_optional_texts(record, "attributes"),
        generation=_optional_texts(record, "generation"),
    )
    return [case]


def _requests(index: int, record: Record) -> list[tuple[str, Rewrite | Deletion]]:
    """The rewrites of a record, or its deletion, each with its case's id."""
    if "target_new" not in record.fields or record.has("target_new"):
        return [(case.case_id, case.rewrite) for case in _cases(index, record)]
    record.only(CASE_FIELDS)
    subject, template = _question(record)
    forgotten = Deletion(
        subject=subject,
        template=template,
        target_true=record.get("target_true", str),
        relation=_optional(record, "relation"),
    )
    return [(_case_id(record, index), forgotten)]


def _neighbour(record: Record) -> Neighbour:
    """A neighbour of the project's format."""
    record.only(("prompt", "object"))
    return Neighbour(prompt=record.get("prompt", str), object=record.get("object", str))


def _question(record: Record) -> tuple[str, str]:
    """Subject and template, the template found in the whole prompt where that is given."""
    subject = record.get("subject", str)
    if record.has("template") == record.has("prompt"):
        raise record.malformed("needs either the field 'template' (with {}) or 'prompt' (without)")
    if record.has("template"):
        return subject, record.get("template", str)
    fact = Fact.from_prompt(record.get("prompt", str), subject)
    return fact.subject, fact.template


def _case_id(record: Record, index: int) -> str:
    """The id as text; the record's number where there is none."""
    if not record.has("case_id"):
        return str(index)
    value = record.fields["case_id"]
    return str(value) if isinstance(value, int) else record.get("case_id", str)


def _optional(record: Record, name: str) -> str | None:
    """A text that may be missing."""
    return record.get(name, str) if record.has(name) else None


def _optional_texts(record: Record, name: str) -> tuple[str, ...]:
    """A list of texts that may be missing."""
    return record.texts(name) if record.has(name) else ()
