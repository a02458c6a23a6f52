"""Spans decode to what they claim, in every family; tasks are what they say."""

import json
import zipfile

import pytest

from labkit.errors import EmptySplit, EmptyTarget, InputError, MalformedRecord, MissingFile
from labkit.icl import Item, Shot, Task, Template, render, task, task_names, write
from labkit.icl.tasks.readers import (
    read_analogies,
    read_csv,
    read_intents,
    read_lines,
    read_pairs,
    read_relation_tasks,
    read_tasks,
)
from tests.reference import DATA

SHOTS = [
    Shot(input="Perú", label="Lima"),
    Shot(input="Côte d'Ivoire", label="the Yamoussoukro"),
    Shot(input="Lima", label="Perú"),
    Shot(input="日本", label="東京"),
]


def decoded(model, prompt, span):
    return model.tokenizer.decode(prompt.ids[span.start : span.stop])


@pytest.mark.parametrize("shown", [None, "{input}", "{label}", "{input} {label}"])
@pytest.mark.parametrize("instruction", ["", "Name it."])
def test_spans_decode_to_what_they_claim(model, shown, instruction):
    template = Template(instruction=instruction)
    prompt = render(model, template, SHOTS, "Lima", shown=shown)
    assert list(prompt.ids) == model.ids(prompt.text)
    written = shown or template.demonstration
    for shot, spans in zip(SHOTS, prompt.shots, strict=True):
        for name in ("input", "label"):
            span = getattr(spans, name)
            if f"{{{name}}}" in written:
                assert decoded(model, prompt, span).strip() == getattr(shot, name)
            else:
                assert span is None
        whole = written.format(input=shot.input, label=shot.label)
        assert decoded(model, prompt, spans.whole) == whole
        assert decoded(model, prompt, spans.separator) == "\n\n"
        assert spans.whole.stop == spans.separator.start
    assert decoded(model, prompt, prompt.query) == "Q: Lima\nA:"
    assert decoded(model, prompt, prompt.query_input).strip() == "Lima"
    assert prompt.query.stop == len(prompt.ids)
    if instruction:
        assert decoded(model, prompt, prompt.instruction) == instruction
    else:
        assert prompt.instruction is None


def test_spans_in_the_pocket_world(pocket):
    own = task("city_river", pocket)
    shots = [Shot(input=item.input, label=item.label) for item in own.items[:3]]
    prompt = render(pocket, own.template, shots, own.items[3].input)
    for shot, spans in zip(shots, prompt.shots, strict=True):
        assert decoded(pocket, prompt, spans.input) == shot.input
        assert decoded(pocket, prompt, spans.label) == shot.label
        assert decoded(pocket, prompt, spans.separator) == "."


def test_the_projects_tasks():
    tasks = {name: task(name) for name in task_names()}
    assert len(tasks) >= 20 and min(map(len, tasks.values())) >= 50
    for name in ("sentiment", "topic", "subjectivity"):
        counts = [sum(i.label == one for i in tasks[name].items) for one in tasks[name].labels]
        assert len(set(counts)) == 1 and sum(counts) >= 60
    for item in tasks["parity"].items:
        assert (item.input.count("X") % 2 == 1) == (item.label == "odd")
    assert not tasks["capital"].closed and tasks["sentiment"].closed
    assert task("river_continent").labels  # any bundled relation


def test_every_task_of_the_lab_has_instructions_of_its_own(pocket):
    own = [task(name) for name in task_names()]
    own += [task(name, pocket) for name in task_names(pocket)]
    written = [instruction for each in own for instruction in each.instructions]
    assert min(len(each.instructions) for each in own) >= 2
    assert len(set(written)) == len(written)
    told = own[0].instructed(written[0])
    assert write(told.template, (), "big").startswith(f"{written[0]}\n\nQ: big")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Task(name="t", items=(), source="s"), EmptySplit),
        (lambda: Item(input="a", label=" "), EmptyTarget),
        (lambda: Item(input=" ", label="a"), InputError),
        (lambda: Task(name="t", items=(Item(input="a", label="b"),), source="s"), InputError),
        (lambda: Task(name="t", items=(Item(input="a", label="b"),) * 2, source="s"), InputError),
        (
            lambda: Task(
                name="t", items=(Item(input="a", label="b"),), source="s", labels=("c", "d")
            ),
            InputError,
        ),
        (
            lambda: Task(
                name="t",
                items=(Item(input="a", label="b"),),
                source="s",
                labels=("b", "c"),
                instructions=("Do.", " "),
            ),
            InputError,
        ),
        (lambda: Template(demonstration="{label} {input}"), InputError),
        (lambda: Template(demonstration="{input}:{label}"), InputError),
        (lambda: task("nothing"), InputError),
    ],
)
def test_bad_tasks_are_refused(make, error):
    with pytest.raises(error):
        make()


