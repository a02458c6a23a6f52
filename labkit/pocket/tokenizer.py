"""A word-level tokenizer for the pocket world, in the standard Hugging Face format.

A token is a word or a punctuation mark; a BOS stands in front of every text, so that no
subject ever sits on position 0, the attention sink. Decoding joins words with spaces and
puts punctuation back where it belongs; character offsets are exact.
"""

import re
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that knows exactly the words of some texts.

    Args:
        texts: The texts; any order gives the same tokenizer.

    Returns:
        A fast tokenizer. Ids 0 to 3 are pad, unk, bos, eos; the words follow in
        alphabetical order.
    """
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)})
    vocabulary = {word: index for index, word in enumerate([*SPECIAL.values(), *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A",
        pair="<bos> $A $B",
        special_tokens=[("<bos>", vocabulary["<bos>"])],
    )
    # No vocabulary entry starts with "##": this decoder only joins and tidies punctuation.
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side="left", clean_up_tokenization_spaces=False, **SPECIAL
    )
