"""Facts as tasks: subjects whole on one side, nothing given away by what stands around them."""

from collections import Counter, defaultdict

import pytest

from labkit.errors import EmptySplit, LeakingSplit, MalformedRecord, OneClass
from labkit.facts.bundled import bundled_facts
from labkit.facts.datasets import read_relations
from labkit.facts.fact import Fact
from probes.tasks.factual import (
    continent,
    maker_country,
    occupation,
    of_relation,
    subject_task,
    truth,
)
from probes.tasks.places import read_places
from probes.tasks.task import Task
from tests.reference import DATA


def fact(subject, answer, relation="r", template="{} is in"):
    return Fact(subject=subject, template=template, object=answer, relation=relation)


@pytest.mark.parametrize("make", [continent, maker_country, occupation])
def test_what_is_read_is_the_subject_and_no_opening_names_a_class(make):
    task = make()
    for example in task.examples:
        text = task.texts[example.text]
        assert text[slice(*example.span)] == example.group and example.span[1] == len(text)
    openings = defaultdict(Counter)
    for example in task.examples:
        openings[task.texts[example.text][: example.span[0]]][example.label] += 1
    assert len({tuple(sorted(counts.items())) for counts in openings.values()}) == 1
    split = task.split()
    assert not set(task.groups[split.train]) & set(task.groups[split.test])
    counts = Counter(task.labels.tolist())
    assert len(counts) >= 4 and min(counts.values()) >= 24
    with pytest.raises(LeakingSplit):
        Task(name="t", family="factual", texts=task.texts, examples=task.examples, source="",
             held_out=(0,))  # fmt: skip


def test_places_and_makers_are_looked_up_through_the_chain():
    places = {e.group: e.label for e in continent().examples}
    assert (places["Japan"], places["Nairobi"], places["Eiffel Tower"]) == (
        "Asia",
        "Africa",
        "Europe",
    )
    makers = {e.group: e.label for e in maker_country().examples}
    assert makers["PlayStation"] == "Japan" and makers["Toyota"] == "Japan"
    fields = {e.group: e.label for e in occupation().examples}
    assert fields["Marie Curie"] == "science" and fields["Serena Williams"] == "sport"


def test_every_subject_and_every_object_is_as_often_in_true_as_in_false_statements():
    task = truth()
    assert len(task) > 4000
    sides = {label: [e for e in task.examples if e.label == label] for label in ("true", "false")}
    for of in (lambda e: e.group, lambda e: e.item):
        assert Counter(map(of, sides["true"])) == Counter(map(of, sides["false"]))
    by_template = defaultdict(Counter)
    for example in task.examples:
        text = task.texts[example.text]
        before = text.removesuffix(f" {example.item}.").replace(example.group, "{}", 1)
        by_template[before][example.label] += 1
        assert text[slice(*example.span)] == "."
    assert all(len(set(counts.values())) == 1 for counts in by_template.values())


def test_true_statements_are_facts_and_false_ones_are_not():
    right = defaultdict(set)
    for known in bundled_facts():
        right[known.prompt] |= set(known.answers)
    for example in (task := truth(seed=3)).examples:
        prompt = task.texts[example.text].removesuffix(f" {example.item}.")
        assert (example.item in right[prompt]) == (example.label == "true")


def test_other_answers_of_a_subject_are_no_false_statements():
    facts = [
        fact("a", "x"),
        fact("a", "y"),
        *(fact(s, o) for s, o in zip("bcdefg", "xyzxyz", strict=True)),
    ]
    for seed in range(10):
        task = truth(facts, seed=seed)
        false = {(e.group, e.item) for e in task.examples if e.label == "false"}
        assert not false & {(f.subject, f.object) for f in facts}
    with pytest.raises(EmptySplit):
        truth([fact("a", "x"), fact("b", "x"), fact("c", "y")])
    with pytest.raises(EmptySplit):
        truth(facts, relations=["other"])


def test_too_few_subjects_of_a_class_are_named():
    facts = [fact(f"s{n}", "x" if n < 12 else "y") for n in range(14)]
    assert set(of_relation(facts, least=2).labels.tolist()) == {"x", "y"}
    with pytest.raises(OneClass):
        of_relation(facts)
    with pytest.raises(EmptySplit):
        of_relation(facts, least=20)
    with pytest.raises(EmptySplit):
        of_relation([])
    with pytest.raises(LeakingSplit):
        Task(name="t", family="factual", source="", held_out=(0,),
             **{k: getattr(subject_task("t", {"a": "x", "b": "y"}, source="", least=1), k)
                for k in ("texts", "examples")})  # fmt: skip


def test_relations_of_lre_are_tasks():
    folder = DATA / "lre_relations" / "factual"
    if not folder.exists():
        pytest.skip("LRE's relations are not here; LABKIT_DATA names the folder of the data")
    made = 0
    for relation, facts in read_relations(folder):
        try:
            task = of_relation(facts)
        except (EmptySplit, OneClass):
            continue
        made += 1
        assert task.name == relation.id and task.source == "LRE"
    assert made >= 8


HEAD = "name,latitude,longitude,page_views,is_test\n"


def test_places_are_numbers_with_the_tables_own_split(tmp_path):
    path = tmp_path / "places.csv"
    rows = "Oslo,59.9,10.7,900,False\nLima,-12.0,-77.0,800,True\nRome,41.9,12.5,5,False\n"
    path.write_text(HEAD + rows + "Bern,46.9,7.4,700,False\n")
    task = read_places(path, coordinate="longitude", least_views=10)
    assert task.numeric and task.texts == ("Oslo", "Lima", "Bern") and task.held_out == (1,)
    assert task.labels.tolist() == [10.7, -77.0, 7.4]
    for bad, said in (
        ("Oslo,x,10.7,900,False", "line 2: .*'x'"),
        ("Oslo,59.9,10.7,900,maybe", "line 2: not a place"),
        (",59.9,10.7,900,True", "line 2: not a place"),
        ("Oslo,590.9,10.7,900,True", "line 2: not a place"),
        ("Oslo,59.9", "line 2"),
    ):
        path.write_text(HEAD + bad + "\n")
        with pytest.raises(MalformedRecord, match=said):
            read_places(path)
    path.write_text("name,lat\nOslo,59.9\n")
    with pytest.raises(MalformedRecord, match="no column 'latitude'"):
        read_places(path)
