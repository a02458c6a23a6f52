"""Causal tracing: which states, restored, bring a fact back.

Three runs of one prompt (Meng et al. 2022, section 2.1):

1. clean: the model as it is gives the answer with probability `P`;
2. corrupted: Gaussian noise on the embeddings of the subject's tokens gives `P*`;
3. restored: the corrupted run, with one state (or a window of FFN or attention outputs)
   set to its clean value, gives `P*[state]`.

The indirect effect of a state is `P*[state] - P*`. It says that the state is *sufficient*
to carry the fact in this run. It does not say that the fact is stored there, nor that an
edit there works best (Hase et al. 2023).

How the cells are computed. A cell (position p, layer l) leaves every position before p as
it was in the corrupted run, and every block up to l. So, for one p, the keys and values
before p are frozen and all layers go through the blocks together as one batch that grows:
a row joins at the block from which its cell differs. No cell is computed that cannot
differ: positions before the subject are the same in both runs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from labkit import stats
from labkit.activations import Activations, capture, patched, patched_embedding
from labkit.corpus import Progress
from labkit.errors import InputError
from labkit.execute import MEMORY, Execution, Prefix, read_logits, repeat_rows, rows_within
from labkit.facts import Fact
from labkit.models import LabModel, Site
from labkit.results import Result
from labkit.stats import Estimate
from labkit.tokens import TokenBatch, TokenSpan, target_ids

Kind = Literal["resid", "ffn", "attn"]
"""What is restored: the hidden state after a block, or what FFN or attention write."""

Cells = np.ndarray | np.floating
"""One number a cell; a bare number where there is one cell."""

SITES: dict[Kind, Site] = {"resid": "resid_post", "ffn": "ffn_out", "attn": "attn_out"}


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceResult(Result):
    """What a causal trace found.

    Attributes:
        prompt: The prompt that was traced.
        subject: Its subject.
        answer: The token whose probability is traced.
        tokens: The prompt's tokens, as text.
        subject_positions: Positions of the subject's tokens.
        kind: What was restored.
        clean: P(answer) without noise.
        corrupted: P(answer) under noise, by noise draw.
        cells: P(answer) with one site restored, by noise draw.
        model: Name of the model.
        fingerprint: Fingerprint of the model.
        config: The method's fields.
    """

    prompt: str
    subject: str
    answer: str
    tokens: tuple[str, ...]
    subject_positions: tuple[int, ...]
    kind: str
    clean: float
    corrupted: Float[np.ndarray, " sample"]
    cells: Float[np.ndarray, "sample pos layer"]
    model: str
    fingerprint: str
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """What was traced, with the clean and the corrupted probability."""
        what = {"resid": "hidden state", "ffn": "FFN output", "attn": "attention output"}
        return (
            f"Restoring one {what[self.kind]}: P({self.answer!r}) clean {self.clean:.2f}, "
            f"corrupted {self.corrupted.mean():.2f} ({len(self.corrupted)} noise draws)"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a cell: pos, token, layer, in_subject, and mean, low, high of P(answer).

        The interval covers the noise draws: 95 %, Student's t over draws, cut to 0..1.
        """
        mean, low, high = interval_over_draws(self.cells)
        positions, layers = np.indices(mean.shape)
        return pd.DataFrame(
            {
                "pos": positions.ravel(),
                "token": [self.tokens[p] for p in positions.ravel()],
                "layer": layers.ravel(),
                "in_subject": np.isin(positions.ravel(), self.subject_positions),
                "mean": mean.ravel(),
                "low": low.clip(0, 1).ravel(),
                "high": high.clip(0, 1).ravel(),
            }
        )

    @property
    def total_effect(self) -> Estimate:
        """`P - P*`: what the noise destroys, with its interval over draws."""
        mean, low, high = interval_over_draws(self.clean - self.corrupted)
        return Estimate(float(mean), float(low), float(high), len(self.corrupted))

    def indirect_effect(self, pos: int, layer: int) -> Estimate:
        """`P*[state] - P*` of one cell, paired over noise draws, with its interval."""
        mean, low, high = interval_over_draws(self.cells[:, pos, layer] - self.corrupted)
        return Estimate(float(mean), float(low), float(high), len(self.corrupted))

    def peak(self, positions: Sequence[int] | None = None) -> tuple[int, int]:
        """Position and layer of the cell that restores most, among some positions.

        By default among the subject's positions: the last position restores everything in
        the last layers by construction.
        """
        among = list(self.subject_positions if positions is None else positions)
        mean = self.cells.mean(axis=0)[among]
        row, layer = np.unravel_index(int(mean.argmax()), mean.shape)
        return among[int(row)], int(layer)

    def figure(self) -> Any:
        """The heatmap: tokens down, subject starred, layers across."""
        from labkit.plots import trace_heatmap

        return trace_heatmap(
            self.to_frame(),
            answer=self.answer,
            clean=self.clean,
            corrupted=float(self.corrupted.mean()),
            subject_positions=self.subject_positions,
            kind=self.kind,
            n_draws=len(self.corrupted),
        )


