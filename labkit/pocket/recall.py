"""Does a model complete the sentences of the pocket world?"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from labkit.errors import InputError
from labkit.pocket.world import Pair

BATCH = 512


@torch.no_grad()
def recalled(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]
) -> Bool[Tensor, " pair"]:
    """Which pairs a model completes: its most likely next token is the object.

    Args:
        model: A plain transformers causal language model; used as it stands.
        tokenizer: Its tokenizer, to which every object is one token.
        pairs: Facts and the templates to ask them through.

    Raises:
        InputError: If there are no pairs, or an object is not exactly one token.
    """
    if not pairs:
        raise InputError("no pairs to recall: the list is empty")
    answers = tokenizer([str(pair.fact.object) for pair in pairs], add_special_tokens=False)
    for pair, ids in zip(pairs, answers.input_ids, strict=True):
        if len(ids) != 1 or ids == [tokenizer.unk_token_id]:
            raise InputError(f"{pair.fact.object!r} is not one token of this tokenizer")
    hits = []
    for start in range(0, len(pairs), BATCH):
        # Padding on the right: nothing that is read can see it.
        batch = tokenizer(
            [pair.prompt for pair in pairs[start : start + BATCH]],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        ).to(model.device)
        last = batch.attention_mask.sum(dim=-1) - 1
        logits = model(input_ids=batch.input_ids).logits
        best = logits[torch.arange(len(last), device=last.device), last].argmax(dim=-1)
        truth = torch.tensor(answers.input_ids[start : start + BATCH], device=best.device)
        hits.append(best == truth[:, 0])
    return torch.cat(hits)
