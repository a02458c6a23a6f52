"""Tiny models with random weights, one of each family.

Three blocks, 32 wide, with a byte-level tokenizer. They are non-trivial on purpose: every
bias is non-zero, every norm weight differs from one, so that a part left out of a sum
changes the result. They know nothing; use `pocket` for a small model that does.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from labkit.errors import UnknownModel
from labkit.stats import generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Family = Literal["llama", "gpt2", "gpt-neox", "gptj", "qwen2", "gemma"]
FAMILIES: tuple[str, ...] = get_args(Family)

N_LAYERS, D_MODEL, D_MLP, N_HEADS, N_KV_HEADS, N_CTX = 3, 32, 64, 4, 2, 256

# A few merges, so that some words are one token and most are several. Ġ stands for a space.
_MERGES = [
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    ("i", "n"),
    ("Ġ", "in"),
    ("o", "f"),
    ("Ġ", "of"),
    ("i", "s"),
    ("Ġ", "is"),
    ("Ġ", "a"),
    ("e", "r"),
    ("o", "n"),
]
_BOS, _EOS = "<s>", "</s>"
_ADDS_BOS = ("llama", "gemma")


def random_model(family: str, seed: int = 0) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A Hugging Face model of a family and its tokenizer, in float32 on the CPU.

    Args:
        family: One of `FAMILIES`.
        seed: Seed of the weights. The global random state of torch is left as it was.

    Returns:
        The model in evaluation mode, and a byte-level BPE tokenizer of 270 tokens, which
        prepends a BOS for Llama and Gemma and no special token for the others.

    Raises:
        UnknownModel: If there is no such family.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = _tokenizer(prepend_bos=family in _ADDS_BOS)
    config = _config(family, len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _randomise(model, seed, family)
    return model.eval(), tokenizer


def _config(family: str, d_vocab: int, bos: int, eos: int) -> Any:
    """The family's own configuration class, filled with the sizes of this module."""
    from transformers import CONFIG_MAPPING

    ids = {"vocab_size": d_vocab, "bos_token_id": bos, "eos_token_id": eos}
    common = {
        **ids,
        "hidden_size": D_MODEL,
        "intermediate_size": D_MLP,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "max_position_embeddings": N_CTX,
    }
    grouped = {**common, "num_key_value_heads": N_KV_HEADS}
    gpt = {
        **ids,
        "n_embd": D_MODEL,
        "n_inner": D_MLP,
        "n_layer": N_LAYERS,
        "n_head": N_HEADS,
        "n_positions": N_CTX,
    }
    fields: dict[str, tuple[str, dict[str, Any]]] = {
        "llama": ("llama", grouped),
        "gpt2": ("gpt2", gpt),
        "gpt-neox": ("gpt_neox", {**common, "use_parallel_residual": True}),
        "gptj": ("gptj", {**gpt, "rotary_dim": 4}),
        "qwen2": ("qwen2", grouped),
        "gemma": ("gemma", {**grouped, "head_dim": D_MODEL // N_HEADS}),
    }
    if family not in fields:
        raise UnknownModel(f"no random model of family {family!r}; there are {', '.join(FAMILIES)}")
    model_type, values = fields[family]
    return CONFIG_MAPPING[model_type](**values)


@torch.no_grad()
def _randomise(model: "PreTrainedModel", seed: int, family: str) -> None:
    """Draw every parameter anew, each from a generator keyed by its name.

    Matrices are scaled by their fan-in, so that activations stay near one; vectors (biases,
    norm weights) move by 0.3 around zero or around what the family initialised them to.
    """
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator(seed, family, name))
        if parameter.dim() == 1:
            parameter.add_(0.3 * noise)
        elif parameter.shape[0] == model.config.vocab_size or "wpe" in name:
            parameter.copy_(0.3 * noise)
        else:
            parameter.copy_(noise / D_MODEL**0.5)


def _tokenizer(*, prepend_bos: bool) -> "PreTrainedTokenizerBase":
    """Byte-level BPE: the 256 bytes, a few merges, BOS and EOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [_BOS, _EOS, *alphabet, *(left + right for left, right in _MERGES)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=_MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if prepend_bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{_BOS} $A", pair=f"{_BOS} $A {_BOS} $B", special_tokens=[(_BOS, 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_EOS,
        model_max_length=N_CTX,
    )