def test_files_are_read(tmp_path):
    (tmp_path / "a.json").write_text(
        '[{"input": "big", "output": "small"}, {"input": "up", "output": " down"}]'
    )
    (own,) = read_pairs(tmp_path)
    assert own.name == "a" and own.labels == ("small", "down")
    (tmp_path / "b.csv").write_text('text,category\n"Hello, you",say_hello\nBye,say_bye\n')
    assert read_csv(tmp_path / "b.csv").items[0] == Item(input="Hello, you", label="say hello")
    (tmp_path / "c.json").write_text('{"train": [["Hello", "greet"], ["Bye", "part"]]}')
    assert read_intents(tmp_path / "c.json").labels == ("greet", "part")
    (tmp_path / "d.txt").write_text(": ends\nup down big small\n")
    assert [len(own) for own in read_analogies(tmp_path / "d.txt")] == [2]
    named = {"b.csv": "b", "c.json": "train", "d.txt": "ends"}
    assert {f: read_tasks(tmp_path / f)[0].name for f in named} == named


def test_lines_are_read_zipped_or_not(tmp_path):
    content = {"set/my.neg": "bad .\n\nworse .\n", "set/my.pos": "good .\n", "set/README": "x"}
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "my.zip", "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
            (tmp_path / name).write_text(text)
    items = [("bad .", "negative"), ("worse .", "negative"), ("good .", "positive")]
    for path in (tmp_path / "my.zip", tmp_path / "set"):
        assert [(item.input, item.label) for item in read_lines(path).items] == items
    assert read_tasks(tmp_path / "my.zip")[0].items == read_lines(tmp_path / "set").items
    own = read_lines(tmp_path / "set", labels={"neg": "no", "README": "what"})
    assert own.labels == ("what", "no")


def test_a_file_of_pairs_intents_or_a_relation_is_told_by_its_content(tmp_path):
    samples = [{"subject": "Peru", "object": "Lima"}, {"subject": "Oman", "object": "Muscat"}]
    kinds = {"relation_type": "factual", "domain_name": "country", "range_name": "city"}
    about = {"prompt_templates": ["{} has the capital"], "properties": kinds}
    files = {
        "pairs": [{"input": "Peru", "output": "Lima"}, {"input": "Oman", "output": "Muscat"}],
        "intents": {"train": [["Peru", "Lima"], ["Oman", "Muscat"]]},
        "relation": {"name": "capital", "samples": samples, **about},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content, indent=1))
        (found,) = read_tasks(tmp_path / f"{name}.json")
        assert [(item.input, item.label) for item in found.items] == [
            ("Peru", "Lima"), ("Oman", "Muscat"),
        ]  # fmt: skip


def test_lines_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(MissingFile, match="gone"):
        read_lines(tmp_path / "gone.zip")
    (tmp_path / "no.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("a.neg", "bad")
    with zipfile.ZipFile(tmp_path / "latin.zip", "w") as archive:
        archive.writestr("a.neg", b"caf\xe9")
        archive.writestr("a.pos", "good")
    broken = bytearray((tmp_path / "one.zip").read_bytes())
    broken[35:38] = b"xyz"
    (tmp_path / "crc.zip").write_bytes(bytes(broken))
    for name in ("no", "one", "latin", "crc"):
        with pytest.raises(MalformedRecord, match=name):
            read_lines(tmp_path / f"{name}.zip")


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (read_pairs, '[{"input": "big"}]'),
        (read_pairs, '[{"input": "big", "output": ""}]'),
        (read_csv, "text,label\na,b\n"),
        (read_intents, '{"train": [["a"]]}'),
        (read_intents, '{"test": []}'),
        (read_analogies, "a b c d\n"),
        (read_analogies, ": x\na b c\n"),
    ],
)
def test_malformed_files_are_named(tmp_path, reader, text):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(MalformedRecord, match="file"):
        reader(tmp_path / "file.json")


@pytest.mark.skipif(not DATA.exists(), reason="the published files are not here")
def test_published_files_are_read():
    assert len(read_pairs(DATA / "function_vectors")) == 35
    assert read_relation_tasks(next((DATA / "lre_relations").rglob("*capital_city.json")))[0].labels
    assert len(read_csv(DATA / "banking77" / "test.csv").labels) == 77
    polarity = read_lines(DATA / "nltk_sentence_polarity" / "sentence_polarity.zip")
    assert polarity.labels == ("negative", "positive") and len(polarity) > 10_000
    subjectivity = read_lines(DATA / "nltk_subjectivity" / "subjectivity.zip")
    assert subjectivity.labels == ("objective", "subjective") and len(subjectivity) > 9_900
    assert len(read_tasks(DATA / "clinc150_small" / "data_small.json")[0].labels) == 150
    assert len(read_intents(DATA / "clinc150_small" / "data_small.json").labels) == 150
