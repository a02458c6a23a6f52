"""Patching between two prompts: the corrupted run is another fact's, not noise.

Noise on the subject puts the model into states that never occur. With a symmetric pair ("The Eiffel
Tower is in the city of", "The Colosseum is in the city of") the corrupted run is an ordinary
one, and its answer is known too (Zhang & Nanda 2024). Two prompts of the same number of tokens:

1. clean: the fact's prompt, whose answer is `r`;
2. corrupted: the other's, whose answer is `r'`;
3. patched: the corrupted run with one state (or a window of FFN or attention outputs) set to
   its value in the clean run, at the same position.

Two readings: `P(r)`, which saturates and misses what pushes `r` down, and the logit difference
`LD = logit(r) - logit(r')`, which is linear in what is written and shows both. The share of it
that a state recovers is `(LD[state] - LD_corrupted) / (LD_clean - LD_corrupted)`: 0 as
corrupted, 1 as clean, below 0 where the state promotes the other answer.

How the cells are computed: `labkit.locate.traces.restoring`. Nothing is random, so a single pair
has no interval: it is one unit.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.answers import told
from labkit.facts.fact import Fact
from labkit.locate.fact_result import cell_columns
from labkit.locate.traces.restoring import SITES, Kind, Restoration, Runs, restored
from labkit.locate.traces.trace_result import NAMES
from labkit.locate.traces.tracing import object_token, require_traceable
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.running.execute import Execution
from labkit.running.logits import MEMORY, read_logits

READINGS = ("probability", "logit_difference")
"""What is read off a patched run: P(r), and logit(r) - logit(r')."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairResult(Measured):
    """Results of patching from one prompt into another.

    The last axis of an array is `READINGS`: P(r) and logit(r) - logit(r').

    Attributes:
        prompts: The clean and the corrupted prompt.
        answers: The tokens `r` and `r'`.
        tokens: The clean prompt's tokens, as text.
        other_tokens: The corrupted prompt's.
        subject_positions: Positions of the subject's tokens, the same in both.
        kind: What was patched.
        clean: The readings of the clean run.
        corrupted: The readings of the corrupted run.
        cells: The readings with one site patched.
        config: The method's fields.
    """

    prompts: tuple[str, str]
    answers: tuple[str, str]
    tokens: tuple[str, ...]
    other_tokens: tuple[str, ...]
    subject_positions: tuple[int, ...]
    kind: str
    clean: Float[np.ndarray, "2"]
    corrupted: Float[np.ndarray, "2"]
    cells: Float[np.ndarray, "pos layer 2"]
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """What was patched, and between which answers."""
        right, wrong = (answer.strip() for answer in self.answers)
        return (
            f"Patching one {NAMES[self.kind]} from {self.prompts[0]!r} into {self.prompts[1]!r}: "
            f"P({right}) {self.clean[0]:.2f} and {self.corrupted[0]:.2f}, "
            f"logit({right}) - logit({wrong}) {self.clean[1]:.2f} and {self.corrupted[1]:.2f}"
        )

    @property
    def share(self) -> Float[np.ndarray, "pos layer"]:
        """The share of the logit difference that each cell recovers; 1 is the clean run."""
        return (self.cells[..., 1] - self.corrupted[1]) / (self.clean[1] - self.corrupted[1])

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: pos, both tokens, layer, in_subject, both readings, and the share.

        Nothing here is random: one pair is one unit, and has no interval.
        """
        cells = cell_columns(self.cells.shape[:2], self.tokens, self.subject_positions)
        readings = {
            "probability": self.cells[..., 0].ravel(),
            "logit_difference": self.cells[..., 1].ravel(),
            "share": self.share.ravel(),
        }
        frame = pd.DataFrame(cells | readings)
        frame.insert(2, "other_token", [self.other_tokens[pos] for pos in cells["pos"]])
        return frame

    def figure(self, reading: str = "logit_difference") -> Any:
        """The heatmap of one of the `READINGS`: tokens of both prompts down, layers across.

        Raises:
            InputError: If there is no such reading.
        """
        from labkit.plots import pair_heatmap

        if reading not in READINGS:
            raise InputError(f"no reading {reading!r}; one of {', '.join(READINGS)}")
        which = READINGS.index(reading)
        return pair_heatmap(
            self.to_frame(),
            reading=reading,
            answers=self.answers,
            clean=float(self.clean[which]),
            corrupted=float(self.corrupted[which]),
            subject_positions=self.subject_positions,
            kind=self.kind,
        )


@dataclass(frozen=True, kw_only=True)
class PairTrace:
    """Patching from one fact's prompt into another's.

        PairTrace()(model, fact, other).figure()    # prompts of as many tokens

    Attributes:
        kind: What is patched.
        window: Number of consecutive layers whose FFN or attention output is patched
            together, centred on the cell's layer; 1 for hidden states.
        memory: Bound on the activations held at once, in bytes.

    Shows:
        Which states carry what distinguishes two prompts, in runs that occur: no noise.

    Does not show:
        Anything about what both prompts share: a state that carries only "a landmark" does the
        same in both.

    References:
        Zhang & Nanda 2024, Towards Best Practices of Activation Patching in Language Models,
        sections 2 and 3. Geiger et al. 2021, Causal Abstractions of Neural Networks
        (interchange interventions).

    Differs from the papers: none; the window is that of `CausalTrace`.
    """

    kind: Kind = "resid"
    window: int = 1
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        if self.kind not in SITES:
            raise InputError(f"kind {self.kind!r}: one of {', '.join(SITES)}")
        if self.window < 1 or (self.kind == "resid" and self.window > 1):
            raise InputError("a window is a number of layers of FFN or attention outputs")

    @checked
    @torch.no_grad()
    def __call__(
        self, model: LabModel, fact: Fact, other: Fact, *, progress: Progress | None = None
    ) -> PairResult:
        """Patch every state of one prompt into another, one at a time.

        Args:
            model: The model.
            fact: The clean prompt and its answer; without an object, what the model says.
            other: The corrupted prompt and its answer, likewise: of the same number of
                tokens, with its subject at the same positions.
            progress: Called with what is being done and the share that is done.

        Raises:
            InputError: If the prompts are the same, differ in length or in where the subject
                stands, or if their answers begin with the same token.
            SubjectNotFound, NothingToTrace, NotOneToken: As in `CausalTrace`.
        """
        fact, other = told(model.tokenizer, fact), told(model.tokenizer, other)
        span, other_span = require_traceable(model, fact), require_traceable(model, other)
        batch, rows = model.tokens([fact.prompt]), model.tokens([other.prompt])
        n_positions = batch.shape[1]
        if batch.shape != rows.shape or span != other_span:
            raise InputError(
                f"{fact.prompt!r} has {n_positions} tokens, its subject at {list(span)}; "
                f"{other.prompt!r} has {rows.shape[1]}, its subject at {list(other_span)}. "
                "Patching goes position by position: choose subjects with the same number of tokens"
            )
        differing = (batch.ids != rows.ids)[0].nonzero().flatten().tolist()
        if not differing:
            raise InputError(f"clean and corrupted prompt are the same: {fact.prompt!r}")
        targets = [object_token(model, one) for one in (fact, other)]

        how = Restoration(kind=self.kind, window=self.window)
        clean, corrupted_run = Execution(model, batch), Execution(model, rows)
        runs = Runs.of(model, how, clean, corrupted_run, rows, first=differing[0])
        said = [
            int(read_logits(model, last[:, -1:])[0, 0].argmax())
            for last in (runs.clean_last, runs.last)
        ]
        right, wrong = (
            own if target is None else target for target, own in zip(targets, said, strict=True)
        )
        if right == wrong:
            raise InputError(
                f"both prompts have the answer {model.tokenizer.decode([right])!r}: choose "
                "prompts with different answers"
            )

        def read(resid: Tensor) -> Tensor:
            logits = read_logits(model, resid[:, -1:])[:, 0].float()
            probability = logits.softmax(dim=-1)[:, right]
            return torch.stack([probability, logits[:, right] - logits[:, wrong]], dim=-1)

        corrupted = read(runs.last).cpu()
        cells = corrupted[0].expand(n_positions, model.n_layers, len(READINGS)).clone()
        for pos in range(differing[0], n_positions):
            share = (pos - differing[0]) / (n_positions - differing[0])
            listener(progress)(f"patching states, token {pos + 1} of {n_positions}", share)
            column = restored(model, runs, how, pos, read, memory=self.memory)
            cells[pos] = rearrange(column, "1 layer reading -> layer reading")
        decode = model.tokenizer.decode
        return PairResult(
            prompts=(fact.prompt, other.prompt),
            answers=(decode([right]), decode([wrong])),
            tokens=tuple(decode([token]) for token in batch.ids[0].tolist()),
            other_tokens=tuple(decode([token]) for token in rows.ids[0].tolist()),
            subject_positions=tuple(span),
            kind=self.kind,
            clean=read(runs.clean_last)[0].cpu().numpy(),
            corrupted=corrupted[0].numpy(),
            cells=cells.numpy(),
            **measured_on(model),
            config=asdict(self),
        )
