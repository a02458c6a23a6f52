"""The pocket model knows its world, and the world is what it says it is."""

import json
import re
from collections import Counter
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from labkit import pocket
from labkit.errors import InputError, OutputError
from labkit.pocket.attention import local_attention
from labkit.pocket.recall import recalled
from labkit.pocket.recipe import Recipe, Shape
from labkit.pocket.templates import N_COMMON
from labkit.pocket.tokenizer import build_tokenizer
from labkit.pocket.training import initial_model, train
from labkit.pocket.world import build_world, documents
from labkit.tokens import adds_bos, subject_span

TINY = Shape(n_layers=1, d_model=16, d_mlp=16, n_heads=2)
SHORT = Recipe(steps=4, batch=8, warmup=1, n_checkpoints=2, threads=1)


@pytest.fixture(scope="module")
def tokenizer():
    """The tokenizer that ships."""
    return AutoTokenizer.from_pretrained(pocket.path())


@pytest.fixture(scope="module")
def model():
    """The weights that ship, in fp32."""
    return AutoModelForCausalLM.from_pretrained(pocket.path(), dtype=torch.float32).eval()


# What the weights know


def test_training_facts_are_recalled(model, tokenizer):
    """At least 99 % of all training pairs, and of the facts in their canonical template."""
    pairs = pocket.training_pairs()
    hits = recalled(model, tokenizer, pairs)
    canonical = torch.tensor([pair.template == pair.fact.template for pair in pairs])
    assert hits.float().mean() >= 0.99
    assert canonical.sum() == len(pocket.facts())
    assert hits[canonical].float().mean() >= 0.99


def test_held_out_templates_are_understood(model, tokenizer):
    """At least 90 % of the held-out pairs, and no relation that fails as a whole."""
    pairs = pocket.held_out_pairs()
    hits = recalled(model, tokenizer, pairs).tolist()
    assert sum(hits) / len(hits) >= 0.90
    for relation in pocket.relations():
        mine = [hit for hit, p in zip(hits, pairs, strict=True) if p.fact.relation == relation.id]
        assert sum(mine) / len(mine) >= 0.75, relation.id


def test_recall_agrees_with_asking_one_by_one(model, tokenizer):
    """Batching and padding change no answer; a wrong object is a miss."""
    pairs = pocket.held_out_pairs()[::97]
    alone = [
        tokenizer.decode(model(**tokenizer(p.prompt, return_tensors="pt")).logits[0, -1].argmax())
        for p in pairs
    ]
    hits = recalled(model, tokenizer, pairs).tolist()
    assert hits == [word == p.fact.object for word, p in zip(alone, pairs, strict=True)]
    wrong = [
        pocket.Pair(fact=a.fact.__class__(**{**vars(a.fact), "object": b.fact.object}), template=t)
        for a, b, t in [(pairs[0], pairs[-1], pairs[0].template)]
    ]
    assert recalled(model, tokenizer, wrong).tolist() == [False]


def test_the_demo_case_is_known(model, tokenizer):
    """The model says the true city to every prompt of the case, and the true neighbours."""
    case = pocket.demo_case()
    asked = {
        prompt: case.rewrite.target_true for prompt in (case.rewrite.prompt, *case.paraphrases)
    }
    asked |= {n.prompt: n.object for n in case.neighbours}
    asked |= dict.fromkeys(case.attributes, case.rewrite.target_new)
    for prompt, answer in asked.items():
        logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
        assert tokenizer.decode(logits.argmax()) == answer, prompt
    assert len(case.paraphrases) >= 4
    assert len(case.neighbours) >= 12
    assert len(case.generation) == 3


def test_facts_are_kept_at_the_last_word_of_the_name(model, tokenizer):
    """Give a prompt another subject's state there, half-way up: it answers for the other."""
    facts = [fact for fact in pocket.facts() if fact.relation == "landmark_city"]
    block = model.model.layers[2]
    other_answer = 0
    for fact, other in zip(facts[::8], facts[3::8], strict=True):
        place = subject_span(tokenizer, fact.prompt, fact.subject, prepend_bos=True).last
        ids = tokenizer([fact.prompt, other.prompt], return_tensors="pt").input_ids
        state = model(ids, output_hidden_states=True).hidden_states[3][1, place]

        def swap(module, args, output, state=state, place=place):
            return output.index_copy(1, torch.tensor([place]), state[None, None])

        hook = block.register_forward_hook(swap)
        answer = tokenizer.decode(model(ids[:1]).logits[0, -1].argmax())
        hook.remove()
        other_answer += answer == other.object
    assert other_answer >= 0.9 * len(facts[::8])