def interval_over_draws(
    values: Float[np.ndarray, "sample *cell"],
) -> tuple[Cells, Cells, Cells]:
    """Mean and 95 % interval (Student's t) over the first axis, for every cell."""
    from scipy.stats import t

    n = values.shape[0]
    mean = values.mean(axis=0)
    if n < 2:
        return mean, mean, mean
    half = t.ppf(0.5 + stats.CONFIDENCE / 2, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


@dataclass(frozen=True, kw_only=True)
class CausalTrace:
    """Causal tracing of one fact.

    Attributes:
        kind: What is restored.
        noise: Standard deviation of the noise, in standard deviations of the token
            embeddings as they enter the model (the paper: 3).
        samples: Number of noise draws (the paper: 10).
        window: Number of consecutive layers whose FFN or attention output is restored
            together, centred on the cell's layer (the paper: 10; 1 for hidden states).
        seed: Seed of the noise.
        memory: Bound on the activations held at once, in bytes.

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 2.1 and
        appendix B.

    Differs from the paper: the spread is that of the whole embedding matrix, not of the
    subjects of one data set, so that it depends on the model alone.
    """

    kind: Kind = "resid"
    noise: float = 3.0
    samples: int = 10
    window: int | None = None
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse a configuration that means nothing."""
        if self.kind not in SITES:
            raise InputError(f"kind {self.kind!r}: one of {', '.join(SITES)}")
        if not self.noise > 0 or self.samples < 1:
            raise InputError("a trace needs noise above 0 and at least one noise draw")
        if self.window is not None and (self.kind == "resid" or self.window < 1):
            raise InputError("a window is a number of layers of FFN or attention outputs")

    @torch.no_grad()
    def __call__(
        self, model: LabModel, fact: Fact, *, progress: Progress | None = None
    ) -> TraceResult:
        """Trace one fact.

        Args:
            model: The model.
            fact: Prompt, subject and answer; without an object, the answer is what the
                model itself says next.
            progress: Called with what is being done and the share that is done.

        Raises:
            SubjectNotFound: If the subject is not in the prompt.
            EmptyTarget: If the object tokenises to nothing.
        """
        span = model.span(fact.prompt, fact.subject, at=fact.subject_start)
        batch = model.tokens([fact.prompt])
        clean, clean_logits = self._clean(model, batch)
        if fact.object is None:
            answer = int(clean_logits.argmax())
        else:
            answer = target_ids(model.tokenizer, fact.prompt, fact.object)[0]

        corrupted, resid, prefix, rows = self._corrupt(model, fact, batch, span)
        n_positions = batch.shape[1]
        cells = torch.empty(self.samples, n_positions, model.n_layers)
        cells[:] = answer_probability(model, resid, answer).cpu()[:, None, None]
        corrupted_probability = cells[:, 0, 0].clone()
        for pos in range(span.start, n_positions):
            if progress is not None:
                share = (pos - span.start) / (n_positions - span.start)
                progress(f"restoring states, token {pos + 1} of {n_positions}", share)
            cells[:, pos] = self._position(model, rows, prefix, clean, corrupted, pos, answer)

        return TraceResult(
            prompt=fact.prompt,
            subject=fact.subject,
            answer=model.tokenizer.decode([answer]),
            tokens=tuple(model.tokenizer.decode([token]) for token in batch.ids[0].tolist()),
            subject_positions=tuple(span),
            kind=self.kind,
            clean=clean_logits.float().softmax(-1)[answer].item(),
            corrupted=corrupted_probability.numpy(),
            cells=cells.numpy(),
            model=model.name,
            fingerprint=model.fingerprint,
            config=asdict(self),
        )

    def _clean(self, model: LabModel, batch: TokenBatch) -> tuple[Activations, Tensor]:
        """Activations of the clean run at the traced site, and its last logits."""
        with capture(model, [SITES[self.kind]]) as clean:
            resid = Execution(model, batch).forward()
        return clean, read_logits(model, resid[:, -1:])[0, 0]

    def _corrupt(
        self, model: LabModel, fact: Fact, batch: TokenBatch, span: TokenSpan
    ) -> tuple[Activations, Tensor, Prefix, TokenBatch]:
        """The corrupted run, one row a noise draw, with its keys and values."""
        rows = repeat_rows(batch, self.samples)
        draw = stats.generator(self.seed, "trace", fact.prompt, fact.subject)
        shape = (self.samples, len(span), model.d_model)
        noise = torch.randn(shape, generator=draw).to(model.device)
        noise *= self.noise * embedding_spread(model)

        def corrupt(embeddings: Tensor) -> Tensor:
            embeddings = embeddings.clone()
            embeddings[:, span.start : span.stop] += noise.to(embeddings)
            return embeddings

        with patched_embedding(model, corrupt):
            run = Execution(model, rows)
        with capture(model, ["resid_pre", "resid_post"]) as seen:
            resid, prefix = run.freeze()
        return seen, resid, prefix, rows

    def _position(
        self,
        model: LabModel,
        rows: TokenBatch,
        prefix: Prefix,
        clean: Activations,
        corrupted: Activations,
        pos: int,
        answer: int,
    ) -> Float[Tensor, "sample layer"]:
        """All cells of one position: one batch that grows from block to block."""
        run = Execution(model, rows, prefix.head(pos) if pos else None)
        at_once = max(1, rows_within(model, rows.shape[1], self.memory) // self.samples)
        parts = [
            self._cells(model, run, clean, corrupted, pos, layers.tolist(), answer)
            for layers in np.array_split(np.arange(model.n_layers), -(-model.n_layers // at_once))
        ]
        return torch.cat(parts, dim=1)

    def _cells(
        self,
        model: LabModel,
        run: Execution,
        clean: Activations,
        corrupted: Activations,
        pos: int,
        layers: list[int],
        answer: int,
    ) -> Float[Tensor, "sample layer"]:
        """Cells of one position and some layers."""
        restored = {layer: self._restored_layers(model, layer) for layer in layers}
        joined: list[int] = []
        stream: Tensor | None = None
        for block in range(model.n_layers + 1):
            arriving, joining = self._joining(clean, corrupted, pos, block, restored)
            if arriving is not None:
                stream = arriving if stream is None else torch.cat([stream, arriving])
                joined += joining
            if stream is None or block == model.n_layers:
                continue
            draws = torch.arange(self.samples, device=stream.device).repeat(len(joined))
            with patched(model, self._restoration(clean, pos, block, joined, restored)):
                stream = run.forward(stream, start=block, stop=block + 1, rows=draws)
        assert stream is not None  # every cell has joined by now
        probability = answer_probability(model, stream, answer)
        by_cell = rearrange(probability, "(cell draw) -> draw cell", draw=self.samples)
        return by_cell[:, [joined.index(layer) for layer in layers]].cpu()

    def _restored_layers(self, model: LabModel, layer: int) -> range:
        """Layers whose output a cell restores: a window around its layer."""
        if self.kind == "resid":
            return range(layer, layer + 1)
        window = 10 if self.window is None else self.window
        start = max(0, layer - window // 2)
        return range(start, min(model.n_layers, layer - window // 2 + window))

    def _joining(
        self,
        clean: Activations,
        corrupted: Activations,
        pos: int,
        block: int,
        restored: dict[int, range],
    ) -> tuple[Tensor | None, list[int]]:
        """Rows that begin to differ at the entry of a block, and the cells they are."""
        if self.kind == "resid":
            joining = [layer for layer in restored if layer + 1 == block]
            if not joining:
                return None, []
            stream = corrupted["resid_post", block - 1][:, pos:].clone()
            stream[:, 0] = clean["resid_post", block - 1][:, pos]
            return stream, joining
        joining = [layer for layer, window in restored.items() if window.start == block]
        if not joining:
            return None, []
        stream = corrupted["resid_pre", block][:, pos:]
        return repeat(stream, "draw pos d -> (cell draw) pos d", cell=len(joining)), joining

    def _restoration(
        self,
        clean: Activations,
        pos: int,
        block: int,
        joined: list[int],
        restored: dict[int, range],
    ) -> dict:
        """The patch of one block: its clean output at the position, in the cells that want it."""
        if self.kind == "resid":
            return {}
        wanted = torch.tensor([block in restored[layer] for layer in joined])
        if not wanted.any():
            return {}
        site = SITES[self.kind]
        value = clean[site, block][0, pos]

        def restore(out: Tensor) -> Tensor:
            out = out.clone()
            mask = wanted.to(out.device).repeat_interleave(self.samples)
            out[mask, 0] = value
            return out

        return {(site, block): restore}


def embedding_spread(model: LabModel) -> float:
    """Standard deviation of the token embeddings as they enter the model.

    Some families (Gemma) scale what they look up: one factor for all tokens, read off a few.
    """
    embedding = model.hf.get_input_embeddings()
    few = torch.arange(min(8, model.d_vocab), device=model.device)
    scale = embedding(few).norm() / embedding.weight[few].norm()
    return float(embedding.weight.float().std() * scale)


def answer_probability(
    model: LabModel, resid: Float[Tensor, "row pos d_model"], answer: int
) -> Float[Tensor, " row"]:
    """P(answer) at the last position of a residual stream that left the last block."""
    logits = read_logits(model, resid[:, -1:])[:, 0]
    return logits.float().softmax(dim=-1)[:, answer]
