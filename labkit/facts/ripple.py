"""Reader of RippleEdits: edits, and the queries that they should and should not change.

    ripples = read_ripple_edits("popular.json")
    ripples.edits[0].rewrite, ripples.edits[0].tests["Compositionality_I"]

A record has the edit as a sentence ("The name of the mother of X is Y."), not as subject and
object: both are recovered from the sentence by the shapes that the benchmark writes them in.
Where that cannot be done, or the sentence names no object (some published ones do not), the
record is left out and listed in `left_out`. A record of another structure is an error.

References:
    Cohen et al. (2024), Evaluating the Ripple Effects of Knowledge Editing in Language
    Models; the files are `data/benchmark/*.json` of its repository.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labkit.errors import InputError
from labkit.facts.fact import Rewrite
from labkit.fields import Record, records_of

CRITERIA = (
    "Relation_Specificity",
    "Logical_Generalization",
    "Subject_Aliasing",
    "Compositionality_I",
    "Compositionality_II",
    "Forgetfulness",
)
"""The benchmark's six kinds of tests. The first and the last ask for what should stay."""

_SPELLINGS = {"Relation_Specificity": "Relation_Specifity"}  # as its documentation has it
_BEFORE = ("original_fact", "previous_fact")  # the fact that was true, by edition of the files

# The subject in the sentence of an edit, the most particular shapes first.
_SHAPES = tuple(
    re.compile(rf"^(?P<prompt>{shape}) (?P<object>.+)\.$")
    for shape in (
        r"The name of the (?:country|ethnic group|religion) which (?P<subject>.+?) "
        r"is associated with is",
        r"The name of the sports team which (?P<subject>.+?) is a member of is",
        r"The name of the league which (?P<subject>.+?) plays in is",
        r"The name of the continent which (?P<subject>.+?) is part of is",
        r"The name of the country which (?P<subject>.+?) is the capital of is",
        r"The name of the award (?P<subject>.+?) won is",
        r"The number of children (?P<subject>.+?) has is",
        r"The name of the position held by (?P<subject>.+?) is",
        r"The name of the currency in (?P<subject>.+?) is",
        r"The names? of the (?:country of citizenship|field of work|head of government"
        r"|head of state) of (?P<subject>.+?) (?:is|are)",
        r"The (?:place|date) of (?:birth|death|burial) of (?P<subject>.+?) is",
        r"The names? of the (?:\w+ ){1,2}?of (?P<subject>.+?) (?:is|are)",
        r"The (?!names? of )(?:\w+ ){1,2}?of (?P<subject>.+?) is",
        r"(?P<subject>.+?) is followed by",
        r"(?P<subject>.+?) follows",
    )
)


@dataclass(frozen=True, kw_only=True)
class RippleQuery:
    """A prompt, and everything that may follow it.

    Attributes:
        prompt: The prompt to continue.
        answers: Right answers, the first with its other names right after it.
    """

    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RippleTest:
    """Queries that are asked together, and what a model has to know for them to be fair.

    Attributes:
        queries: The queries.
        every: Whether each must be answered, or any one of them is enough.
        conditions: Queries that the unedited model has to answer already.
    """

    queries: tuple[RippleQuery, ...]
    every: bool
    conditions: tuple[RippleQuery, ...]


@dataclass(frozen=True, kw_only=True)
class RippleEdit:
    """An edit and its tests.

    Attributes:
        case_id: Place in the file, "popular-17".
        rewrite: The edit.
        tests: By criterion, its tests.
    """

    case_id: str
    rewrite: Rewrite
    tests: dict[str, tuple[RippleTest, ...]]


@dataclass(frozen=True, kw_only=True)
class RippleEdits(Sequence[RippleEdit]):
    """The edits of a file, and why some are not there.

    Attributes:
        edits: The edits.
        left_out: One line per record that is no usable edit: where it is, and why.
    """

    edits: tuple[RippleEdit, ...]
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        """Number of edits."""
        return len(self.edits)

    def __getitem__(self, index):
        """The edit (or slice of edits) at an index."""
        return self.edits[index]

    def __iter__(self) -> Iterator[RippleEdit]:
        """The edits, in the order of the file."""
        return iter(self.edits)


def read_ripple_edits(path: str | os.PathLike[str]) -> RippleEdits:
    """The edits of a RippleEdits file.

    Raises:
        MissingFile: If the file cannot be read.
        MalformedRecord: If a record does not have the benchmark's fields; with its place.
    """
    edits, left_out = [], []
    for number, record in enumerate(records_of(path)):
        kind = record.get("example_type", str)
        edit = record.part("edit")
        tests = {criterion: _tests(record, criterion) for criterion in CRITERIA}
        stated = edit.get("prompt", str)
        replaced = next((edit.part(n).get("prompt", str) for n in _BEFORE if edit.has(n)), None)
        try:
            rewrite = _rewrite(stated, replaced)
        except InputError as error:
            left_out.append(f"{record.where}: {error}")
            continue
        edits.append(RippleEdit(case_id=f"{kind}-{number}", rewrite=rewrite, tests=tests))
    return RippleEdits(edits=tuple(edits), left_out=tuple(left_out))


def parse_statement(sentence: str) -> tuple[str, str, str]:
    """Template, subject and object of a sentence that the benchmark states a fact with.

    Raises:
        InputError: If it is none of the benchmark's sentences, or names no object.
    """
    for shape in _SHAPES:
        match = shape.match(sentence.strip())
        if match is not None and match["object"].strip():
            start, stop = match.span("subject")
            return (
                f"{sentence[:start]}{{}}{match['prompt'][stop:]}",
                match["subject"],
                match["object"],
            )
    raise InputError(f"no subject and object can be made out in {sentence!r}")


def _rewrite(stated: str, before: str | None) -> Rewrite:
    """The rewrite that a sentence states, and the object of the one it replaces."""
    template, subject, new = parse_statement(stated)
    true = None
    if before is not None:
        same_template, same_subject, true = parse_statement(before)
        if (same_template, same_subject) != (template, subject):
            raise InputError(f"{stated!r} and {before!r} have different subjects or relations")
    return Rewrite(subject=subject, template=template, target_new=new, target_true=true)


def _tests(record: Record, criterion: str) -> tuple[RippleTest, ...]:
    """The tests of one criterion."""
    name = criterion if record.has(criterion) else _SPELLINGS.get(criterion, criterion)
    return tuple(_test(part) for part in record.parts(name))


def _test(record: Record) -> RippleTest:
    condition = record.get("test_condition", str)
    if condition not in ("OR", "AND"):
        raise record.malformed(f"field 'test_condition' should be 'OR' or 'AND', not {condition!r}")
    return RippleTest(
        queries=tuple(q for part in record.parts("test_queries") for q in _query(part)),
        every=condition == "AND",
        conditions=tuple(q for part in record.parts("condition_queries") for q in _query(part)),
    )


def _query(record: Record) -> Iterator[RippleQuery]:
    """A query; none if it has no answer of any text, as some have."""
    prompt = record.get("prompt", str)
    answers = [
        name
        for answer in record.parts("answers")
        for name in (answer.get("value", str), *answer.texts("aliases"))
        if name.strip()
    ]
    if answers and prompt.strip():
        yield RippleQuery(prompt=prompt, answers=tuple(dict.fromkeys(answers)))
