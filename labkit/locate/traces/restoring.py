"""The cells of a trace: a corrupted run with one state restored, for every position and layer.

A cell (position p, layer l) leaves every position before p as it was in the corrupted run,
and at p and after it every block up to l. So the cells of one position are one batch of rows
over the positions from p on, which grows on its way up: the keys and values before p are
frozen, and a row joins at the block from which its cell differs. Two more things need not be
run: at the first corrupted position a restored hidden state goes on as in the clean run, whose
keys and values are at hand; and in the last block only the last position is read.

What differs between the methods that restore states (noise or another prompt as the
corruption, what is read at the end) is left to them: `labkit.locate.traces.tracing` and
`labkit.locate.traces.patching`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.running.activations import Activations, capture, patched
from labkit.running.execute import Execution
from labkit.running.logits import rows_within
from labkit.running.prefixes import Prefix
from labkit.tokens import TokenBatch

Kind = Literal["resid", "ffn", "attn"]
"""What is restored: the hidden state after a block, or what FFN or attention write."""

Path = Literal["ffn", "attn"]
"""What is severed: the way through the FFN or through attention of later blocks."""

SITES: dict[Kind, Site] = {"resid": "resid_post", "ffn": "ffn_out", "attn": "attn_out"}
WINDOW = 10
"""Layers whose FFN or attention outputs are restored together, unless told (the paper's)."""

ROWS_READ = 256
"""Rows whose logits are held at once."""

Read = Callable[[Tensor], Tensor]
"""From final residual streams `[row, 1, d_model]` to one number, or several, per row."""

Changes = dict[tuple[Site, int], Callable[[Tensor], Tensor]]
"""What stands in place of an activation, as `labkit.running.activations.patched` takes it."""


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """How one cell changes the corrupted run.

    Attributes:
        kind: What is set to its clean value at the cell's position.
        window: In how many consecutive layers around the cell's, for FFN and attention; by
            default `usual_window`.
        severed: Whose outputs at the cell's position are held at their corrupted values in
            every layer in which they are not restored.
    """

    kind: Kind
    window: int | None = None
    severed: Path | None = None

    def layers(self, layer: int, n_layers: int) -> range:
        """Layers whose output a cell restores: a window around its layer."""
        if self.kind == "resid":
            return range(layer, layer + 1)
        window = usual_window(n_layers) if self.window is None else self.window
        start = layer - window // 2
        return range(max(0, start), min(n_layers, start + window))


def usual_window(n_layers: int) -> int:
    """The paper's window of 10 layers, of which its model had 48; at most a third of them."""
    return min(WINDOW, max(1, n_layers // 3))


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A clean and a corrupted run of prompts of the same length.

    Attributes:
        rows: The corrupted run's prompts, one row per draw.
        first: The first position at which the two differ.
        clean: The clean run's activations at the restored site, one row.
        corrupted: The corrupted run's residual streams, and the outputs that are severed.
        last: The residual stream that left the corrupted run's last block.
        prefix: The corrupted run's keys and values.
        clean_last: The residual stream that left the clean run's last block, one row.
        clean_prefix: The clean run's keys and values.
    """

    rows: TokenBatch
    first: int
    clean: Activations
    corrupted: Activations
    last: Float[Tensor, "draw pos d_model"]
    prefix: Prefix
    clean_last: Float[Tensor, "1 pos d_model"]
    clean_prefix: Prefix

    @classmethod
    def of(
        cls,
        model: LabModel,
        how: Restoration,
        clean: Execution,
        corrupted: Execution,
        rows: TokenBatch,
        first: int,
    ) -> "Runs":
        """Make the two runs, keeping what `restored` needs of them.

        Args:
            model: The model.
            how: What is going to be restored.
            clean: One prompt, ready to run.
            corrupted: Prompts of the same length, ready to run.
            rows: Those prompts, one row per draw.
            first: The first position at which they differ from the clean one.
        """
        with capture(model, [SITES[how.kind]]) as kept:
            clean_last, clean_prefix = clean.freeze()
        sites: list[Site] = ["resid_pre", "resid_post"]
        with capture(model, [*sites, SITES[how.severed]] if how.severed else sites) as seen:
            last, prefix = corrupted.freeze()
        return cls(
            rows=rows,
            first=first,
            clean=kept,
            corrupted=seen,
            last=last,
            prefix=prefix,
            clean_last=clean_last,
            clean_prefix=clean_prefix,
        )


def restored(
    model: LabModel,
    runs: Runs,
    how: Restoration,
    pos: int,
    read: Read,
    *,
    memory: int,
) -> Float[Tensor, "draw layer *number"]:
    """The reading at the last position for every cell of one position, layer by layer.

    Args:
        model: The model.
        runs: The clean and the corrupted run.
        how: What is restored, and what is severed.
        pos: The position at which it is.
        read: From final residual streams at the last position to one number, or several.
        memory: Bound on the activations held at once, in bytes.
    """
    grid = _Column(model, runs, how, pos)
    at_once = max(1, rows_within(model, runs.rows.shape[1], memory) // grid.n_draws)
    groups = np.array_split(np.arange(model.n_layers), -(-model.n_layers // at_once))
    return torch.cat([grid.cells(group.tolist(), read) for group in groups], dim=1)


class _Column:
    """The cells of one position."""

    def __init__(self, model: LabModel, runs: Runs, how: Restoration, pos: int) -> None:
        self.model, self.runs, self.how, self.pos = model, runs, how, pos
        self.n_draws, n_positions = runs.rows.shape
        goes_on_clean = pos == runs.first and how.kind == "resid" and how.severed is None
        if goes_on_clean and pos + 1 < n_positions:
            self.start, prefix = pos + 1, runs.clean_prefix
        else:
            self.start, prefix = pos, runs.prefix
        self.run = Execution(model, runs.rows, prefix.head(self.start) if self.start else None)

    def cells(self, layers: list[int], read: Read) -> Float[Tensor, "draw layer *number"]:
        """Cells of some layers, as one batch that grows from block to block."""
        joined: list[int] = []
        stream: Tensor | None = None
        for block in range(self.model.n_layers + 1):
            joining = [layer for layer in layers if self._entry(layer) == block]
            if joining:
                arriving = self._arriving(block, len(joining))
                stream = arriving if stream is None else torch.cat([stream, arriving])
                joined += joining
            if stream is not None and block < self.model.n_layers:
                stream = self._through(block, stream, joined)
        assert stream is not None  # every cell has joined by now
        numbers = torch.cat([read(rows) for rows in stream[:, -1:].split(ROWS_READ)])
        by_cell = rearrange(numbers, "(cell draw) ... -> draw cell ...", draw=self.n_draws)
        return by_cell[:, [joined.index(layer) for layer in layers]].cpu()

    def _entry(self, layer: int) -> int:
        """The block at whose entry a cell's row joins: what comes before it does not differ."""
        first = self.how.layers(layer, self.model.n_layers).start
        return first + 1 if self.how.kind == "resid" else first

    def _arriving(self, block: int, n_cells: int) -> Float[Tensor, "row pos d_model"]:
        """The rows that join at a block, draws side by side."""
        if self.how.kind == "resid":
            stream = self.runs.corrupted["resid_post", block - 1][:, self.start :]
            if self.start == self.pos:
                stream = stream.clone()
                stream[:, 0] = self.runs.clean["resid_post", block - 1][:, self.pos]
        else:
            stream = self.runs.corrupted["resid_pre", block][:, self.start :]
        return repeat(stream, "draw pos d -> (cell draw) pos d", cell=n_cells)

    def _through(self, block: int, stream: Tensor, joined: list[int]) -> Tensor:
        """The rows after a block; after the last one, only their last position is right."""
        windows = [self.how.layers(layer, self.model.n_layers) for layer in joined]
        inside = torch.tensor([block in window for window in windows], device=stream.device)
        inside = inside.repeat_interleave(self.n_draws)
        draws = torch.arange(self.n_draws, device=stream.device).repeat(len(joined))
        if block == self.model.n_layers - 1 and stream.shape[1] > 1:
            # What happens at other positions is read by nobody, so they skip both outputs.
            changes: Changes = {(site, block): _last_position for site in ("head_out", "ffn_in")}
        else:
            changes = self._changes(block, inside, draws)
        with patched(self.model, changes):
            return self.run.forward(stream, start=block, stop=block + 1, rows=draws)

    def _changes(
        self, block: int, inside: Bool[Tensor, " row"], draws: Int[Tensor, " row"]
    ) -> Changes:
        """What is set in a block at the cells' position: to clean outputs, or corrupted ones.

        Hidden states were restored on joining. A severed output is what it was in the
        corrupted run, wherever it is not itself what is restored.
        """
        changes: Changes = {}
        clean, corrupted = self.runs.clean, self.runs.corrupted
        severed = SITES[self.how.severed] if self.how.severed else None
        if severed is not None:
            held = corrupted[severed, block][draws, self.pos]
            changes[severed, block] = _set_first(held, torch.ones_like(inside))
        site = SITES[self.how.kind]
        if self.how.kind != "resid" and bool(inside.any()):
            value = clean[site, block][:, self.pos]
            if site == severed:
                mixed = torch.where(inside[:, None], value, held)
                changes[site, block] = _set_first(mixed, torch.ones_like(inside))
            else:
                changes[site, block] = _set_first(value.expand(len(inside), -1), inside)
        return changes


def _last_position(activation: Tensor) -> Tensor:
    """An activation at the last position only; what is added to the stream then broadcasts.

    Some families (OPT) lay rows and positions on one axis for the FFN; there it is all of them.
    """
    return activation[:, -1:].contiguous() if activation.ndim == 3 else activation


def _set_first(
    values: Float[Tensor, "row d_model"], rows: Bool[Tensor, " row"]
) -> Callable[[Tensor], Tensor]:
    """A change of some rows of an activation at the first position that is run."""

    def change(out: Tensor) -> Tensor:
        out = out.clone()
        out[rows, 0] = values[rows]
        return out

    return change
