"""Questions of published collections in the shape of `editing.readings.consequences`.

    for record in read_multihop("MQuAKE-CF-3k.json"):
        asked = multihop_implications(record)
    for edit in read_ripple_edits("popular.json"):
        asked = ripple_implications(fair_tests(model, edit))
        delta = method(model, [edit.rewrite])
        found = portability(model, delta, [edit.rewrite], asked=[asked])

The readers are in `labkit.facts.datasets` and `labkit.facts.ripple`; no file ships with the
package.

References:
    Zhong et al. (2023), MQuAKE, section 3. Cohen et al. (2024), RippleEdits, sections 3 and 4.
"""

from collections.abc import Sequence
from dataclasses import replace

from editing.readings.implication import Implication
from labkit.arguments import checked
from labkit.facts.datasets import MultiHop
from labkit.facts.ripple import RippleEdit, RippleQuery
from labkit.models.model import LabModel
from labkit.running.scoring import score

QUESTION = "Question: {}\nAnswer:"
"""How a question in words is put to a model that continues text."""


def multihop_implications(record: MultiHop) -> list[Implication]:
    """The questions of a MQuAKE record: the end of its chain, and each hop of the new one.

    Metrics are "multi-hop" (in words, as `QUESTION`) and "hop" (to be continued; the rewritten
    facts and those between). The rival is the answer before the rewrites, where it differs.

    Differs from the paper:
        No demonstrations stand in front; a record's wordings are averaged, not any of them.
    """
    asked = [
        _asked(
            "multi-hop",
            QUESTION.format(question),
            (record.new_answer, *record.new_answer_aliases),
            (record.answer, *record.answer_aliases),
        )
        for question in record.questions
    ]
    old = {hop.cloze: hop for hop in record.hops}
    for hop in record.new_hops:
        before = old.get(hop.cloze)
        rivals = () if before is None else (before.answer, *before.aliases)
        asked.append(_asked("hop", hop.cloze, (hop.answer, *hop.aliases), rivals))
    return asked


def ripple_implications(edit: RippleEdit) -> list[Implication]:
    """The queries of a RippleEdits record; the metric is the criterion in words.

    "relation specificity" and "forgetfulness" ask for what the edit should leave alone.
    Another name of the subject has the replaced object as its rival; the others have none,
    hence no reading of success.

    Differs from the paper:
        Each query counts for itself, also where a test is passed by any one of several. Tests
        whose conditions the model does not meet are still here: see `fair_tests`.
    """
    true = edit.rewrite.target_true
    return [
        _asked(
            criterion.lower().replace("_", " "),
            query.prompt,
            query.answers,
            (true,) if criterion == "Subject_Aliasing" and true else (),
        )
        for criterion, tests in edit.tests.items()
        for test in tests
        for query in test.queries
    ]


@checked
def fair_tests(model: LabModel, edit: RippleEdit) -> RippleEdit:
    """The edit with those tests alone whose conditions the unedited model meets.

    A condition is met where an answer to it, under any of its names, is the argmax.
    """
    conditions = list(
        dict.fromkeys(
            query for tests in edit.tests.values() for test in tests for query in test.conditions
        )
    )
    met = dict(zip(conditions, _answered(model, conditions), strict=True))
    return replace(
        edit,
        tests={
            criterion: tuple(test for test in tests if all(met[q] for q in test.conditions))
            for criterion, tests in edit.tests.items()
        },
    )


def _answered(model: LabModel, queries: Sequence[RippleQuery]) -> list[bool]:
    """Whether the model gives one of the answers to each query."""
    names = [(query, name) for query in queries for name in query.answers]
    if not names:
        return []
    _, argmax = score(model, [(query.prompt, name) for query, name in names])
    given = {query for (query, _), top in zip(names, argmax.tolist(), strict=True) if top}
    return [query in given for query in queries]


def _asked(
    metric: str, prompt: str, right: Sequence[str], wrong: Sequence[str] = ()
) -> Implication:
    """A question; a rival that is itself right is none."""
    rivals = tuple(name for name in dict.fromkeys(wrong) if name.strip())
    if not set(rivals).isdisjoint(right):
        rivals = ()
    names = tuple(name for name in dict.fromkeys(right) if name.strip())
    return Implication(
        metric=metric,
        prompt=prompt,
        wanted=names[0],
        accepted=names[1:],
        rival=rivals[0] if rivals else None,
        rival_names=rivals[1:],
    )
