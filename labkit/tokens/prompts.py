"""A prompt as token ids, and what the tokenizer puts in front of it."""

from transformers import PreTrainedTokenizerBase

from labkit.errors import EmptyPrompt, InputError
from labkit.tokens.batches import pad_id


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
        raise InputError(f"{text!a:.80}: half of a surrogate pair is not valid text") from error


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


def front_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What may stand in front of a text that is no prompt: BOS, or end of text, or padding.

    A text's first token is an attention sink in most models: its state says little about
    itself. With this in front, no word of the text is that token.
    """
    for candidate in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return pad_id(tokenizer)
