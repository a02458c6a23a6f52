"""What an audit says of one edit: counts by hand, in words that can be wrong."""

import numpy as np
import pandas as pd
import pytest

from editing import ROME, WeightDelta, audit, audit_table
from editing.evaluation.one_edit import Audit
from editing.readings.asking import EXPLAINED, Answer, questions
from labkit import CausalTrace, predict
from labkit.errors import InputError


def answers(case, wrong=(), argmax=True):
    """Right answers to all questions of a case, but for those of some metrics."""
    return tuple(
        Answer(
            question=q,
            wanted_nll=2.0 if q.metric in wrong else 0.5,
            rival_nll=None if q.rival is None else 1.0,
            argmax=argmax and q.metric not in wrong,
            text=None,
        )
        for q in questions(case)
    )


def found(case, before, after):
    return Audit(
        case=case, before=before, after=after, openings=(), written_before=(), written_after=(),
        nll_before=np.array([4.0, 4.1]), nll_after=np.array([4.2, 4.3]), essence_drift=0.25,
        model="by hand", fingerprint="0" * 64,
    )  # fmt: skip


def test_the_verdict_says_whether_it_took_and_counts_what_broke(case):
    before = answers(case, wrong=("efficacy", "paraphrase"))
    good = found(case, before, answers(case))
    new, n = case.rewrite.target_new, len(case.neighbours)
    assert good.verdict[0] == f"it took: the edited prompt says {new}"
    assert f"none of {n} neighbours that were right broke" in good.verdict
    assert "0.25 nats" in good.verdict[-1]
    bad = found(case, before, answers(case, wrong=("efficacy", "paraphrase", "distractor")))
    assert bad.verdict[0].startswith("it did not take") and "not even likelier" in bad.verdict[0]
    line = f"{n} of {n} neighbours asked right after the edited sentence that were right are wrong"
    assert any(said.startswith(line) for said in bad.verdict)
    weak = found(case, before, answers(case, argmax=False))
    assert "is only likelier" in weak.verdict[0]
    assert bad.metrics()["verdict"] == list(bad.verdict)


def test_what_was_wrong_before_is_not_called_broken(case):
    wrong = answers(case, wrong=("neighbourhood",))
    said = found(case, wrong, wrong).verdict
    assert not any("neighbours that were right" in line for line in said)


def test_its_page_begins_with_the_verdict_and_explains_what_it_shows(case):
    page = found(case, answers(case), answers(case))._repr_html_()
    assert page.index("it took") < page.index("<table")
    for metric in {question.metric for question in questions(case)}:
        assert metric in EXPLAINED and f"<em>{metric}</em>" in page


def test_several_audits_are_one_table(case):
    before = answers(case, wrong=("efficacy", "paraphrase"))
    one, two = found(case, before, answers(case)), found(case, before, before)
    table = audit_table({"one": one, "two": two})
    assert list(table.index) == ["unedited", "one", "two"]
    assert table.loc["one", "efficacy"] == one.estimate("after", "accuracy", "efficacy")
    assert table.loc["unedited", "efficacy"] == table.loc["two", "efficacy"]
    assert table.loc["one", "nats per token"] == one.nll_change
    assert pd.isna(table.loc["unedited", "nats per token"])
    with pytest.raises(InputError, match="no audits"):
        audit_table({})
    with pytest.raises(InputError, match="no reading"):
        audit_table({"one": one}, reading="luck")


def test_what_is_no_case_fact_rewrite_or_prompt_is_named(tiny, case, unchecked):
    model, rewrite = tiny("gpt2"), case.rewrite
    delta = WeightDelta({}, model.fingerprint, {})
    for call, said in (
        (lambda: audit(model, delta, rewrite), "case is a Case, labkit.case_of.* not a Rewrite"),
        (lambda: audit(model, case, delta), "edit is a WeightDelta.*not a Case"),
        (lambda: ROME(layer=1)(model, case), "case.rewrite"),
        (lambda: ROME(layer=1)(model, [case]), "case.rewrite"),
        (lambda: ROME(layer=1)(model, "cat"), "not the text 'cat'"),
        (lambda: CausalTrace()(model, "the cat is in"), "Fact.from_prompt"),
        (lambda: predict(model, ["the cat is in"]), "prompt is text, not a list"),
    ):
        with pytest.raises(InputError, match=said):
            call()


def test_help_lists_every_field(tiny):
    """Inherited ones too: `ROME?` is where a reader looks for them."""
    from dataclasses import fields

    from editing import METHODS
    from editing.methods.closed_form.base import ClosedForm

    methods = [m for m in METHODS.values() if isinstance(m, type) and issubclass(m, ClosedForm)]
    assert ROME in methods
    for method in methods:
        for field in fields(method):
            assert f"        {field.name}: " in method.__doc__, (method, field.name)
