"""Answers as tokens: which of an answer's tokens is followed, and how a token is shown.

Most readings follow one token: the answer's first. Some first tokens say nothing about the
answer: a bare space, which many tokenizers write before every number; a quotation mark; the
first byte of a character. `follow` moves such tokens to the prompt, and refuses a number that
is cut into digits, whose first digit it shares with many others. `followed` keeps them all,
for readings that can take several tokens.
"""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from labkit.errors import InputError, NotOneToken
from labkit.facts.fact import Fact
from labkit.tokens import target_ids
from labkit.tokens.vocabulary import bytes_of, named
from labkit.tokens.words import in_word, separator


def followed(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> list[int]:
    """Ids of an answer after a prompt, up to the first token that tells it apart.

    One token for most answers. What comes before the first letter or digit belongs to it, the
    bytes of that character, and all digits of a number.

    Raises:
        EmptyTarget, InputError: See `labkit.tokens.target_ids`.
    """
    ids = target_ids(tokenizer, prompt, answer)
    pieces = [bytes_of(tokenizer, token) for token in ids]
    if not any(map(in_word, _text(pieces))):
        return ids[:1]
    n = 1
    while n < len(ids) and (_says_nothing(_text(pieces[:n])) or _cuts_number(pieces, n)):
        n += 1
    return ids[:n]


def follow(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> tuple[str, str]:
    """A prompt and an answer whose first token tells it apart.

    Args:
        tokenizer: The tokenizer.
        prompt: The prompt.
        answer: Its answer.

    Returns:
        Both as they are, in most cases; else what says nothing has moved from the answer's
        front to the prompt's end. A character cut into bytes is followed by its first.

    Raises:
        NotOneToken: If the answer is a number that is cut into digits, or what says nothing
            cannot be moved.
        EmptyTarget, InputError: See `labkit.tokens.target_ids`.
    """
    ids = followed(tokenizer, prompt, answer)
    if len(ids) == 1:
        return prompt, answer
    pieces = [bytes_of(tokenizer, token) for token in ids]
    texts = [_text([piece]) for piece in pieces]
    if sum(text.strip().isdigit() for text in texts) > 1:
        raise NotOneToken(
            f"the answer {answer!r} is cut into {', '.join(map(repr, texts))}, and many numbers "
            "begin with the same digit: put the leading digits into the prompt, and name the "
            "next one"
        )
    written = separator(prompt, answer) + answer
    front = _text(pieces[:-1])
    if "\ufffd" in front:
        return prompt, answer
    for lead in dict.fromkeys((front, " " + front)):
        longer = tokenizer(prompt + lead, add_special_tokens=False).input_ids
        own = tokenizer(prompt, add_special_tokens=False).input_ids
        rest = written.removeprefix(lead)
        if longer != own + ids[:-1] or not rest.strip():
            continue
        if target_ids(tokenizer, prompt + lead, rest)[0] == ids[-1]:
            return prompt + lead, rest
    raise NotOneToken(
        f"the answer {answer!r} begins with {front!r}, which does not identify it, and the "
        f"tokenizer cannot write that after {prompt!r}: end the prompt with it, or name another"
    )


def told(tokenizer: PreTrainedTokenizerBase, fact: Fact) -> Fact:
    """A fact whose object's first token tells it apart: see `follow`.

    Aliases that do not go on from the same prompt are left out. A fact without an object is
    given back as it is.

    Raises:
        NotOneToken, EmptyTarget, InputError: See `follow`.
    """
    if not fact.answers:
        return fact
    first, *others = fact.answers
    prompt, answer = follow(tokenizer, fact.prompt, first)
    if prompt == fact.prompt and not others:
        return fact
    aliases = [_behind(tokenizer, fact.prompt, prompt, other) for other in others]
    if fact.object is None:
        kept = (answer, *(alias for alias in aliases if alias is not None))
    else:
        kept = tuple(alias for alias in aliases if alias is not None)
    return replace(
        fact,
        template=fact.template + prompt[len(fact.prompt) :],
        object=None if fact.object is None else answer,
        aliases=kept,
    )


def first_tokens(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answers: Sequence[str]
) -> set[int]:
    """The first tokens of some answers after a prompt."""
    return {target_ids(tokenizer, prompt, answer)[0] for answer in answers}


def shown(tokenizer: PreTrainedTokenizerBase, prompt: str, token: int) -> str:
    """A token after a prompt as a text that leads back to it, as an answer to the prompt.

    The token's own text where that is enough. Else `##ce` for what goes on a word, and
    `<0xE4>` or `<0x0A>` for bytes: part of a character, or white space.
    """
    plain, spelling = tokenizer.decode([token]), tokenizer.convert_ids_to_tokens(token)
    if token == tokenizer.unk_token_id:
        return plain
    written = named(bytes_of(tokenizer, token))
    for text in (plain, f" {plain}", f"##{plain}", written, spelling):
        try:
            if target_ids(tokenizer, prompt, text) == [token]:
                return text
        except InputError:
            continue
    return plain


def _behind(tokenizer: PreTrainedTokenizerBase, prompt: str, longer: str, alias: str) -> str | None:
    """An alias after a prompt that was made longer; None if it does not go on from there."""
    try:
        own, answer = follow(tokenizer, prompt, alias)
    except NotOneToken:
        return None
    return answer if own == longer else None


def _text(pieces: Sequence[bytes]) -> str:
    """The text of some tokens' bytes, with U+FFFD for what is no whole character."""
    return b"".join(pieces).decode("utf-8", errors="replace")


def _says_nothing(text: str) -> bool:
    """Whether a text holds no letter or digit, or ends within a character."""
    return not any(map(in_word, text)) or text.endswith("\ufffd")


def _cuts_number(pieces: Sequence[bytes], n: int) -> bool:
    """Whether the n-th token is a single digit, and the next one goes on the number."""
    last = pieces[n - 1].strip()
    return len(last) == 1 and last.isdigit() and pieces[n][:1].isdigit()
