"""Readers of published fact collections: known_1000, LRE, PopQA, MQuAKE.

None of them ships with the package: each reader takes a path. All check the whole file
before they return anything, and raise `MalformedRecord` with the record and the field, or
`MissingFile`. CounterFact is read by `labkit.facts.records.read_cases`.

References:
    known_1000: Meng et al. (2022), Locating and Editing Factual Associations in GPT.
    LRE: Hernandez et al. (2024), Linearity of Relation Decoding in Transformer LMs.
    PopQA: Mallen et al. (2023), When Not to Trust Language Models.
    MQuAKE: Zhong et al. (2023), MQuAKE: Assessing Knowledge Editing via Multi-Hop Questions.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.errors import MalformedRecord
from labkit.facts.collections import counterfact_rewrite
from labkit.facts.fact import Fact, Relation, Rewrite
from labkit.fields import Record, parse, records_of, text_of


@dataclass(frozen=True, kw_only=True)
class OpenQuestion:
    """A question with all its right answers, as in PopQA.

    Attributes:
        question: The question in words.
        answers: Every answer that counts as right, the most usual first.
        subject_views: Monthly page views of the subject's article, its popularity.
        object_views: Monthly page views of the answer's article.
        subject: Whom or what is asked about, where the file tells.
        relation: What is asked, where the file tells.
    """

    question: str
    answers: tuple[str, ...]
    subject_views: int
    object_views: int
    subject: str | None = None
    relation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One step of a chain: a single fact, asked as a question and as a prompt to continue.

    Attributes:
        question: The question in words.
        cloze: The prompt that the answer continues.
        answer: The answer; it is the subject of the next hop.
        aliases: Other names of the answer.
    """

    question: str
    cloze: str
    answer: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MultiHop:
    """A question over a chain of facts, some of which are rewritten, as in MQuAKE.

    Attributes:
        case_id: Name of the record.
        rewrites: The rewrites, to be made together.
        questions: Wordings of the question about the end of the chain.
        answer: The answer before the rewrites.
        answer_aliases: Its other names.
        new_answer: The answer that follows from the rewrites.
        new_answer_aliases: Its other names.
        hops: The chain before the rewrites.
        new_hops: The chain after them.
    """

    case_id: str
    rewrites: tuple[Rewrite, ...]
    questions: tuple[str, ...]
    answer: str
    answer_aliases: tuple[str, ...]
    new_answer: str
    new_answer_aliases: tuple[str, ...]
    hops: tuple[Hop, ...]
    new_hops: tuple[Hop, ...]


def read_known(path: str | os.PathLike[str]) -> list[Fact]:
    """Facts of the known_1000 file (facts that GPT-2 XL completes; ask your own model again).

    The template is made from the whole prompt: the file's own `template` stops short of it.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a record does not fit; with its place and field.
    """
    return [record.make(_known) for record in records_of(path)]


def read_relations(path: str | os.PathLike[str]) -> list[tuple[Relation, tuple[Fact, ...]]]:
    """Relations of the LRE collection, each with its facts: one file, or a folder of them.

    Space around names is dropped; a sample that is there twice is kept once.

    Raises:
        MissingFile: If the path cannot be read.
        MalformedRecord: If a file or sample does not fit, or a folder holds no JSON file.
    """
    path = Path(path)
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise MalformedRecord(f"{path}: the folder holds no JSON file")
    return [_object_of(file).make(_relation) for file in files]


def read_questions(path: str | os.PathLike[str]) -> list[OpenQuestion]:
    """Questions of PopQA: the full table, or a sample split into `dev` and `test`.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a record does not fit; with its place and field.
    """
    if text_of(path).lstrip().startswith("["):
        return [record.make(_popqa) for record in records_of(path)]
    splits = _object_of(path)
    return [
        record.make(_popqa_sample) for split in ("dev", "test") for record in splits.parts(split)
    ]


def read_multihop(path: str | os.PathLike[str]) -> list[MultiHop]:
    """Records of MQuAKE (the CF, T and hard slices share one schema).

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a record does not fit; with its place and field.
    """
    return [record.make(_multihop) for record in records_of(path)]


def _object_of(path: str | os.PathLike[str]) -> Record:
    """A file that is one JSON object."""
    return Record.of(str(path), parse(text_of(path), str(path)))


def _known(record: Record) -> Fact:
    """A fact of known_1000."""
    fact = Fact.from_prompt(
        record.get("prompt", str), record.get("subject", str), record.get("attribute", str)
    )
    relation = record.get("relation_id", str) if record.has("relation_id") else None
    return replace(fact, relation=relation, source="known_1000")


def _relation(record: Record) -> tuple[Relation, tuple[Fact, ...]]:
    """A relation of LRE and its facts."""
    properties = record.part("properties")
    name = record.get("name", str)
    templates = record.texts("prompt_templates")
    zero_shot = record.texts("prompt_templates_zs") if record.has("prompt_templates_zs") else ()
    relation = Relation(
        id=name.replace(" ", "_"),
        description=name,
        templates=tuple(dict.fromkeys((*templates, *zero_shot))),
        subject_type=properties.get("domain_name", str),
        object_type=properties.get("range_name", str),
        kind=properties.get("relation_type", str),
    )
    facts = [
        sample.make(
            lambda sample: Fact(
                subject=sample.get("subject", str).strip(),
                template=relation.templates[0],
                object=sample.get("object", str).strip(),
                relation=relation.id,
                paraphrases=relation.templates[1:],
                source="LRE",
            )
        )
        for sample in record.parts("samples")
    ]
    return relation, tuple(dict.fromkeys(facts))


def _popqa(record: Record) -> OpenQuestion:
    """A row of PopQA's full table."""
    return OpenQuestion(
        question=record.get("question", str),
        answers=_answers(record, "possible_answers"),
        subject_views=record.get("s_pop", int),
        object_views=record.get("o_pop", int),
        subject=record.get("subj", str),
        relation=record.get("prop", str),
    )


def _popqa_sample(record: Record) -> OpenQuestion:
    """A row of a PopQA sample, which tells neither subject nor relation."""
    return OpenQuestion(
        question=record.get("input", str),
        answers=_answers(record, "output"),
        subject_views=record.get("s_pop", int),
        object_views=record.get("o_pop", int),
    )


def _answers(record: Record, name: str) -> tuple[str, ...]:
    """The answers, which PopQA writes as a JSON list inside a text."""
    where = f"{record.where}, field {name!r}"
    answers = Record(where, {name: parse(record.get(name, str), where)}).texts(name)
    if not any(answer.strip() for answer in answers):
        raise record.malformed(f"field {name!r} holds no answer")
    return tuple(dict.fromkeys(answer for answer in answers if answer.strip()))


def _multihop(record: Record) -> MultiHop:
    """A record of MQuAKE."""
    return MultiHop(
        case_id=str(record.get("case_id", int)),
        rewrites=tuple(
            part.make(counterfact_rewrite) for part in record.parts("requested_rewrite")
        ),
        questions=record.texts("questions"),
        answer=record.get("answer", str),
        answer_aliases=record.texts("answer_alias"),
        new_answer=record.get("new_answer", str),
        new_answer_aliases=record.texts("new_answer_alias"),
        hops=tuple(part.make(_hop) for part in record.parts("single_hops")),
        new_hops=tuple(part.make(_hop) for part in record.parts("new_single_hops")),
    )


def _hop(record: Record) -> Hop:
    """One hop of MQuAKE."""
    return Hop(
        question=record.get("question", str),
        cloze=record.get("cloze", str),
        answer=record.get("answer", str),
        aliases=record.texts("answer_alias"),
    )
