"""Text to token ids, and back to the positions that a question is about.

Everything here works on token ids and character offsets. Nothing decodes, glues strings
and tokenises again: that moves token boundaries, and with them the position that an edit
or a trace is about.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labkit.errors import EmptyPrompt, EmptyTarget, InputError, SubjectNotFound


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
    """Ids of one text, with the BOS in front if and only if it is asked for.

    Raises:
        EmptyPrompt: If the text is empty or tokenises to nothing.
        InputError: If a BOS is asked for and the tokenizer has none.
    """
    require_text(text)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if not text.strip() or not ids:
        raise EmptyPrompt(f"the prompt {text!r} is empty: give it at least one word")
    if not prepend_bos:
        return ids
    if tokenizer.bos_token_id is None:
        raise InputError("this tokenizer has no BOS token to prepend: load with prepend_bos=False")
    return [tokenizer.bos_token_id, *ids]


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
    shift = int(prepend_bos)
    return TokenSpan(covering[0] + shift, covering[-1] + 1 + shift)


def find_subject(prompt: str, subject: str, *, at: int | None = None) -> tuple[int, int]:
    """The characters of a subject inside a prompt, as `(start, stop)`.

    The first occurrence that is not the inside of a longer word; the one at character `at`
    where that is given. Composed and decomposed accents are taken for the same.

    Raises:
        SubjectNotFound: If the subject is empty or does not occur in the prompt.
    """
    subject = subject.strip()
    if not subject:
        raise SubjectNotFound(f"the subject is empty; name a part of {prompt!r}")
    forms = dict.fromkeys((subject, *(unicodedata.normalize(f, subject) for f in ("NFC", "NFD"))))
    for form in forms:
        if at is not None:
            if prompt.startswith(form, at):
                return at, at + len(form)
            continue
        start = prompt.find(form)
        while start >= 0:
            stop = start + len(form)
            if not (_joined(prompt, start) or _joined(prompt, stop)):
                return start, stop
            start = prompt.find(form, start + 1)
    where = "" if at is None else f" at character {at}"
    raise SubjectNotFound(
        f"the subject {subject!r} is not a word or phrase of the prompt {prompt!r}{where}; "
        "it must be written exactly as in the prompt"
    )


def _joined(text: str, border: int) -> bool:
    """Whether the characters on both sides of a border belong to one word."""
    if border in (0, len(text)):
        return False
    before, after = text[border - 1], text[border]
    return before.isalnum() and after.isalnum() and not (_spaceless(before) or _spaceless(after))


def _spaceless(character: str) -> bool:
    """Whether a character belongs to a script that puts no spaces between words."""
    name = unicodedata.name(character, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"))


def target_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> list[int]:
    """Ids of a target as the continuation of a prompt.

    A space separates the two unless the prompt ends in one, the target brings its own, or
    the target is written in a script without spaces.

    Raises:
        EmptyTarget: If the target is empty, or holds nothing that the tokenizer knows.
        InputError: If the tokenizer merges the target's first piece into the prompt.
    """
    if not target.strip():
        raise EmptyTarget(f"the target of the prompt {prompt!r} is empty: name what it should say")
    require_text(prompt + target)
    separated = prompt[-1:].isspace() or target[0].isspace() or _spaceless(target[0])
    joined = prompt + ("" if separated or not prompt else " ") + target
    base = tokenizer(prompt, add_special_tokens=False).input_ids if prompt else []
    full = tokenizer(joined, add_special_tokens=False).input_ids
    if full[: len(base)] != base:
        raise InputError(
            f"the tokenizer merges the target {target!r} into the end of {prompt!r}; "
            "end the prompt at a word, without a trailing space"
        )
    ids = full[len(base) :]
    if not ids or all(token == tokenizer.unk_token_id for token in ids):
        raise EmptyTarget(f"the target {target!r} is nothing that this tokenizer knows")
    return ids
