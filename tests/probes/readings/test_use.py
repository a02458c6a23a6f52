"""What is removed is gone for any readout; the model goes on from what was changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.running.activations import patched
from labkit.running.execute import Execution
from labkit.running.logits import read_logits
from probes.probing.estimators import make
from probes.states.alignment import encoded
from probes.states.features import features_of
from probes.states.selection import States
from probes.tasks.task import Example, Task
from probes.use.configuration import Forgetting, Moving
from probes.use.directions import nullspace
from probes.use.interventions import UseResult, forget, move
from probes.use.next_token import Reads
from tests.probes.toys import planted
from tests.reference import shows


def words_task(seed=0, n=160):
    """Which of two words stands there, in sentences of other words around it."""
    draw = np.random.default_rng(seed)
    texts, examples = [], []
    for number in range(n):
        before = " ".join(draw.choice(["in", "a", "is"], size=draw.integers(1, 5)))
        word = ("the", "of")[number % 2]
        texts.append(f"{before} {word} a in")
        span = (len(before) + 1, len(before) + 1 + len(word))
        examples.append(
            Example(text=number, span=span, label=word, group=f"g{number}", item=f"i{number % 7}")
        )
    return Task(
        name="word", family="lexical", texts=tuple(texts), examples=tuple(examples), source="toy"
    )


def test_removal_takes_a_planted_direction_from_a_readout_and_a_placebo_does_not():
    draw = np.random.default_rng(0)
    toy, _ = planted(classes=2)
    side = (toy.labels == "1") * 2.0 - 1.0
    direction = torch.tensor(draw.normal(size=40), dtype=torch.float32)
    direction /= direction.norm()
    noise = torch.tensor(draw.normal(size=(300, 40)), dtype=torch.float32)
    # The label is along the direction, and nothing else is.
    states = noise - (noise @ direction)[:, None] * direction
    states += 5.0 * torch.tensor(side, dtype=torch.float32)[:, None] * direction + 3.0
    removal = nullspace(toy, toy.split(), states.numpy())
    spread = {
        name: float((change(states) @ direction).std())
        for name, change in {"removed": removal, "placebo": removal.placebo(0)}.items()
    }
    before = float((states @ direction).std())
    assert spread["removed"] < 0.1 * before and spread["placebo"] > 0.6 * before
    split = toy.split()
    left = removal(states).numpy()
    again = make("logistic").fit(left[split.train], toy.labels[split.train])
    assert again.score(left[split.test], toy.labels[split.test]) < 0.65
    assert removal.scores[0] == 1.0 and removal.scores[-1] < 0.65
    assert removal.placebo(0).directions.shape == removal.directions.shape
    # Whatever the units of the state's columns.
    units = torch.logspace(-1, 1, 40)
    scaled = nullspace(toy, toy.split(), (states * units).numpy())
    gone = scaled(states * units) @ (direction / units)
    assert float(gone.std()) < 0.2 * float((states @ direction).std())


def test_removal_is_a_projection_to_the_mean():
    toy, features = planted()
    states = torch.tensor(features.at(1))
    removal = nullspace(toy, toy.split(), features.at(1))
    once = removal(states)
    torch.testing.assert_close(removal(once), once, atol=1e-4, rtol=1e-4)
    basis = removal.directions
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), atol=1e-5, rtol=0)
    along = (once - states[toy.split().train].mean(0)) @ basis.T
    assert along.abs().max() < 1e-3


@pytest.mark.parametrize("depth", [0, 2, 3])
def test_the_next_token_is_that_of_a_full_run_with_a_hook(model, depth):
    """The states are the features' own; a change there does what a hook in a full run does."""
    toy = words_task(n=6)
    known = encoded(model, toy.texts)
    features = features_of(model, toy, States(depths=[depth]), known=known, cache=False)
    reads = Reads.of(model, features, known, np.arange(6))
    np.testing.assert_array_equal(reads.states, features.at(depth))
    draw = torch.Generator().manual_seed(0)
    change = torch.randn(reads.states.shape, generator=draw)
    clean, changed = reads.logits([change])
    for number, (text, ids) in enumerate(zip(toy.texts, reads.ids, strict=True)):
        pos = len(ids) - 1

        def add(resid, pos=pos, number=number):
            resid = resid.clone()
            resid[:, pos] += change[number]
            return resid

        site = ("resid_post", depth - 1) if depth else ("resid_pre", 0)
        tokenizer = model.tokenizer
        bos = tokenizer.bos_token_id
        front = tokenizer.eos_token_id if bos is None else bos
        batch = model.pad([[front, *tokenizer(text, add_special_tokens=False).input_ids]])
        with torch.no_grad():
            run = Execution(model, batch)
            expected = [read_logits(model, run.forward())[0, pos]]
            with patched(model, {site: add}):
                expected.append(read_logits(model, run.forward())[0, pos])
        torch.testing.assert_close(clean[number], expected[0].float(), atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(changed[number], expected[1].float(), atol=2e-4, rtol=1e-4)
        assert reads.following[number] == int(batch.ids[0, pos + 1])


def test_forgetting_is_beside_a_placebo_of_its_own_norm(tiny, tmp_path):
    model = tiny("llama")
    found = forget(model, words_task(), depth=1)
    taken, placebo = found.effects
    assert found.rank >= 1 and found.scores[0] > 0.9 and found.scores[-1] < 0.65
    assert taken.norm.mean == pytest.approx(placebo.norm.mean, rel=1e-5)
    assert taken.kl.mean > 0 and found.accuracy is not None and taken.accuracy is not None
    assert UseResult.load(found.save(tmp_path / "use")) == found
    assert set(found.to_frame()["intervention"]) == {"the task's directions", "random directions"}
    assert shows(found.figure(), [taken.kl.mean, placebo.kl.mean])


def test_where_nothing_is_read_nothing_is_forgotten(tiny):
    toy = words_task()
    rare = tuple(replace(e, label="ab"[n % 16 == 0]) for n, e in enumerate(toy.examples))
    found = forget(tiny("gpt2"), replace(toy, examples=rare), depth=1)
    assert found.rank == 0 and len(found.scores) == 1
    assert [effect.kl.mean for effect in found.effects] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_move_by_one_distance_brings_one_mean_to_the_other(tiny):
    model, toy = tiny("gpt2"), words_task()
    words = {"the": ["the"], "of": ["of"]}
    found = move(model, toy, 3, source="the", goal="of", targets=words)
    towards, placebo = found.effects
    assert towards.norm.mean == pytest.approx(placebo.norm.mean, rel=1e-5)
    assert towards.pull is not None and towards.pull.mean != placebo.pull.mean
    nothing = move(model, toy, 3, Moving(steps=0.0), source="the", goal="of", targets=words)
    for effect in nothing.effects:
        assert effect.kl.mean == pytest.approx(0, abs=1e-6)
        assert effect.pull.mean == pytest.approx(0, abs=1e-6)
    # At the last depth the logits are those of the moved states: no more blocks are run.
    split = toy.split()
    states = torch.tensor(features_of(model, toy, States(depths=[3]), cache=False).at(3))
    means = [states[split.train][toy.labels[split.train] == name].mean(0) for name in words]
    chosen = split.test[toy.labels[split.test] == "the"]
    with torch.no_grad():
        logits = read_logits(model, (states[chosen] + means[1] - means[0])[:, None])[:, 0]
        clean = read_logits(model, states[chosen][:, None])[:, 0]
    kl = (clean.softmax(-1) * (clean.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)
    assert towards.kl.mean == pytest.approx(float(kl.mean()), rel=1e-3)


BAD = {
    "depth": (lambda model, toy: forget(model, toy, 9), "depth 9"),
    "rounds": (lambda model, toy: forget(model, toy, 1, Forgetting(rounds=0)), "rounds"),
    "steps": (lambda model, toy: Moving(steps=float("inf")), "steps"),
    "few": (lambda model, toy: Moving(n_train=1), "n_train"),
    "class": (lambda model, toy: move(model, toy, 1, source="the", goal="xyz"), "xyz"),
    "targets": (
        lambda model, toy: move(model, toy, 1, source="the", goal="of", targets={"the": ["a"]}),
        "of",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(case, tiny):
    call, word = BAD[case]
    with pytest.raises(InputError, match=word):
        call(tiny("gpt2"), words_task())
