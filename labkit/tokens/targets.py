"""Ids of a target as what follows a prompt."""

import re

from transformers import PreTrainedTokenizerBase

from labkit.errors import EmptyTarget, InputError
from labkit.tokens.prompts import require_text
from labkit.tokens.vocabulary import Token, bytes_in, spelt, token_of
from labkit.tokens.words import in_word, separator


def target_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> list[int]:
    """Ids of a target as the continuation of a prompt.

    What stands between the two is what stands there in running text
    (`labkit.tokens.words.separator`): a space, or nothing after a quotation mark, within a
    number, before `'s`. Three spellings are taken as they are: a target that begins with white
    space; one that is a single sign or token to the tokenizer; and what
    `labkit.facts.answers.shown` writes for tokens that no plain text leads to, `##ce` (the rest
    of a word) and `<0xE4>` (bytes of a character).

    Raises:
        EmptyTarget: If the target is empty, or holds nothing that the tokenizer knows.
        InputError: If the tokenizer cannot write the target after the prompt.
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
"""Texts after which a piece is cut where the prompt's own end would melt into it."""
