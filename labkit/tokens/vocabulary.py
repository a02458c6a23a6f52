"""How vocabularies spell their tokens: letters for bytes, marks for spaces, `##`, `<0xE4>`.

A token's text alone does not always lead back to it: `ce` is the rest of a word in one place
and a word in another, and half a character has no text at all. Its spelling always does.
"""

import re

from transformers import PreTrainedTokenizerBase

_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")


class Token(str):
    """A token's text that remembers which token it is, and so leads back to it as an answer.

    It is that text in every other respect; a copy that was printed or written to a file is
    nothing but text (`labkit.facts.answers.shown` writes one that leads back all the same).

    Attributes:
        id: The token's id; -1 where it was lost.
    """

    id: int

    def __new__(cls, text: str, token: int = -1) -> "Token":
        """A text and its token."""
        made = super().__new__(cls, text)
        made.id = token
        return made

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, token: int) -> "Token":
        """A token of a tokenizer, with its own text."""
        return cls(tokenizer.decode([token]), token)

    def belongs_to(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether the tokenizer has this token under its id."""
        return 0 <= self.id < len(tokenizer) and tokenizer.decode([self.id]) == self


def bytes_in(text: str) -> bytes | None:
    """The bytes that a text such as `<0xE4><0xB8>` names; None for any other text."""
    if _BYTES.fullmatch(text) is None:
        return None
    return bytes.fromhex(text.replace("<0x", "").replace(">", ""))


def named(written: bytes) -> str:
    """Bytes as a text that names them: the inverse of `bytes_in`."""
    return "".join(f"<0x{byte:02X}>" for byte in written)


def spelt(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The token whose own spelling a text is: `▁Paris` or `<0xE4>`, where it has such tokens."""
    if "▁" not in text and _BYTES.fullmatch(text) is None:
        return None
    token = tokenizer.convert_tokens_to_ids(text)
    known = token is not None and tokenizer.convert_ids_to_tokens(token) == text
    return int(token) if known else None


def token_of(tokenizer: PreTrainedTokenizerBase, written: bytes) -> int | None:
    """The one token that stands for some bytes within a text, or None."""
    plain = written.decode("utf-8", errors="replace")
    spellings = (
        "".join(_LETTERS[byte] for byte in written),
        plain.replace(" ", "▁"),
        plain,
        "##" + plain,
        named(written),
    )
    for spelling in spellings:
        token = tokenizer.convert_tokens_to_ids(spelling)
        if token is not None and tokenizer.convert_ids_to_tokens(token) == spelling:
            return int(token)
    return None


def bytes_of(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes:
    """The bytes that a token writes within a text, from its spelling in the vocabulary."""
    spelling = tokenizer.convert_ids_to_tokens(token)
    byte = bytes_in(spelling)
    if byte is not None:
        return byte
    text = spelling.replace("▁", " ")
    if tokenizer.decode([token]).strip() == text.strip():  # spelt as it is written
        return text.encode()
    if all(letter in _BYTES_OF for letter in spelling):
        return bytes(_BYTES_OF[letter] for letter in spelling)
    return text.encode()


def _byte_letters() -> dict[int, str]:
    """The letter that byte-level vocabularies write for each byte."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


_LETTERS = _byte_letters()
_BYTES_OF = {letter: byte for byte, letter in _LETTERS.items()}