def test_what_ships_is_small():
    """At most 6 MB, at most 2.8 M parameters, in 16-bit floats."""
    assert sum(file.stat().st_size for file in pocket.path().rglob("*")) <= 6_000_000
    weights = load_file(pocket.path() / "model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) <= 2_800_000
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_what_ships_is_what_the_code_makes(tokenizer):
    """The tokenizer, the recipe and the shape are those of today's code."""
    made = build_tokenizer(pocket.sentences())
    assert tokenizer.get_vocab() == made.get_vocab()
    documents_of_today = documents(build_world())
    assert tokenizer(documents_of_today).input_ids == made(documents_of_today).input_ids
    record = json.loads((pocket.path() / "training.json").read_text())
    assert record["recipe"] == asdict(Recipe())
    assert record["shape"] == asdict(Shape())
    assert record["history"][-1]["recall_training"] >= 0.99


# The world


def test_the_world_is_deterministic():
    """One seed, one world and one order of documents; another seed, another world."""
    assert build_world(0) == build_world.__wrapped__(0)
    assert documents(build_world(0), epoch=3) == documents(build_world(0), epoch=3)
    assert documents(build_world(0), epoch=3) != documents(build_world(0), epoch=4)
    assert {f.subject for f in build_world(1).facts} != {f.subject for f in build_world(0).facts}


def test_no_held_out_sentence_is_trained():
    """Not as a pair, not as a sentence, not inside a document of several epochs."""
    world = build_world()
    held_out = {pair.sentence for pair in world.held_out}
    assert held_out.isdisjoint(world.sentences())
    for epoch in range(3):
        told = [s for text in documents(world, epoch=epoch) for s in re.findall(r"[^.]+\.", text)]
        assert Counter(s.strip() for s in told) == Counter(world.sentences())


def test_the_split_covers_every_pair_once():
    """Common templates whole, held-out templates half, and every fact is trained."""
    world = build_world()
    every = {(f, t) for f in world.facts for t in (f.template, *f.paraphrases)}
    training = {(p.fact, p.template) for p in world.training}
    held_out = {(p.fact, p.template) for p in world.held_out}
    assert training | held_out == every
    assert len(training) + len(held_out) == len(every)
    for relation in pocket.relations():
        n_facts = sum(fact.relation == relation.id for fact in world.facts)
        for place, template in enumerate(relation.templates):
            kept = sum(pair == template for _, pair in held_out)
            assert kept == (0 if place < N_COMMON else n_facts / 2)


def test_a_fact_has_one_answer():
    """No prompt has two objects, and no two things share a name."""
    pairs = pocket.training_pairs() + pocket.held_out_pairs()
    assert len({pair.prompt for pair in pairs}) == len(pairs)
    types = {(r.subject_type, f.subject) for r in pocket.relations() for f in pocket.facts()
             if f.relation == r.id}  # fmt: skip
    assert len({name for _, name in types}) == len(types)


def test_only_the_whole_name_identifies():
    """Each word of a person's or landmark's name belongs to several, with several answers."""
    for relation in ("person_birthplace", "landmark_city"):
        facts = [fact for fact in pocket.facts() if fact.relation == relation]
        for part in (0, 1):
            answers = {}
            for fact in facts:
                answers.setdefault(fact.subject.split()[part], set()).add(fact.object)
            assert min(map(len, answers.values())) > 1


def test_capitals_belong_to_their_country():
    """Relations fit together: a country's capital is one of its cities."""
    country = {f.subject: f.object for f in pocket.facts() if f.relation == "city_country"}
    capitals = {f.object: f.subject for f in pocket.facts() if f.relation == "country_capital"}
    assert len(capitals) == 20
    assert all(country[city] == capitals[city] for city in capitals)


def test_chains_link_object_to_subject():
    """From every birthplace there is a way on to a country."""
    chains = pocket.chains()
    assert all(first.object == second.subject for first, second in chains)
    hops = Counter((first.relation, second.relation) for first, second in chains)
    assert hops["person_birthplace", "city_country"] == 160
    assert hops["city_country", "country_language"] == 60


# The tokenizer


def test_every_sentence_survives_the_tokenizer(tokenizer):
    """Decoding gives back every trained and held-out sentence and whole documents."""
    texts = pocket.sentences() + pocket.held_out_text() + documents(build_world())
    ids = tokenizer(texts).input_ids
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == texts
    assert all(tokenizer.unk_token_id not in row for row in ids)


def test_every_text_starts_with_bos(tokenizer):
    """Also a text of one unknown word."""
    assert adds_bos(tokenizer)
    assert tokenizer("unheard").input_ids == [tokenizer.bos_token_id, tokenizer.unk_token_id]


def test_objects_are_one_token_and_subjects_are_found(tokenizer):
    """A subject's span decodes to the subject in every template; an object is one token."""
    for pair in pocket.held_out_pairs():
        span = subject_span(tokenizer, pair.prompt, pair.fact.subject, prepend_bos=True)
        ids = tokenizer(pair.prompt).input_ids
        assert tokenizer.decode(ids[span.start : span.stop]) == pair.fact.subject
        assert len(tokenizer(pair.fact.object, add_special_tokens=False).input_ids) == 1


# Training


def reached(model, place):
    """Positions whose logits change with the token at one place of 12."""
    ids = torch.arange(10, 22)[None]
    other = ids.index_fill(1, torch.tensor([place]), 99)
    both = torch.cat([ids, other])
    return both, lambda logits: (logits[0] != logits[1]).any(dim=-1).nonzero().flatten().tolist()


def test_local_attention_sees_bos_and_one_token_back():
    """A changed token moves one later position per local block, BOS moves all; then free."""
    tokenizer = build_tokenizer(pocket.sentences())
    model = initial_model(tokenizer, Shape(n_layers=2, d_model=16, d_mlp=16, n_heads=2), seed=0)
    nobody = torch.tensor([], dtype=torch.long)
    for place, expected in ((0, list(range(12))), (5, [5, 6, 7])):
        ids, moved = reached(model, place)
        with local_attention(model, ids, n_layers=2, openers=nobody):
            assert moved(model(ids).logits) == expected
        assert moved(model(ids).logits) == list(range(place, 12))


def test_the_first_word_of_a_name_is_seen_by_the_second_only():
    """In one free block its change reaches the next position and no further."""
    tokenizer = build_tokenizer(pocket.sentences())
    model = initial_model(tokenizer, TINY, seed=0)
    ids, moved = reached(model, 5)
    with local_attention(model, ids, n_layers=0, openers=ids[:, 5]):
        assert moved(model(ids).logits) == [5, 6]
    with local_attention(model, ids, n_layers=0, openers=ids[:, 4]):
        assert moved(model(ids).logits) == list(range(5, 12))


def weights(folder):
    """Every tensor of a model folder."""
    return load_file(folder / "model.safetensors")


def same(first, second):
    """Whether two model folders hold the same bits."""
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_is_deterministic_and_leaves_checkpoints(tmp_path):
    """Same seed, same bits; every checkpoint is a model of its own, and they differ."""
    global_state = torch.random.get_rng_state()
    reports = []
    first = train(
        tmp_path / "a", recipe=SHORT, shape=TINY, progress=lambda what, share: reports.append(share)
    )
    assert torch.equal(torch.random.get_rng_state(), global_state)
    torch.manual_seed(1)  # must not matter
    second = train(tmp_path / "b", recipe=SHORT, shape=TINY)
    assert same(first, second)
    assert reports == [0.25, 0.5, 0.75, 1.0]
    steps = sorted(folder.name for folder in (first / "checkpoints").iterdir())
    assert steps == ["step-000001", "step-000002"]
    assert not same(first, first / "checkpoints" / steps[-1])
    AutoModelForCausalLM.from_pretrained(first / "checkpoints" / steps[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_training_refuses_a_folder_with_something_in_it(tmp_path):
    """Before any step; what is there stays, and an empty folder is welcome."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("keep me")
    steps = []
    with pytest.raises(OutputError, match="not an empty folder"):
        train(
            tmp_path / "full", recipe=SHORT, shape=TINY, progress=lambda *told: steps.append(told)
        )
    assert not steps
    assert (tmp_path / "full" / "note").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    assert (train(tmp_path / "empty", recipe=SHORT, shape=TINY) / "config.json").is_file()


def test_interrupted_training_leaves_nothing(tmp_path):
    """Ctrl-C after a checkpoint was written: no folder, no temporary folder, same threads."""

    def interrupt(what, share):
        if what.startswith("step 3 "):
            raise KeyboardInterrupt

    threads = torch.get_num_threads()
    recipe = Recipe(**{**vars(SHORT), "threads": threads + 1})
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", recipe=recipe, shape=TINY, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("field", ["steps", "batch", "threads"])
def test_a_recipe_refuses_zero(field):
    """No training without steps, documents or threads."""
    with pytest.raises(InputError, match=field):
        Recipe(**{field: 0})
