"""Text to token ids, and back to the positions that a question is about.

Everything here works on token ids and character offsets. Nothing decodes, glues strings
and tokenises again: that moves token boundaries, and with them the position that an edit
or a trace is about.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labkit.errors import EmptyPrompt, EmptyTarget, InputError, SubjectNotFound
from labkit.vocabulary import Token, bytes_in, spelt, token_of
from labkit.words import has_ending, in_word, inside_word, separator


@dataclass(frozen=True)
class TokenBatch:
    """Prompts as ids, padded on the left, so that all last tokens share one column.

    Attributes:
        ids: Token ids; the pad id where `mask` is False.
        mask: True where there is a token, False where there is padding.
    """

    ids: Int[Tensor, "prompt pos"]
    mask: Bool[Tensor, "prompt pos"]

    @property
    def lengths(self) -> Int[Tensor, " prompt"]:
        """Number of tokens of each prompt, padding left out."""
        return self.mask.sum(dim=-1)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of prompts and of positions."""
        return self.ids.shape[0], self.ids.shape[1]

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch on another device."""
        return TokenBatch(self.ids.to(device), self.mask.to(device))

    def rows(self, index: slice | Sequence[int] | Tensor) -> "TokenBatch":
        """Some of the prompts, columns that are padding in all of them left out."""
        ids, mask = self.ids[index], self.mask[index]
        first = int(mask.any(dim=0).int().argmax())
        return TokenBatch(ids[:, first:], mask[:, first:])


@dataclass(frozen=True)
class TokenSpan:
    """Positions `start..stop-1` of an unpadded prompt, the prepended BOS counted in."""

    start: int
    stop: int

    @property
    def last(self) -> int:
        """The last position of the span: where a subject's facts are read from."""
        return self.stop - 1

    def __len__(self) -> int:
        """Number of tokens in the span."""
        return self.stop - self.start

    def __iter__(self):
        """The positions, in order."""
        return iter(range(self.start, self.stop))


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer, called the ordinary way, puts its BOS in front of a text."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def require_text(text: str) -> None:
    """Refuse what no tokenizer can read.

    Raises:
        InputError: If it holds half of a surrogate pair, as damaged files and names do.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{text!a:.80}: half of a surrogate pair is no text") from error


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, prepend_bos: bool) -> list[int]:
    """Ids of one text, with one BOS in front if it is asked for.

    A text that begins with the BOS itself, as a rendered chat template does, gets no second.

    Raises:
        EmptyPrompt: If the text is empty or tokenises to nothing.
        InputError: If a BOS is asked for and the tokenizer has none.
    """
    require_text(text)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if not text.strip() or not ids:
        raise EmptyPrompt(f"the prompt {text!r} is empty: give it at least one word")
    if not prepend_bos or ids[0] == tokenizer.bos_token_id:
        return ids
    if tokenizer.bos_token_id is None:
        raise InputError("this tokenizer has no BOS token to prepend: load with prepend_bos=False")
    return [tokenizer.bos_token_id, *ids]


def n_prepended(tokenizer: PreTrainedTokenizerBase, text: str, *, prepend_bos: bool) -> int:
    """How many tokens `text_ids` puts in front of a text's own: 1 or 0."""
    bos = tokenizer.bos_token
    return int(prepend_bos and not (bos and text.lstrip().startswith(bos)))


