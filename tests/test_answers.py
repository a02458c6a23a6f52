"""Every token shown behind a prompt leads back to itself, in every kind of tokenizer."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from labkit import pocket as pocket_world
from labkit.errors import NotOneToken
from labkit.facts.answers import follow, followed, shown, told
from labkit.facts.fact import Fact
from labkit.facts.known import known_facts
from labkit.readout import logit_lens, predict
from labkit.tokens import target_ids
from labkit.tokens.words import separator

PROMPTS = (
    "The capital of France is", 'The capital of France is called "', "The capital (", "costs $",
    "x=", "2 + 2 =", "and/", "Jean-", "It is ", "It is  ", "中国的首都是", "首都は", "เมืองหลวงคือ",
    "The dog", "in the year", "in the year 19", "She said: “", "La ville de l'", "is Reyk",
    "it was -", "We do", "Hello\n", "at 12:", "return", "수도는", "https://", "C++", "Это",
)  # fmt: skip
TEXT = [
    "The capital of France is Paris, and the city is called Paris.", "the year 1945 (or 2020)",
    'He said "the dog costs $5" and/or x=4; 2 + 2 = 4.', "中国的首都是北京。", "수도는 서울이다",
]  # fmt: skip


def byte_level():
    """Byte-level BPE that writes every digit, and the space before it, alone."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXT * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def metaspace():
    """BPE as SentencePiece writes it: a mark for a space, one in front, bytes for the rest."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")]
    )
    signs = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=signs, show_progress=False)
    backend.train_from_iterator(TEXT * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def word_piece():
    """Words and the rest of words, `##s`; no spaces."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=250, special_tokens=["[UNK]"], show_progress=False
    )
    backend.train_from_iterator(TEXT * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


FAMILIES = {
    "byte level": byte_level,
    "metaspace": metaspace,
    "word piece": word_piece,
    "words": lambda: AutoTokenizer.from_pretrained(pocket_world.path()),
}


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request):
    return FAMILIES[request.param]()


def test_every_token_shown_leads_back_to_itself(tokenizer):
    """All of a vocabulary, each token after every fourth prompt, and after each prompt a fourth
    of them; signs that stand for no text aside."""
    ids = [i for i in range(len(tokenizer)) if i != tokenizer.unk_token_id][:450]
    missed = [
        (prompt, tokenizer.convert_ids_to_tokens(i))
        for turn, prompt in enumerate(PROMPTS)
        for i in ids[turn % 4 :: 4]
        if target_ids(tokenizer, prompt, shown(tokenizer, prompt, i)) != [i]
    ]
    assert not missed


@pytest.mark.parametrize(
    ("prompt", "target", "between"),
    [
        ("The capital of France is", "Paris", " "),
        ('is called "', "Paris", ""),
        ('She said "yes"', "and", " "),
        ("is called “", "Paris", ""),
        ("It costs $", "5", ""),
        ("100€", "and", " "),
        ("2+2=", "4", ""),
        ("2 + 2 =", "4", " "),
        ("and/", "or", ""),
        ("Jean-", "Paul", ""),
        ("France -", "Paris", " "),
        ("The dog", "'s", ""),
        ("He is", ".", ""),
        ("He sang", '"Heroes"', " "),
        ("La ville de l'", "eau", ""),
        ("the Beatles'", "song", " "),
        ("in the year 19", "45", ""),
        ("1 2 3", "4", " "),
        ("In 1945", "Germany", " "),
        ("首都は", "Paris", ""),
        ("The city is", "北京", ""),
        ("수도는", "서울", " "),
        ("is ", "the", ""),
        ("is", " the", ""),
        ("", "the", ""),
    ],
)
def test_prompt_and_target_are_joined_as_running_text_is(prompt, target, between):
    assert separator(prompt, target) == between


def test_a_bare_space_moves_to_the_prompt_and_digits_are_refused():
    tokenizer = byte_level()
    assert tokenizer.decode(target_ids(tokenizer, "in the year", "7")[:1]) == " "
    assert follow(tokenizer, "in the year", "7") == ("in the year ", "7")
    assert follow(tokenizer, "He sang", '"Heroes"')[0].rstrip() == 'He sang "'
    assert follow(tokenizer, "in the year", "France") == ("in the year", "France")
    with pytest.raises(NotOneToken, match="'1', '9', '4', '5'"):
        follow(tokenizer, "in the year", "1945")
    assert follow(tokenizer, "in the year 19", "4") == ("in the year 19", "4")
    assert tokenizer.decode(followed(tokenizer, "in the year", "1945")) == " 1945"


def test_a_fact_is_told_by_what_tells_its_object():
    fact = Fact(subject="it", template="{} is", object="7", aliases=("seven", "9"))
    asked = told(byte_level(), fact)
    assert (asked.prompt, asked.object, asked.aliases) == ("it is ", "7", ("seven", "9"))
    assert told(byte_level(), asked) == asked


def test_a_model_knows_a_number_only_by_all_of_its_digits(tiny):
    """Each digit by hand: the worst rank, the product of the probabilities."""
    model = tiny("llama")
    (row,) = known_facts(model, [Fact(subject="mill", template="the {} of", object="19")]).asked
    ranks, share, prompt = [], 1.0, "the mill of"
    for token in target_ids(model.tokenizer, prompt, "19"):
        p = (
            model.hf(model.pad([[*model.ids(prompt), *(t for t, _ in ranks)]]).ids)
            .logits[0, -1]
            .softmax(-1)
        )
        ranks.append((token, 1 + int((p > p[token]).sum())))
        share *= float(p[token])
    assert row.rank == max(rank for _, rank in ranks)
    assert row.probability == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize(
    "prompt", ['the mill is called "', "the mill of", "the mill (", "the mill "]
)
def test_what_predict_shows_is_what_the_lens_and_known_facts_follow(tiny, prompt):
    model = tiny("llama")
    said = predict(model, prompt, k=4)
    asked = enumerate(zip(said.tokens, said.answers, strict=True))
    for place, token in ((place, text) for place, both in asked for text in both):
        lens = logit_lens(model, prompt, answer=token)
        assert lens.answer_rank[-1, -1] == place
        assert lens.answer_probability[-1, -1] == pytest.approx(said.probabilities[place], rel=1e-4)
        fact = Fact.from_prompt(prompt, "mill", token)
        assert known_facts(model, [fact]).asked[0].rank == place + 1
