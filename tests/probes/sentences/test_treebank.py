"""CoNLL-U is read as it is defined, every word knows its characters, and slips are named."""

import dataclasses
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InputError, MalformedRecord, MissingFile
from probes.sentences import fetched
from probes.sentences.treebank import Sentence, Word, in_context, read_treebank
from tests.reference import DATA

ROWS = """\
# sent_id = one
# text = He  didn't go to du Paris!
1\tHe\the\tPRON\tPRP\tCase=Nom|Number=Sing\t4\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdid\tdo\tAUX\tVBD\tTense=Past\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
4.1\tghost\tghost\tNOUN\t_\t_\t_\t_\t4:obj\t_
5\tto\tto\tADP\tIN\t_\t8\tcase\t_\t_
6-7\tdu\t_\t_\t_\t_\t_\t_\t_\t_
6\tde\tde\tADP\t_\t_\t8\tcase\t_\t_
7\tle\tle\tDET\t_\t_\t8\tdet\t_\t_
8\tParis\tParis\tPROPN\tNNP\t_\t4\tobl\t_\tSpaceAfter=No
9\t!\t!\tPUNCT\t.\t_\t4\tpunct\t_\t_
"""
PLAIN = (
    "1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\tSpaceAfter=No\n2\t.\t.\tPUNCT\t.\t_\t1\tpunct\t_\t_\n"
)


