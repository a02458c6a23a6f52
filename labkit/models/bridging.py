"""transformer_lens' bridge over the weights of a Hugging Face model: made here and nowhere else."""

import copy
import itertools
from typing import Any

from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from labkit.errors import INSTEAD, SelfCheckFailed, one_line


def bridge(hf: PreTrainedModel, tokenizer: Tokenizer) -> Any:
    """transformer_lens' bridge over a second skeleton that shares every tensor of `hf`."""
    from transformer_lens.model_bridge import TransformerBridge

    shared = {id(tensor): tensor for tensor in itertools.chain(hf.parameters(), hf.buffers())}
    skeleton = copy.deepcopy(hf, shared)
    skeleton.set_attn_implementation("eager")  # hooks need scores and patterns
    skeleton.config.architectures = [type(hf).__name__]  # absent unless it was saved once
    # transformer_lens rebuilds a tokenizer that adds no BOS into one that does, unless told
    # that it already adds one. Its copy is to do what the model's own does.
    own = copy.deepcopy(tokenizer)
    own.init_kwargs |= {"name_or_path": "", "add_bos_token": True}
    try:
        return TransformerBridge.boot_transformers(
            f"labkit/{type(hf).__name__}",  # only a label: nothing is looked up by it
            hf_model=skeleton,
            tokenizer=own,
            device=None if hasattr(hf, "hf_device_map") else str(hf.device),
            dtype=hf.dtype,
        )
    except Exception as error:
        # Its own words may be a list of all architectures, of a page.
        why = "" if "Available architectures" in str(error) else f" ({one_line(error)})"
        raise SelfCheckFailed(
            f"transformer_lens has no bridge for this {type(hf).__name__}{why}. {INSTEAD}"
        ) from error
