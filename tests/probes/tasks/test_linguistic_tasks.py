"""Tasks of gold annotation: each label as a hand would give it, and nothing leaks."""

import pytest

from labkit.errors import EmptySplit, InputError, LeakingSplit, OneClass
from probes.sentences.own import language
from probes.sentences.treebank import read_treebank
from probes.tasks.linguistic import TASKS, linguistic_tasks
from probes.tasks.task import Task

TEXT = """\
# sent_id = {id}
# text = {first} old nurses saw us there.
1\t{first}\tthe\tDET\tDT\t_\t3\tdet\t_\t_
2\told\told\tADJ\tJJ\t_\t3\tamod\t_\t_
3\tnurses\tnurse\tNOUN\tNNS\tNumber=Plur\t4\tnsubj:pass\t_\t_
4\tsaw\tsee\tVERB\tVBD\tTense=Past\t0\troot\t_\t_
5\tus\twe\tPRON\tPRP\tNumber=Plur|Person=1\t4\tobj\t_\t_
6\tthere\tthere\tADV\tRB\t_\t4\tadvmod\t_\tSpaceAfter=No
7\t.\t.\tPUNCT\t.\t_\t4\tpunct\t_\t_
"""


@pytest.fixture
def few(tmp_path):
    path = tmp_path / "few.conllu"
    firsts = ("The", "These", "Those")
    path.write_text("\n".join(TEXT.format(id=n, first=f) for n, f in enumerate(firsts)))
    return read_treebank(path)


def labels(tasks, name, text=0):
    return [example.label for example in tasks[name].examples if example.text == text]


def test_labels_are_those_a_hand_would_give(few):
    tasks = linguistic_tasks(few, least=1)
    assert labels(tasks, "upos") == "DET ADJ NOUN VERB PRON ADV PUNCT".split()
    assert labels(tasks, "xpos") == "DT JJ NNS VBD PRP RB .".split()
    assert labels(tasks, "deprel") == "det amod nsubj root obj advmod".split()
    assert labels(tasks, "head_distance") == ["+2", "+1", "+1", "root", "-1", "-2"]
    assert labels(tasks, "tree_depth") == [2, 2, 1, 0, 1, 1]
    assert labels(tasks, "position") == [0, 1, 2, 3, 4, 5]
    assert labels(tasks, "word_length") == [3, 3, 6, 3, 2, 5]
    task = tasks["upos"]
    assert [e.item for e in task.examples[:3]] == ["the", "old", "nurses"]
    assert {e.group for e in task.examples if e.text == 0} == {few[0].text}
    # One number, one tense, one length: nothing to tell apart, so not offered unless named.
    assert not {"number", "tense", "sentence_length", "role"} & set(tasks)
    with pytest.raises(OneClass):
        linguistic_tasks(few, names=["number"], least=1)
    with pytest.raises(EmptySplit):
        linguistic_tasks(few, names=["role"])
    with pytest.raises(InputError, match="no task 'mood'"):
        linguistic_tasks(few, names=["mood"])
    with pytest.raises(EmptySplit):
        linguistic_tasks([])


def test_any_feature_can_be_asked_by_its_name():
    case = linguistic_tasks(language(200), names=["Case"])["Case"]
    assert set(case.labels.tolist()) == {"Nom", "Acc"}
    assert {e.item for e in case.examples if e.label == "Nom"} <= set(
        "i we you he she they".split()
    )


def test_rare_classes_are_left_out_of_both_sides():
    train, test = language(60, part="train"), language(60, part="test")
    task = linguistic_tasks(train, test, names=["deprel"], least=30)["deprel"]
    held = set(task.held_out)
    counts = [e.label for n, e in enumerate(task.examples) if n not in held]
    assert min(counts.count(label) for label in set(counts)) >= 30
    assert {task.examples[n].label for n in held} <= set(counts)


def test_a_held_out_treebank_is_the_test_and_what_stands_in_both_leaves_training(few):
    tasks = linguistic_tasks(few, few[:1], names=["upos"], least=1)
    task = tasks["upos"]
    split = task.split()
    assert {task.examples[n].group for n in split.test} == {few[0].text}
    assert {task.examples[n].group for n in split.train} == {s.text for s in few[1:]}
    assert "1 that are in the test as well" in task.source
    with pytest.raises(LeakingSplit):
        Task(name="t", family="lexical", texts=task.texts, examples=task.examples, source="",
             held_out=(0,))  # fmt: skip
    with pytest.raises(EmptySplit):
        linguistic_tasks(few, few, names=["upos"], least=1)


def test_all_tasks_apply_to_the_language():
    tasks = linguistic_tasks(language(900))
    assert tuple(tasks) == TASKS
    content = tasks["word_content"]
    for example in content.examples:
        words = content.texts[example.text].lower()
        assert example.label[:3] in words
        assert example.span[1] == len(content.texts[example.text])
