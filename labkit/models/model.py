"""A language model with its parts named, whatever its architecture.

A `LabModel` holds the same weights behind two faces:

- `hf`, the plain Hugging Face model. Partial runs, edits and exports work on it.
- `bridge`, transformer_lens' `TransformerBridge` over *the same parameter tensors*. It
  puts a named hook on every attention and FFN activation and is what transformer_lens'
  own analysis tools take.

A write through `ffn_out` is seen by both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from labkit.errors import ContextTooShort, InputError, LayerOutOfRange
from labkit.models.anatomy import Anatomy, Site
from labkit.models.habits import Habits, measure
from labkit.models.in_effect import AsLoaded
from labkit.tokens import TokenBatch, TokenSpan, pad_id, pad_left, subject_span, text_ids


@dataclass(frozen=True, eq=False)
class LabModel:
    """A language model with its parts named.

    Attributes:
        name: What it was loaded as.
        hf: The plain Hugging Face model; its parameters ask for no gradient.
        bridge: transformer_lens' bridge over the same parameters.
        tokenizer: The model's own tokenizer, untouched.
        prepend_bos: Whether `tokens` puts a BOS in front of every prompt.
        anatomy: Names of the parts.
        fingerprint: sha256 (64 hex digits) over weights and tokenizer as loaded.
        loaded: What it was when it was loaded, for `in_effect` and `is_patched`.
        known_as: Short name of the registered model that the weights are, or come from.
        world: What it can be asked about, a `labkit.facts.worlds.World`; None for the real one.
    """

    name: str
    hf: PreTrainedModel
    bridge: Any
    tokenizer: Tokenizer
    prepend_bos: bool
    anatomy: Anatomy
    fingerprint: str
    loaded: AsLoaded = field(repr=False)
    known_as: str | None = None
    world: Any = None

    def __repr__(self) -> str:
        """Name and shape; the modules themselves are many pages."""
        return (
            f"LabModel({self.name!r}, {self.hf.config.model_type}, n_layers={self.n_layers}, "
            f"d_model={self.d_model}, d_mlp={self.d_mlp}, n_heads={self.n_heads}, "
            f"d_vocab={self.d_vocab}, dtype={str(self.dtype).removeprefix('torch.')}, "
            f"device={self.device}, fingerprint={self.fingerprint[:12]})"
        )

    # --- shape ---------------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.ffn_out(0).shape[1]

    @property
    def d_mlp(self) -> int:
        """Number of FFN neurons of a block."""
        return self.ffn_out(0).shape[0]

    @property
    def n_heads(self) -> int:
        """Number of attention (query) heads of a block."""
        return int(self.bridge.cfg.n_heads)

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return int(self.bridge.cfg.d_head)

    @property
    def d_vocab(self) -> int:
        """Number of logits."""
        return self.unembed.weight.shape[0]

    @property
    def n_ctx(self) -> int | None:
        """Number of tokens that the model reads at most; None where there is no bound."""
        return getattr(self.hf.config, "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Where the embedding lives: where token ids go."""
        return self.hf.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.ffn_out(0).dtype

    # --- what is in effect ---------------------------------------------------------------

    @property
    def in_effect(self) -> str:
        """Fingerprint of the weights as they are now: `fingerprint` while nothing is edited.

        Found by inspecting the weights, however they were changed. Inside
        `editing.applied` it is the fingerprint that an export of the edited model has.
        """
        now = self.loaded.fingerprint_now(self.hf)
        return self.fingerprint if now == self.loaded.fingerprint else now

    @property
    def is_patched(self) -> bool:
        """Whether more than the weights decides what is computed: hooks, replaced parts.

        Nothing is read from a cache or written to one then.
        """
        return self.loaded.is_patched(self.hf)

    def is_own(self, measured: str) -> bool:
        """Whether this is the fingerprint of the model as loaded, or of what is in effect."""
        return measured == self.fingerprint or measured == self.in_effect

    # --- parts ---------------------------------------------------------------------------

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The blocks, first to last."""
        return self.hf.get_submodule(self.anatomy.blocks)

    @cached_property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the unembedding."""
        return self.hf.get_submodule(self.anatomy.final_norm)

    @cached_property
    def unembed(self) -> nn.Linear:
        """The unembedding, weight `[vocab, d_model]`."""
        return self.hf.get_submodule(self.anatomy.unembed)

    @cached_property
    def hook_points(self) -> dict[nn.Module, list[str]]:
        """The bridge's hook points, each with all the names it goes by."""
        points: dict[nn.Module, list[str]] = {}
        for name, point in self.bridge.hook_dict.items():
            points.setdefault(point, []).append(name)
        return points

    @cached_property
    def habits(self) -> Habits:
        """How its blocks behave, measured once, when it is opened."""
        writers = [self.site(site, 0)[0] for site in ("attn_out", "ffn_out")]
        return measure(
            self.hf,
            block=self.blocks[0],
            ffn_proj=self.ffn_proj(0),
            writers=writers,
            n_heads=self.n_heads,
        )

    def layer(self, layer: int) -> int:
        """The layer itself, after checking that the model has it.

        Raises:
            LayerOutOfRange: If it is negative or too large, or no integer.
        """
        if not isinstance(layer, int) or not 0 <= layer < self.n_layers:
            raise LayerOutOfRange(
                f"layer {layer!r} of {self.name}: choose one of 0..{self.n_layers - 1}"
            )
        return layer

    def ffn_proj(self, layer: int) -> nn.Module:
        """The FFN's output projection, `Linear` or `Conv1D`."""
        return self.blocks[self.layer(layer)].get_submodule(self.anatomy.ffn_proj)

    def ffn_out(self, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """Values of a block's FFN: row `i` is what neuron `i` writes. A writable view."""
        weight = self.hf.get_parameter(self.ffn_out_name(layer)).detach()
        return weight.T if self.ffn_out_transposed(layer) else weight

    def ffn_bias(self, layer: int) -> Float[Tensor, " d_model"] | None:
        """The bias of a block's FFN output; None where there is none."""
        bias = self.ffn_proj(layer).bias
        return bias.detach() if isinstance(bias, Tensor) else None

    def ffn_out_transposed(self, layer: int) -> bool:
        """Whether the parameter is stored `[d_model, d_mlp]` (`Linear`, not `Conv1D`)."""
        return isinstance(self.ffn_proj(layer), nn.Linear)

    def ffn_out_name(self, layer: int) -> str:
        """Hugging Face's name of the parameter behind `ffn_out`."""
        return f"{self.anatomy.blocks}.{self.layer(layer)}.{self.anatomy.ffn_proj}.weight"

    def site(self, site: Site, layer: int) -> tuple[nn.Module, Literal["input", "output"]]:
        """The module at whose input or output an activation can be read and written.

        Raises:
            InputError: If there is no such site.
            LayerOutOfRange: If there is no such layer.
        """
        block, names = self.blocks[self.layer(layer)], self.anatomy
        if site in ("resid_pre", "resid_post"):
            return block, "input" if site == "resid_pre" else "output"
        if site == "attn_out":
            return block.get_submodule(names.attn_out), "output"
        if site == "ffn_out":
            return block.get_submodule(names.ffn_out), "output"
        if site == "ffn_in":
            return block.get_submodule(names.ffn_in), "input"
        if site == "ffn_key":
            return block.get_submodule(names.ffn_proj), "input"
        if site == "ffn_value":
            return block.get_submodule(names.ffn_proj), "output"
        if site == "head_out":
            return block.get_submodule(names.attn_proj), "input"
        raise InputError(f"unknown site {site!r}; one of {', '.join(get_args(Site))}")

    # --- text ----------------------------------------------------------------------------

    @property
    def pad_id(self) -> int:
        """The id that stands where there is no token: one that the model has an embedding of."""
        own = pad_id(self.tokenizer)
        return own if own < self.hf.get_input_embeddings().weight.shape[0] else 0

    def ids(self, prompt: str) -> list[int]:
        """Ids of one prompt, BOS in front if the model's setting says so."""
        return text_ids(self.tokenizer, prompt, prepend_bos=self.prepend_bos)

    def tokens(self, prompts: Sequence[str]) -> TokenBatch:
        """Prompts as ids on the model's device, padded on the left.

        Raises:
            EmptyPrompt: If there is no prompt or one is empty.
        """
        return self.pad([self.ids(prompt) for prompt in prompts])

    def pad(self, sequences: Sequence[Sequence[int]]) -> TokenBatch:
        """Id sequences as one batch on the model's device, padded on the left.

        Raises:
            EmptyPrompt: If there is no sequence or one is empty.
            ContextTooShort: If one is longer than what the model was made to read.
            InputError: If one holds a token that the tokenizer has and the model has not.
        """
        longest = max(map(len, sequences), default=0)
        if self.n_ctx is not None and longest > self.n_ctx:
            ids = max(sequences, key=len)
            text = self.tokenizer.decode(ids[:24])
            raise ContextTooShort(
                f"a prompt of {longest} tokens, {text!r} …: {self.name} reads {self.n_ctx} at "
                "most; shorten it, or what is put in front of it"
            )
        known = self.hf.get_input_embeddings().weight.shape[0]
        beyond = next((one for ids in sequences for one in ids if one >= known), None)
        if beyond is not None:
            token = self.tokenizer.convert_ids_to_tokens(beyond)
            raise InputError(
                f"a prompt holds the token {token!r} (id {beyond}), for which {self.name} has no "
                f"embedding: it has {known}. Tokens were added to its tokenizer but not to the "
                "model"
            )
        return pad_left(sequences, pad_id=self.pad_id, device=self.device)

    def span(self, prompt: str, subject: str, at: int | None = None) -> TokenSpan:
        """Positions of a subject in `tokens([prompt])`; see `tokens.subject_span`."""
        return subject_span(self.tokenizer, prompt, subject, prepend_bos=self.prepend_bos, at=at)
