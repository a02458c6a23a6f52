"""The map is its tasks' probes, goes on where it was killed, and knows its run from others."""

from dataclasses import replace

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import probes.probing.map as module
from labkit.errors import ClassTooSmall, InputError, OutputError
from labkit.results.result import RunDirectory
from probes.probing.by_depth import Read, probe
from probes.probing.configuration import MAP
from probes.probing.map import ProbeMap, map_config, probe_map
from tests.probes.readings.test_use import words_task


def tasks():
    """Three small tasks of different families."""
    toy = words_task()
    letters = tuple(replace(e, label="ab"[int(e.item[1:]) % 2]) for e in toy.examples)
    numbers = tuple(replace(e, label=float(e.span[0])) for e in toy.examples)
    return [
        replace(toy, name="letter", family="factual", examples=letters),
        replace(toy, name="position", family="surface", examples=numbers, numeric=True),
        toy,
    ]


HOW = replace(MAP, n_train=100)


@pytest.fixture(scope="module")
def found(request):
    tiny = request.getfixturevalue("tiny")
    return probe_map(tiny("llama"), tasks(), HOW, cache=False)


def test_every_task_is_its_own_probe_and_families_stand_together(found, tiny):
    assert [each.task for each in found.probes] == ["position", "word", "letter"]
    alone = probe(tiny("llama"), tasks()[2], HOW, cache=False)
    numbers = [each.to_frame().select_dtypes("number") for each in (found["word"], alone)]
    assert_frame_equal(*numbers, rtol=1e-4)  # read beside other words: equal but for rounding
    frame = found.to_frame()
    assert len(frame) == 3 * 4 and (frame["p_bh"] >= frame["p"] - 1e-12).all()
    row = frame[(frame["task"] == "word") & (frame["depth"] == 0)].iloc[0]
    assert row["score"] == 1.0 and row["gain"] == pytest.approx(1 - row["baseline"])
    assert set(found.summary()["task"]) == {"position", "word", "letter"}
    assert set(found.centres()["task"]) <= {"position", "word", "letter"}
    with pytest.raises(InputError, match="nothing"):
        found["nothing"]


def test_it_is_saved_and_drawn(found, tmp_path):
    assert ProbeMap.load(found.save(tmp_path / "map")) == found
    assert len(found.figure().data[0].z) == 3


OTHER = {
    "estimator": "ridge",
    "where": "ffn_out",
    "depths": (0, 1),
    "pieces": "mean",
    "controls": False,
    "n_train": 99,
    "portions": (0.5, 1.0),
    "keep": True,
    "seed": 1,
}


def test_a_killed_map_goes_on_at_the_next_task(found, tiny, tmp_path, monkeypatch):
    model, config = tiny("llama"), map_config(tasks(), HOW)
    calls = []
    real = Read.probed

    def killed(read, *given):
        calls.append(read.task.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(read, *given)

    monkeypatch.setattr(Read, "probed", killed)
    with pytest.raises(KeyboardInterrupt):
        run = RunDirectory.create(tmp_path / "run", config, model, resume=True)
        probe_map(model, tasks(), HOW, run=run, cache=False)
    run = RunDirectory.create(tmp_path / "run", config, model, resume=True)
    assert probe_map(model, tasks(), HOW, run=run, cache=False) == found
    assert calls == ["letter", "position", "position", "word"]
    changed = [*tasks()[:2], words_task(seed=1)]
    with pytest.raises(OutputError, match="tasks"):
        RunDirectory.create(tmp_path / "run", map_config(changed, HOW), model, resume=True)
    same = replace(HOW, depths=None, portions=list(HOW.portions))
    RunDirectory.create(tmp_path / "run", map_config(tasks(), same), model, resume=True)
    for name, value in OTHER.items():
        other = map_config(tasks(), replace(HOW, **{name: value}))
        with pytest.raises(OutputError, match=name):
            RunDirectory.create(tmp_path / "run", other, model, resume=True)


def test_bad_tasks_are_refused_before_the_first_is_run(tiny, monkeypatch):
    monkeypatch.setattr(module, "read_together", lambda *given, **named: pytest.fail("it ran"))
    model, (first, *_, last) = tiny("llama"), tasks()
    labelled = [*first.examples]
    place = first.split(seed=0).train[0]
    labelled[place] = replace(labelled[place], label="rare")
    rare = replace(first, examples=tuple(labelled))
    for given, error, word in [
        ([], InputError, "no task"),
        ([first, first], InputError, "letter"),
        ([last, rare], ClassTooSmall, "rare"),
    ]:
        with pytest.raises(error, match=word):
            probe_map(model, given, HOW, cache=False)


def test_the_order_of_families_needs_tasks_of_both_kinds(found):
    with pytest.raises(InputError, match="two tasks"):
        found.order()
    with pytest.raises(InputError, match="centroid"):
        found.order("centroid")


def test_the_order_is_found_where_it_was_planted(found):
    """The score of a task rises at one depth: lower for the linguistic ones."""

    def rising(name, family, at, seed):
        draw = np.random.default_rng(seed)
        chance, done = draw.random((4, 30)) < 0.05, np.arange(4)[:, None] >= at
        credit = tuple(tuple(row.tolist()) for row in np.where(done, 1.0, chance).astype(float))
        return replace(found.probes[1], task=name, family=family, credit=credit, weight=(1.0,) * 30)

    planted = [rising(f"l{i}", "lexical", 1, i) for i in range(3)]
    planted += [rising(f"f{i}", "factual", 3, i + 9) for i in range(3)]
    order = replace(found, probes=tuple(planted)).order("expected")
    assert order.difference.mean == pytest.approx(2.0, abs=0.4) and order.difference.low > 1
    assert order.p == pytest.approx(1 / 20)