@pytest.fixture
def read(tmp_path):
    def reading(text, name="t.conllu"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_treebank(path)

    return reading


def test_words_multiword_tokens_and_empty_nodes(read):
    (sentence,) = read(ROWS)
    assert sentence.id == "one" and len(sentence.words) == 9
    spelled = [w.span and sentence.text[slice(*w.span)] for w in sentence.words]
    assert spelled == ["He", "did", "n't", "go", "to", None, None, "Paris", "!"]
    assert [w.lemma for w in sentence.words] == "he do not go to de le Paris !".split()
    assert sentence.words[0].feats == {"Case": "Nom", "Number": "Sing"}
    assert sentence.words[3].feats == {} and sentence.words[5].xpos is None
    assert sentence.depths == (1, 1, 1, 0, 2, 2, 2, 1, 1)


def test_the_text_is_put_together_where_no_line_tells_it(read):
    first, second = read(PLAIN + "\n\n" + ROWS)
    assert first.text == "Yes." and second.id == "one"
    assert [first.text[slice(*word.span)] for word in first.words] == ["Yes", "."]


def test_gzip_carriage_returns_and_byte_order_marks_change_nothing(read):
    expected = read(ROWS)
    assert read(gzip.compress(ROWS.encode()), "t.gz") == expected
    assert read(ROWS.replace("\n", "\r\n")) == expected
    assert read("\ufeff" + ROWS) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROWS.replace("\tIN\t", " IN "), "line 9: 8 columns"),
        (ROWS.replace("\tPRP\t", "\t\t"), "line 3: the column 'xpos' is empty"),
        (ROWS.replace("\n5\t", "\n6\t"), "line 9: word 6 where 5"),
        (ROWS.replace("\n4\tgo", "\nfour\tgo"), "line 7: .*four"),
        (ROWS.replace("\t8\tcase", "\tx\tcase", 1), "line 9: .*'x'"),
        (ROWS.replace("\t8\tcase", "\t_\tcase", 1), "line 9: the word 'to' has no head"),
        (ROWS.replace("\t8\tdet", "\t12\tdet"), "line 1: .*word 7 has the head 12"),
        (ROWS.replace("\t4\tobl", "\t7\tobl"), "line 1: .*go round"),
        (ROWS.replace("\t4\tnsubj", "\t0\tnsubj"), "line 1: .*2 roots"),
        (ROWS.replace("Paris!", "Rome!"), "line 13: 'Paris' is not what the text goes on with"),
        (ROWS.replace("6-7\t", "5-7\t"), "line 10: a token that begins at 5"),
        ("2-3\ta" + "\t_" * 8, "a token that begins at 2"),
        ("1-2\ta" + "\t_" * 8 + "\n1\ta\ta\tX\t_\t_\t0\troot\t_\t_\n", "a token up to word 2"),
        ("# text = a\n\n" + PLAIN, "line 1: a sentence without words"),
        ("", "no sentence"),
        (b"\xff\xfe", "not UTF-8"),
        (gzip.compress(ROWS.encode())[:-12], "gzip"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_named_with_its_line(read, text, said):
    with pytest.raises(MalformedRecord, match=said):
        read(text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r"no\.conllu"):
        read_treebank(tmp_path / "no.conllu")


CHOICES = st.lists(st.integers(0, 10**6), min_size=12, max_size=12)


@given(st.tuples(st.integers(1, 12).flatmap(lambda n: st.permutations(range(n))), CHOICES))
def test_depths_are_arcs_to_the_root(drawn):
    order, choices = drawn  # every word but the first hangs on one that comes before it in order
    heads, depths = [0] * len(order), [0] * len(order)
    for place, word in enumerate(order[1:], 1):
        head = order[choices[place] % place]
        heads[word], depths[word] = head + 1, depths[head] + 1
    words = tuple(
        Word(form="x", lemma="x", upos="X", xpos=None, feats={}, head=h, deprel="d", span=None)
        for h in heads
    )
    assert Sentence(id="t", text="x", words=words).depths == tuple(depths)


def test_ud_english_ewt_is_read_whole():
    path = DATA / "ud_ewt" / "en_ewt-ud-test.conllu"
    if not path.exists():
        pytest.skip("UD English-EWT is not here; LABKIT_DATA names the folder of the data")
    sentences = read_treebank(path)
    rows = [line.split("\t") for line in path.read_text().split("\n") if line[:1].isdigit()]
    rows = [row for row in rows if row[0].isdigit()]
    words = [word for sentence in sentences for word in sentence.words]
    assert len(sentences) == 2077 and len(words) == len(rows) == 25094
    assert [(w.form, w.upos, str(w.head)) for w in words] == [(r[1], r[3], r[6]) for r in rows]
    assert all(s.text[slice(*w.span)] == w.form for s in sentences for w in s.words)


def test_a_sentence_stands_behind_those_before_it_in_its_document(tmp_path):
    rows = "1\tIt\tit\tPRON\tPRP\t_\t2\tnsubj\t_\t_\n2\truns\trun\tVERB\tVBZ\t_\t0\troot\t_\t_\n\n"
    marks = ["# newdoc id = a\n", "", "", "# newdoc\n", ""]
    path = tmp_path / "documents.conllu"
    path.write_text("".join(f"{mark}# text = It runs\n{rows}" for mark in marks), encoding="utf-8")
    read = read_treebank(path)
    assert [sentence.document for sentence in read][:3] == ["a"] * 3
    found = in_context(read, 1)
    two = "It runs It runs"
    assert [sentence.text for sentence in found] == ["It runs", two, two, "It runs", two]
    for sentence in (*found, *in_context(read, 5)):
        for word in sentence.words:
            assert sentence.text[slice(*word.span)] == word.form
        assert sentence.words[0].span[0] == len(sentence.text) - len("It runs")
    assert in_context(read, 0) == read
    alone = [dataclasses.replace(sentence, document=None) for sentence in read]
    with pytest.raises(InputError, match="newdoc"):
        in_context(alone, 1)


def test_a_damaged_treebank_is_named_and_fetched_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    listing = [{"name": "en_toy-ud-dev.conllu", "download_url": "there"}]
    contents = {"there": ROWS.encode()}
    monkeypatch.setattr(
        fetched, "_fetched", lambda at, name: contents.get(at, json.dumps(listing).encode())
    )
    path = fetched.fetch_treebank("UD_English-Toy", "dev")
    path.write_text(ROWS.replace("Paris", "Porto"))
    assert fetched.fetch_treebank("UD_English-Toy", "dev") == path
    assert path.read_text() == ROWS and str(path) in caplog.text
    monkeypatch.setattr(fetched, "_fetched", None)
    assert fetched.fetch_treebank("UD_English-Toy", "dev") == path