def pad_left(
    sequences: Sequence[Sequence[int]], *, pad_id: int, device: torch.device | str = "cpu"
) -> TokenBatch:
    """Sequences of different lengths as one batch, padded on the left.

    Raises:
        EmptyPrompt: If there is no sequence, or one is empty.
    """
    if not sequences or not all(sequences):
        raise EmptyPrompt("there is nothing to run: no prompt, or a prompt with no token")
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = torch.tensor(sequence)
        mask[row, width - len(sequence) :] = True
    return TokenBatch(ids.to(device), mask.to(device))


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that stands where there is no token; masked out, so any will do."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def front_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What may stand in front of a text that is no prompt: BOS, or end of text, or padding.

    A text's first token is an attention sink in most models: its state says little about
    itself. With this in front, no word of the text is that token.
    """
    for candidate in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return pad_id(tokenizer)


def subject_span(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    subject: str,
    *,
    prepend_bos: bool,
    at: int | None = None,
) -> TokenSpan:
    """The tokens of a subject inside a prompt, by character offsets.

    The smallest run of tokens that covers the subject's characters. Where a tokenizer
    glues the subject's edge to a neighbour, the glued token is part of the span.

    Args:
        tokenizer: A fast tokenizer (one that reports character offsets).
        prompt: The whole prompt.
        subject: The subject, as it stands in the prompt. Composed and decomposed accents
            are taken for the same.
        prepend_bos: Whether a BOS stands in front, which moves every position by one.
        at: Character offset of the subject, where a template makes it known. By default
            the first occurrence that is not the inside of a longer word.

    Returns:
        Positions in the unpadded prompt.

    Raises:
        SubjectNotFound: If the subject is empty or does not occur in the prompt.
        InputError: If the tokenizer reports no offsets.
    """
    require_text(prompt)
    start, stop = find_subject(prompt, subject, at=at)
    if not tokenizer.is_fast:
        raise InputError("subject_span needs a fast tokenizer, which reports character offsets")
    encoding = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    covering = [
        position
        for position, (first, last) in enumerate(encoding["offset_mapping"])
        if first < stop and last > start
    ]
    if not covering:
        raise SubjectNotFound(f"no token of {prompt!r} stands for the subject {subject!r}")
    shift = n_prepended(tokenizer, prompt, prepend_bos=prepend_bos)
    return TokenSpan(covering[0] + shift, covering[-1] + 1 + shift)


def find_subject(prompt: str, subject: str, *, at: int | None = None) -> tuple[int, int]:
    """The characters of a subject inside a prompt, as `(start, stop)`.

    The first occurrence that is not the inside of a longer word; the one at character `at`
    where that is given. Where there is none, one with a Korean particle or a genitive's s
    behind it. Composed and decomposed accents are taken for the same.

    Raises:
        SubjectNotFound: If the subject is empty or does not occur in the prompt.
    """
    subject = subject.strip()
    if not subject:
        raise SubjectNotFound(f"the subject is empty; name a part of {prompt!r}")
    forms = dict.fromkeys((subject, *(unicodedata.normalize(f, subject) for f in ("NFC", "NFD"))))
    places = [
        (match.start(), match.start() + len(form))
        for form in forms
        for match in re.finditer(f"(?={re.escape(form)})", prompt)
    ]
    if at is not None:
        places = [place for place in places if place[0] == at]
    whole = [p for p in places if not (inside_word(prompt, p[0]) or inside_word(prompt, p[1]))]
    if at is None:
        inner = [p for p in places if not inside_word(prompt, p[0]) and has_ending(prompt, p[1])]
        places = whole or (inner if len(inner) == 1 else [])
    if places:
        return places[0]
    where = "" if at is None else f" at character {at}"
    found = prompt.find(subject)
    hint = (
        "it must be written exactly as in the prompt"
        if at is not None or found < 0
        else "it stands inside a longer word: if that is what you mean, give a template, "
        f"{prompt[:found] + '{}' + prompt[found + len(subject) :]!r}"
    )
    raise SubjectNotFound(
        f"the subject {subject!r} is not a word or phrase of the prompt {prompt!r}{where}; {hint}"
    )


def target_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> list[int]:
    """Ids of a target as the continuation of a prompt.

    What stands between the two is what stands there in running text (`words.separator`): a
    space, or nothing behind a quotation mark, within a number, before `'s`. Three spellings
    are taken as they are: a target that begins with white space; one that is a single sign or
    token to the tokenizer; and what `labkit.facts.answers.shown` writes for tokens that no plain
    text leads to, `##ce` (the rest of a word) and `<0xE4>` (bytes of a character).

    Raises:
        EmptyTarget: If the target is empty, or holds nothing that the tokenizer knows.
        InputError: If the tokenizer cannot write the target behind the prompt.
    """
    if isinstance(target, Token) and target.belongs_to(tokenizer):
        return [target.id]
    if not target.strip():
        raise EmptyTarget(f"the target of the prompt {prompt!r} is empty: name what it should say")
    require_text(prompt + target)
    if (token := spelt(tokenizer, target)) is not None:
        return [token]
    if (written := bytes_in(target)) and (token := token_of(tokenizer, written)) is not None:
        return [token]
    if re.match(r"##\w", target):
        return continuation_ids(tokenizer, prompt, target[2:])
    between = separator(prompt, target)
    if between and not in_word(target[0]):  # a piece such as `-based` or `(the`
        ids = continuation_ids(tokenizer, prompt, target)
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return ids
    return continuation_ids(tokenizer, prompt, between + target)


def continuation_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, text: str) -> list[int]:
    """Ids of what follows a prompt, letter by letter: no space is added.

    Where the tokenizer would merge the border away (`It is ` and `the`), the text's own pieces
    are taken: what is asked is what follows the prompt's tokens as they are.

    Raises:
        EmptyTarget: If the tokenizer knows nothing of the text.
        InputError: If it cannot write the text behind any other.
    """

    def cut(whole: str) -> list[int]:
        return tokenizer(whole, add_special_tokens=False).input_ids if whole else []

    ids: list[int] | None = None
    for front in (prompt, *_ANCHORS):
        base, full = cut(front), cut(front + text)
        if full[: len(base)] == base:
            ids = full[len(base) :]
            break
        single = token_of(tokenizer, text.encode())
        if single is not None:
            ids = [single]
            break
    if ids is None:
        raise InputError(
            f"the tokenizer merges the target {text!r} into the end of {prompt!r}; "
            "end the prompt at a word, without a trailing space"
        )
    if not ids or all(token == tokenizer.unk_token_id for token in ids):
        raise EmptyTarget(f"the target {text.strip()!r} is nothing that this tokenizer knows")
    return ids


_ANCHORS = ("\n", "a", "1", ".")
"""Texts behind which a piece is cut where the prompt's own end would melt into it."""
