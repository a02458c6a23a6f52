"""The tokens of a subject inside a prompt, by character offsets."""

import re
import unicodedata
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from labkit.errors import InputError, SubjectNotFound
from labkit.tokens.prompts import n_prepended, require_text
from labkit.tokens.words import has_ending, inside_word


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
    after it. Composed and decomposed accents are taken for the same.

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
