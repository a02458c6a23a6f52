"""Which tokens are a word's: by the characters at which they begin.

A token belongs to the word in which its first character stands, white space passed over. So
every token has one word at most, and no two words share one. Where a tokenizer joins the ends
of two words (").", "cannot" where a treebank has "can" and "not"), the joint token is the first
word's; a second word with no token of its own has no state that is about it alone, and is
refused with `NotAligned`.

Every text is read after a BOS (or an end of text), whatever the model's setting: a first token is
an attention sink, and a word that stood there would have a state that is not about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.arguments import checked
from labkit.errors import EmptyPrompt, InputError, NotAligned
from labkit.models.model import LabModel
from labkit.tokens import front_id

Span = tuple[int, int, int]
"""A word: the number of its text, and its characters there, start and end."""


@dataclass(frozen=True)
class Encoded:
    """A text's tokens, as the model reads them.

    Attributes:
        text: The text.
        ids: Its tokens, a BOS (or an end of text) in front.
        begins: The character at which each token begins, white space passed over; -1 for a
            token that stands for none (what stands in front, mere space).
    """

    text: str
    ids: tuple[int, ...]
    begins: tuple[int, ...]

    def has_token(self, start: int, stop: int) -> bool:
        """Whether a token begins at one of the characters `start..stop-1`."""
        return any(start <= at < stop for at in self.begins)

    def positions(self, start: int, stop: int) -> range:
        """Positions of the tokens that begin at characters `start..stop-1`.

        Raises:
            NotAligned: If there is none.
        """
        inside = [place for place, at in enumerate(self.begins) if start <= at < stop]
        if not inside:
            raise NotAligned(
                f"no token of {self.text!r} begins in {self.text[start:stop]!r} (characters "
                f"{start} to {stop}): the tokenizer joins it to the text before it. Leave it out"
            )
        return range(inside[0], inside[-1] + 1)


@checked
def encoded(model: LabModel, texts: Sequence[str]) -> list[Encoded]:
    """Texts as the model reads them, each token with the character at which it begins.

    Args:
        model: Whose tokenizer to use.
        texts: The texts.

    Raises:
        NotAligned: If the tokenizer does not tell at which characters its tokens stand.
        EmptyPrompt: If a text is empty, or tokenises to nothing.
        InputError: If a text has more tokens than the model reads.
    """
    if not model.tokenizer.is_fast:
        raise NotAligned(f"the tokenizer of {model.name} does not report character offsets")
    if not texts:
        return []
    found = model.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    front = front_id(model.tokenizer)
    several = []
    for number, text in enumerate(texts):
        ids = found["input_ids"][number]
        if not text.strip() or not ids:
            raise EmptyPrompt(f"text {number} ({text!r}) is empty: give it at least one word")
        if model.n_ctx is not None and 1 + len(ids) > model.n_ctx:
            raise InputError(
                f"text {number} has {1 + len(ids)} tokens: {model.name} reads "
                f"{model.n_ctx} at most; shorten it"
            )
        begins = [_begin(text, *offsets) for offsets in found["offset_mapping"][number]]
        several.append(Encoded(text, (front, *ids), (-1, *begins)))
    return several


def _begin(text: str, start: int, stop: int) -> int:
    """The first character of a token that is no space; -1 where there is none."""
    piece = text[start:stop]
    return start + len(piece) - len(piece.lstrip()) if piece.strip() else -1
