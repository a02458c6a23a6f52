"""Words and sentences in scripts of all kinds."""

import pytest

from editing.methods.closed_form.keys import contexts, fitting
from labkit.errors import ContextTooShort
from labkit.facts.fact import Rewrite
from labkit.text.corpus import Corpus
from labkit.tokens.words import holds_phrase, sentences_of


@pytest.mark.parametrize(
    ("text", "name", "held"),
    [
        ("It is in Nigeria.", "Niger", False),
        ("It is in Niger.", "niger", True),
        ("Niger's capital", "Niger", True),
        ("the New York Times", "New York", True),
        ("a Newark street", "New", False),
        ("на берегах Нигерии", "Нигер", False),
        ("首都是北京。", "北京", True),
        ("수도는 서울이다", "서울", True),
        ("남서울 시장", "서울", False),
        ("the Cafe\u0301 is", "Caf\u00e9", True),
        ("anything", " ", False),
    ],
)
def test_a_name_is_held_only_as_whole_words(text, name, held):
    assert holds_phrase(text, name) is held
    assert holds_phrase(text, "zyzzyva", name) is held


@pytest.mark.parametrize(
    "text",
    [
        "Париж это столица Франции. Он очень большой город!",
        "巴黎是法国的首都。它是一个很大的城市！",
        "Paris is a large city. The river runs through it.",
    ],
)
def test_sentences_of_any_script_are_contexts(text):
    assert len(sentences_of(text)) == 2
    assert len(contexts(Corpus(documents=(text,), source="x"), 3, seed=0)) == 3


def test_where_no_sentence_fits_an_edit_goes_on_without_and_says_so(caplog):
    assert contexts(Corpus(documents=("no sentence here",), source="mine"), 5, seed=0) == ("",)
    assert "mine" in caplog.text


def test_a_context_that_does_not_fit_is_left_out(tiny, monkeypatch):
    model = tiny("llama")
    rewrite = Rewrite(subject="mill", template="the {} is", target_new="Rome")
    monkeypatch.setattr(type(model), "n_ctx", len(model.ids(rewrite.prompt)) + 12)
    assert fitting(model, [rewrite], ("", "Yes.", "It is a long one. " * 4)) == ("", "Yes.")
    monkeypatch.setattr(type(model), "n_ctx", 5)
    with pytest.raises(ContextTooShort, match="'the mill is' takes"):
        fitting(model, [rewrite], ("",))
