"""Gains are those of the tasks asked one by one; what is called clear is not luck."""

import numpy as np
import pandas as pd
import pytest

from labkit.errors import ContextTooShort, EmptySplit, InputError, PoolTooSmall
from labkit.icl import Demonstrations, Gains, GainsResult, Item, Task, scorable, task
from tests.reference import shows


def test_each_task_is_asked_as_demonstrations_asks_it(pocket, tmp_path):
    own = [task(name, pocket) for name in ("country_continent", "company_product")]
    found = Gains(k=3, draws=2, queries=6)(pocket, own)
    for each in own:
        fitted, tokens = scorable(pocket, each)
        alone = Demonstrations(
            conditions=("gold", "random"), ks=(0, 3), draws=2, queries=6, tokens=tokens
        )(pocket, fitted)
        for arm, place in {"none": (0, 0), "gold": (0, 1), "random": (1, 1)}.items():
            expected = alone.values("gold")[place].mean(axis=0)
            assert found.values(each.name, arm, "gold") == pytest.approx(expected)
    found.save(tmp_path / "r")
    assert GainsResult.load(tmp_path / "r").to_frame().equals(found.to_frame())
    assert shows(found.figure(), found.to_frame()[["none", "gold", "random"]].to_numpy().ravel())


def made(none, gold, label="a"):
    """A result of given answers: by task, what is right without and with demonstrations."""
    rows = [
        {"task": f"t{number}", "labels": 2, "arm": arm, "query": str(q), "label": own}
        | {"accuracy": float(value), "gold": 0.1}
        for number, pair in enumerate(zip(none, gold, strict=True))
        for arm, values in zip(("none", "gold", "random"), (*pair, pair[0]), strict=True)
        for q, (value, own) in enumerate(zip(values, label * len(values), strict=False))
    ]
    answers = pd.DataFrame(rows)
    return GainsResult(model="m", fingerprint="f", k=2, draws=1, seed=0, answers=answers)


def test_a_gain_by_luck_is_not_clear_and_a_planted_one_is():
    draw = np.random.default_rng(0)
    coin = draw.integers(2, size=(20, 2, 40))
    planted = (np.arange(40) < 8, np.arange(40) < 36)
    found = made([*coin[:, 0], planted[0]], [*coin[:, 1], planted[1]], label="ab")
    assert found.clear() == ("t20",)
    frame = found.to_frame().set_index("task")
    assert frame["mean"].is_monotonic_decreasing and frame.index[0] == "t20"
    assert list(found.figure().layout.yaxis.ticktext) == frame.index.tolist()
    assert (frame["p_holm"] >= frame["p"]).all()
    assert frame.loc["t20", "mean"] == pytest.approx(0.7)
    assert found.by_labels().set_index("task").loc["t20", "mean"] == pytest.approx(0.7)
    assert found.over_tasks("gold", "none", tasks=["t20"]).mean == pytest.approx(0.7)


def test_learning_to_say_the_commonest_label_is_no_clear_gain():
    common = [number % 4 > 0 for number in range(40)]
    assert made([[0] * 40], [common], label="baaa").clear() == ()
    assert made([[0] * 40], [[1] * 40], label="baaa").clear() == ("t0",)


def small(n):
    items = tuple(Item(input=f"word {i}", label=("of", "in")[i % 2]) for i in range(n))
    return Task(name=f"small{n}", items=items, source="s")


@pytest.mark.parametrize(
    ("tasks", "fields", "error"),
    [
        ([], {}, EmptySplit),
        ([small(20), small(20)], {}, InputError),
        ([small(20), small(8)], {}, PoolTooSmall),
        ([small(40)], {"k": 30}, ContextTooShort),
    ],
)
def test_bad_input_of_any_task_is_refused_before_any_forward(
    tiny, no_forward, tasks, fields, error
):
    with pytest.raises(error):
        Gains(**fields)(tiny("gpt2"), tasks)


def test_impossible_settings_and_what_was_not_measured():
    for fields in ({"k": 0}, {"draws": 0}, {"queries": 0}):
        with pytest.raises(InputError):
            Gains(**fields)
    for unknown in ({"tasks": ["x"]}, {}):
        with pytest.raises(InputError):
            made([[0, 1]], [[1, 1]]).over_tasks("golden", "none", **unknown)
