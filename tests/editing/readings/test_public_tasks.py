"""Public tasks are scored as the model itself would score them, edited or not."""

import builtins
import json
import random

import pytest
import torch

from editing.edits.effect import in_effect
from editing.readings.lm_eval_tasks import PublicTasks, public_tasks
from labkit.errors import InputError
from labkit.pocket import facts
from labkit.running.scoring import score

lm_eval = pytest.importorskip("lm_eval", reason="the optional extra lm-eval is not installed")


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A task of its own data: which of two cities is a landmark's?"""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    landmarks = [fact for fact in facts() if fact.relation == "landmark_city"][:8]
    cities = sorted({fact.object for fact in landmarks})
    rows = [
        {
            "question": fact.prompt,
            "choices": [fact.object, next(c for c in cities if c != fact.object)],
            "label": 0,
        }
        for fact in landmarks
    ]
    path = tmp_path / "landmarks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "task": "landmarks",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}],
    }
    return config, rows


def expected(model, rows):
    """How often the first choice is the likeliest, its tokens' log-probabilities summed."""
    right = 0
    for row in rows:
        nll, _ = score(model, [(row["question"], choice) for choice in row["choices"]])
        lengths = torch.tensor([len(model.tokenizer(c).input_ids) for c in row["choices"]])
        right += int((nll * lengths).argmin() == 0)
    return right / len(rows)


def test_a_task_is_scored_as_the_model_scores_it(pocket, task, random_delta):
    config, rows = task
    before = random.getstate(), torch.get_rng_state()
    found = public_tasks(pocket, [config])
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    (row,) = found.table.to_dict(orient="records")
    assert (row["task"], row["metric"], row["n"]) == ("landmarks", "acc", 8)
    assert row["mean"] == expected(pocket, rows) == 1.0 and row["low"] < 1.0
    with in_effect(pocket, random_delta(pocket, scale=3.0)):
        (edited,) = public_tasks(pocket, [config], limit=6).table.to_dict(orient="records")
        assert edited["mean"] == expected(pocket, rows[:6])
        assert edited["n"] == 6


def test_what_it_finds_comes_back_as_it_was_saved(pocket, task, tmp_path):
    found = public_tasks(pocket, [task[0]], limit=2)
    again = PublicTasks.load(found.save(tmp_path / "tasks"))
    assert again.table.equals(found.table) and "landmarks" in again.title
    assert len(found.figure().data) == 1


def test_what_cannot_be_run_is_named(pocket, monkeypatch):
    with pytest.raises(InputError, match="no task"):
        public_tasks(pocket, [])
    with pytest.raises(InputError, match="piqua"):
        public_tasks(pocket, ["piqua"])
    real = builtins.__import__

    def without(name, *args, **more):
        if name.startswith("lm_eval"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'labkit\[lm-eval\]'"):
        public_tasks(pocket, ["piqa"])
