"""Records of published editing collections as cases: CounterFact, zsRE, KnowEdit, MQuAKE.

Every collection has a rewrite; the prompts that judge it are taken where a record has them. A
format is told by its fields:

- `requested_rewrite`, an object: CounterFact's original schema. Every neighbourhood prompt
  should keep `target_true`.
- `requested_rewrite`, a list: MQuAKE. Each of its rewrites is a case, its question a
  paraphrase; chains are read by `labkit.facts.datasets.read_multihop`.
- `src`: zsRE as MEND and ROME evaluate it (`alt`, `answers`, `rephrase`, `loc`, `loc_ans`).
- `ground_truth`, `locality`, `portability` or `rephrase_prompt` beside `prompt`: EasyEdit's and
  KnowEdit's, whose `locality` is one prompt, an object of prompts, or lists of them.

References:
    CounterFact: Meng et al. (2022), Locating and Editing Factual Associations in GPT.
    zsRE: Levy et al. (2017); Mitchell et al. (2022), Fast Model Editing at Scale.
    KnowEdit: Zhang et al. (2024), A Comprehensive Study of Knowledge Editing for LLMs.
    MQuAKE: Zhong et al. (2023), MQuAKE: Assessing Knowledge Editing via Multi-Hop Questions.
"""

from collections.abc import Iterator
from typing import Any

from labkit.facts.fact import Case, Fact, Neighbour, Rewrite
from labkit.fields import Record

FLAT = ("src", "ground_truth", "locality", "locality_prompt", "portability", "rephrase_prompt")
"""Fields of which a record of zsRE, EasyEdit or KnowEdit has at least one."""


def published(record: Record, case_id: str) -> list[Case] | None:
    """The cases of a record of a published collection; None for any other record.

    Raises:
        MalformedRecord: If a field that the format needs is missing, or of another kind.
        InputError: If no case can be made of it.
    """
    if record.has("requested_rewrite"):
        if isinstance(record.fields["requested_rewrite"], list):
            return _mquake(record, case_id)
        return [_counterfact(record, case_id)]
    if any(record.has(name) for name in FLAT):
        return [_flat(record, case_id)]
    return None


def counterfact_rewrite(record: Record) -> Rewrite:
    """The rewrite of a `requested_rewrite` in CounterFact's original schema (and MQuAKE's)."""
    return Rewrite(
        subject=record.get("subject", str),
        template=record.get("prompt", str),
        target_new=record.part("target_new").get("str", str),
        target_true=record.part("target_true").get("str", str),
        relation=record.get("relation_id", str) if record.has("relation_id") else None,
    )


def _counterfact(record: Record, case_id: str) -> Case:
    """A case of CounterFact's original schema."""
    rewrite = record.part("requested_rewrite").make(counterfact_rewrite)
    near = _texts(record, "neighborhood_prompts")
    return Case(
        case_id=case_id,
        rewrite=rewrite,
        paraphrases=_texts(record, "paraphrase_prompts"),
        neighbours=tuple(Neighbour(prompt=p, object=str(rewrite.target_true)) for p in near),
        attributes=_texts(record, "attribute_prompts"),
        generation=_texts(record, "generation_prompts"),
    )


def _mquake(record: Record, case_id: str) -> list[Case]:
    """The cases of a record of MQuAKE, one for each of its rewrites."""
    parts = record.parts("requested_rewrite")
    if not parts:
        raise record.malformed("field 'requested_rewrite' holds no rewrite")
    return [
        Case(
            case_id=case_id if len(parts) == 1 else f"{case_id}.{number}",
            rewrite=part.make(counterfact_rewrite),
            paraphrases=_texts(part, "question"),
            neighbours=(),
        )
        for number, part in enumerate(parts)
    ]


def _flat(record: Record, case_id: str) -> Case:
    """A case of zsRE, EasyEdit or KnowEdit: whole prompts, under one of several names."""
    prompt = record.get("src" if record.has("src") else "prompt", str)
    true = next(iter(_texts(record, "answers") or _texts(record, "ground_truth")), None)
    fact = Fact.from_prompt(prompt, record.get("subject", str), true)
    new = record.get("alt" if record.has("alt") else "target_new", str)
    return Case(
        case_id=case_id,
        rewrite=Rewrite.from_fact(fact, new),
        paraphrases=_texts(record, "rephrase_prompt") or _texts(record, "rephrase"),
        neighbours=tuple(_neighbours(record)),
    )


def _neighbours(record: Record) -> Iterator[Neighbour]:
    """The prompts that a rewrite should leave alone, wherever the record has them."""
    for asked, answered in (("locality_prompt", "locality_ground_truth"), ("loc", "loc_ans")):
        if record.has(asked):
            prompt = record.get(asked, str).removeprefix("nq question: ")
            (answer, *_) = _texts(record, answered) or (record.get(answered, str),)
            yield Neighbour(prompt=prompt, object=answer)
    if record.has("locality"):
        yield from _nested(record.part("locality"), record.fields["locality"])


def _nested(record: Record, value: Any) -> Iterator[Neighbour]:
    """The prompts with answers inside objects and lists."""
    if isinstance(value, list):
        for item in value:
            yield from _nested(record, item)
    elif isinstance(value, dict) and "prompt" in value:
        prompts = _flattened(record, "prompt", value["prompt"])
        answers = value.get("ground_truth")
        each: list[Any] = [answers] * len(prompts)
        if isinstance(value["prompt"], list) and isinstance(answers, list):
            each = answers if len(answers) == len(prompts) else each
        for prompt, answer in zip(prompts, each, strict=True):
            right = [a for a in _flattened(record, "ground_truth", answer) if a.strip()]
            if right:  # KnowEdit has prompts without an answer
                yield Neighbour(prompt=prompt, object=right[0])
    elif isinstance(value, dict):
        for item in value.values():
            yield from _nested(record, item)


def _texts(record: Record, name: str) -> tuple[str, ...]:
    """A field that is a text, a list of texts, or a list of lists of them; may be missing."""
    if not record.has(name):
        return ()
    return tuple(_flattened(record, name, record.fields[name]))


def _flattened(record: Record, name: str, value: Any) -> list[str]:
    """All texts of a value: itself, or those in its lists."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _flattened(record, name, item)]
    if value is None:
        return []
    raise record.malformed(f"field {name!r} should be a text or a list of texts, not {value!r:.60}")
