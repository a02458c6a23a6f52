"""Partial forward runs: only the necessary computation.

A causal transformer leaves much untouched when something changes: a change in block l
leaves blocks 0..l-1 as they were, and a change at position t leaves every earlier position
as it was, in every block. `Execution` runs any range of blocks over any suffix of the
positions, for any architecture that `labkit.models.model` opens:

    run = Execution(model, batch)
    resid = run.forward(stop=5)                  # stop early: the stream entering block 5
    resid = run.forward(resid, start=5)          # resume there
    last = read_logits(model, resid[:, -1:])     # unembed only where it is read

    prefix = freeze(model, batch, length=7)      # keys and values of the first 7 positions
    tail = Execution(model, batch, prefix)       # from here on only positions 7.. are run

What each block is handed besides the residual stream (masks, rotary angles, position ids)
is worked out by the model itself: its own forward runs once with every block replaced by
a recorder. Nothing here knows an architecture. Gradients flow through every partial run.

Not for concurrent use of one model from several threads: the recorder is in place for the
duration of one such call.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from labkit.arguments import checked
from labkit.errors import InputError, SelfCheckFailed
from labkit.running.forwards import accepts, replaced
from labkit.running.prefixes import ConstantPrefix, Prefix, Recorded
from labkit.tokens import TokenBatch

if TYPE_CHECKING:
    from labkit.models.model import LabModel

MASKED = ("sdpa", "eager")
"""Implementations of attention, as transformers names them, that take a mask of single edges."""


class Execution:
    """Some prompts, from some position on, ready to be run block by block.

    Args:
        model: The model.
        batch: The prompts, left-padded, *all* their positions.
        prefix: Keys and values of their first positions, from `freeze`; those positions
            are then not run. One row serves all prompts, else one row per prompt.

    Attributes:
        first: The first position that is run.
        embed: Residual stream entering block 0 at the positions that are run,
            `[prompt, pos, d_model]`.

    Raises:
        InputError: If the prefix covers every position, or belongs to other prompts.
    """

    def __init__(self, model: "LabModel", batch: TokenBatch, prefix: Prefix | None = None) -> None:
        self.model = model
        self.n_prompts, self.n_heads = batch.shape[0], model.n_heads
        self.first = prefix.length if prefix is not None else 0
        self._prefix, self._mask = prefix, batch.mask
        if prefix is not None:
            if prefix.length >= batch.shape[1]:
                raise InputError(
                    f"a prefix of {prefix.length} positions leaves nothing to run of prompts "
                    f"with {batch.shape[1]}"
                )
            same = prefix.mask == batch.mask[:, : prefix.length]
            if prefix.mask.shape[0] not in (1, self.n_prompts) or not bool(same.all()):
                raise InputError("the frozen prefix was made from other prompts than these")
        self.embed, self._calls = self._record(batch)

    def forward(
        self,
        resid: Float[Tensor, "row pos d_model"] | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        rows: Int[Tensor, " row"] | None = None,
        attend: Bool[Tensor, "#row #head #pos key"] | None = None,
    ) -> Float[Tensor, "row pos d_model"]:
        """Run blocks `start..stop-1`.

        Args:
            resid: Residual stream entering block `start`; by default the embeddings,
                for `start=0`.
            start: First block to run.
            stop: Block to stop before; by default after the last.
            rows: Which prompt each row of `resid` belongs to, where rows and prompts are
                not one to one. A single prompt serves any number of rows by itself.
            attend: True where a query may look at a key (the prefix's keys come first), in
                every block of this run; axes of length 1 hold for all. It narrows what the
                model itself allows. Every query must keep a key.

        Returns:
            Residual stream entering block `stop` (leaving the last block by default;
            the final norm is not applied).

        Raises:
            InputError: If there are no such blocks, or nothing enters them.
            SelfCheckFailed: If `attend` is given to a model whose blocks take no mask.
        """
        stop = self.model.n_layers if stop is None else stop
        if not 0 <= start <= stop <= self.model.n_layers:
            raise InputError(
                f"blocks {start}..{stop} of a model that has {self.model.n_layers} blocks"
            )
        if resid is None:
            if start:
                raise InputError(f"resuming at block {start} needs the stream that enters it")
            resid = self.embed if rows is None else self.embed[rows]
        if self.n_prompts == 1:  # one prompt's masks and angles broadcast over any number of rows
            by_heads = self.model.habits.rows_by_heads and resid.shape[0] > 1
            rows = torch.zeros_like(resid[:, 0, 0], dtype=torch.long) if by_heads else None
        cache = None
        if self._prefix is not None:
            shared = self._prefix.mask.shape[0] == 1
            cache = ConstantPrefix(self._prefix, None if shared else rows)
        return self._blocks(resid, range(start, stop), rows, cache, attend)

    def freeze(self, stop: int | None = None) -> tuple[Float[Tensor, "row pos d_model"], Prefix]:
        """Run the blocks, and keep the keys and values of every position on the way.

        Args:
            stop: Block to stop before, where later runs go no further; by default after the
                last.

        Returns:
            The residual stream leaving the last block that is run, and the keys and values
            as a prefix for later runs (take its `head`).

        Raises:
            InputError: If this run itself starts after a prefix.
            SelfCheckFailed: If the model's attention leaves the cache that it is handed alone.
        """
        if self._prefix is not None:
            raise InputError("only a run from the first position can be frozen")
        kept = Recorded()
        layers = range(self.model.n_layers if stop is None else stop)
        resid = self._blocks(self.embed, layers, None, kept)
        if len(kept.states) < len(layers):
            raise SelfCheckFailed(
                f"{self.model.name}: blocks without keys and values in the cache that they are "
                "handed: a frozen prefix = the full run cannot hold"
            )
        keys = tuple(kept.states[layer][0] for layer in layers)
        values = tuple(kept.states[layer][1] for layer in layers)
        return resid, Prefix(keys, values, self._mask)

    def _blocks(
        self,
        resid: Tensor,
        layers: range,
        rows: Tensor | None,
        cache: DynamicCache | None,
        attend: Tensor | None = None,
    ) -> Tensor:
        """Run blocks on rows of the prompts, with the arguments that were recorded."""
        for layer in layers:
            args, kwargs = self._calls[layer]
            args = tuple(self._adapt(value, rows, cache) for value in args)
            kwargs = {name: self._adapt(value, rows, cache) for name, value in kwargs.items()}
            if attend is not None:
                args, kwargs = self._narrowed(layer, resid, args, kwargs, attend)
            n_rows = resid.shape[0]
            args = tuple(_for_each_row(value, n_rows) for value in args)
            kwargs = {name: _for_each_row(value, n_rows) for name, value in kwargs.items()}
            try:
                out = self.model.blocks[layer](resid, *args, **kwargs)
            except (ValueError, RuntimeError) as error:
                if attend is None or isinstance(error, torch.OutOfMemoryError):
                    raise
                raise SelfCheckFailed(self._takes_no_mask(attend)) from error
            resid = out[0] if isinstance(out, tuple) else out
        return resid

    def _narrowed(
        self, layer: int, resid: Tensor, args: tuple, kwargs: dict, attend: Tensor
    ) -> tuple[tuple, dict]:
        """A block's arguments, its attention mask narrowed to the edges of `attend`."""
        call = inspect.signature(type(self.model.blocks[layer]).forward).bind(
            None, resid, *args, **kwargs
        )
        implementation = self.model.hf.config._attn_implementation
        if "attention_mask" not in call.signature.parameters or implementation not in MASKED:
            raise SelfCheckFailed(self._takes_no_mask(attend))
        n_queries, n_keys = resid.shape[1], attend.shape[-1]
        own = call.arguments.get("attention_mask")
        if own is None:  # no padding: torch's kernel would have masked the future by itself
            own = torch.ones(n_queries, n_keys, dtype=torch.bool, device=resid.device)
            own = own.tril(n_keys - n_queries)[None, None]
        if own.dtype == torch.bool:
            own = torch.zeros_like(own, dtype=resid.dtype).masked_fill(~own, -torch.inf)
        call.arguments["attention_mask"] = torch.where(attend, own, -torch.inf)
        return call.args[2:], call.kwargs

    def _takes_no_mask(self, attend: Tensor) -> str:
        """What to say of a model whose attention cannot be blocked at these edges."""
        what = "edges of single heads" if attend.shape[1] > 1 else "single edges"
        kind = type(self.model.hf).__name__
        return (
            f"{self.model.name}: the attention of {kind} "
            f"({self.model.hf.config._attn_implementation}) takes no mask of {what}, so they "
            f"cannot be blocked; most families can, with {' or '.join(MASKED)} attention"
        )

    def _adapt(self, value: Any, rows: Tensor | None, cache: DynamicCache | None) -> Any:
        """One argument of a block, for these rows and with this run's cache."""
        if isinstance(value, DynamicCache):
            return cache
        if isinstance(value, tuple):
            return tuple(self._adapt(item, rows, cache) for item in value)
        if rows is not None and isinstance(value, Tensor) and value.dim():
            if value.shape[0] == self.n_prompts:
                return value[rows]
            if self.model.habits.rows_by_heads and value.shape[0] == self.n_prompts * self.n_heads:
                by_head = value.unflatten(0, (self.n_prompts, self.n_heads))
                return by_head[rows].flatten(0, 1)
        return value

    def _record(self, batch: TokenBatch) -> tuple[Tensor, list[tuple[tuple, dict]]]:
        """What the model hands to each block, worked out by the model's own forward."""
        base = self.model.hf.base_model
        placeholder = Recorded() if self._prefix is None else ConstantPrefix(self._prefix, None)
        inputs: dict[str, Any] = {
            "input_ids": batch.ids[:, self.first :],
            # With no padding the mask is left out: attention then takes its causal fast path.
            "attention_mask": None if bool(batch.mask.all()) else batch.mask.long(),
            "past_key_values": placeholder,
            "use_cache": False,
        }
        if accepts(base, "position_ids"):
            positions = (batch.mask.long().cumsum(dim=-1) - 1).clamp(min=0)
            if inputs["attention_mask"] is None:
                positions = positions[:1]  # the same for all, so that it broadcasts
            inputs["position_ids"] = positions[:, self.first :]
        streams: list[Tensor] = []
        calls: list[tuple[tuple, dict]] = []

        def recorder(returns_tuple: bool) -> Callable:
            def record(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
                streams.append(hidden_states)
                calls.append((args, kwargs))
                return (hidden_states, None) if returns_tuple else hidden_states

            return record

        with replaced(
            (block, recorder(self.model.habits.returns_tuple)) for block in self.model.blocks
        ):
            base(**inputs)
        return streams[0], calls


def _for_each_row(value: Any, n_rows: int) -> Any:
    """A mask `[1, head, pos, key]` for every row: some attention (XGLM's) does not broadcast it."""
    if isinstance(value, Tensor) and value.dim() == 4 and value.shape[0] == 1:
        return value.expand(n_rows, -1, -1, -1)
    return value


@checked
def freeze(model: "LabModel", batch: TokenBatch, *, length: int, stop: int | None = None) -> Prefix:
    """Keys and values of the first `length` positions, in every block, as constants.

    Args:
        model: The model.
        batch: Left-padded prompts; only their first `length` positions are run.
        length: Number of positions to freeze, padding included, at least 1.
        stop: Block to stop before, where later runs go no further; by default after the last.

    Raises:
        InputError: If `length` lies outside `1..pos`.
    """
    if not 1 <= length <= batch.shape[1]:
        raise InputError(f"cannot freeze {length} of {batch.shape[1]} positions")
    with torch.no_grad():
        run = Execution(model, TokenBatch(batch.ids[:, :length], batch.mask[:, :length]))
        return run.freeze(stop)[1]


def repeat_rows(batch: TokenBatch, times: int) -> TokenBatch:
    """Each prompt `times` times in a row."""
    return TokenBatch(
        repeat(batch.ids, "prompt pos -> (prompt times) pos", times=times),
        repeat(batch.mask, "prompt pos -> (prompt times) pos", times=times),
    )
