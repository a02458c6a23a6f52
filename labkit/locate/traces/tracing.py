"""Causal tracing: which states recover a fact when restored.

Three runs of one prompt (Meng et al. 2022, section 2.1):

1. clean: the model as it is gives the answer with probability `P`;
2. corrupted: Gaussian noise on the embeddings of the subject's tokens gives `P*`;
3. restored: the corrupted run, with one state (or a window of FFN or attention outputs)
   set to its clean value, gives `P*[state]`.

The indirect effect of a state is `P*[state] - P*`.

*Severed* (section 2.2, figure 3): the same, while the outputs of the FFN (or of attention)
at the restored token are held at what they were in the corrupted run, in every layer in
which they are not themselves restored. Below the restored state they are that anyway; above
it they can no longer react to it. What is lost against the plain trace is the part of the
effect that goes through them; `labkit.locate.compare_severed` draws it.

How the cells are computed: `labkit.locate.traces.restoring`. No cell is computed that cannot
differ: positions before the subject are the same in both runs.
"""

import math
from dataclasses import asdict, dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from labkit import stats
from labkit.arguments import checked
from labkit.bounds import require_memory
from labkit.errors import InputError, NothingToTrace
from labkit.facts.answers import told
from labkit.facts.fact import Fact
from labkit.facts.worlds import another_subject
from labkit.locate.fact_result import about_fact
from labkit.locate.traces.alignment import ROLES, role_positions
from labkit.locate.traces.restoring import SITES, Kind, Path, Restoration, Runs, restored
from labkit.locate.traces.trace_result import TraceResult
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import patched_embedding
from labkit.running.execute import Execution, repeat_rows
from labkit.running.logits import MEMORY, read_logits
from labkit.tokens import TokenSpan, n_prepended, target_ids

__all__ = [
    "SITES",
    "CausalTrace",
    "Kind",
    "TraceResult",
    "answer_probability",
    "corruption",
    "embedding_spread",
    "object_token",
    "require_traceable",
]


@dataclass(frozen=True, kw_only=True)
class CausalTrace:
    """Causal tracing of one fact.

        CausalTrace()(model, fact).figure()

    Attributes:
        kind: What is restored.
        noise: Standard deviation of the noise, in standard deviations of the token
            embeddings as they enter the model (the paper: 3).
        samples: Number of noise draws (the paper: 10).
        window: Number of consecutive layers whose FFN or attention output is restored
            together, centred on the cell's layer; by default the paper's 10, or a third of the
            layers where that is fewer.
        severed: Whose outputs at the restored token are held at their corrupted values.
        roles: Trace only the tokens that have one of these `ROLES`, and leave the other
            cells NaN; None is every token.
        seed: Seed of the noise.
        memory: Bound on the activations held at once, in bytes.

    Shows:
        Which states suffice to bring the answer back in a run whose subject is noise.

    Does not show:
        That the fact is stored there, nor that an edit there works best (Hase et al. 2023); one
        fact's peak may not be another's.

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 2 and
        appendix B.

    Differs from the paper: the spread is that of the whole embedding matrix, not of the
    subjects of one data set, so that it depends on the model alone.
    """

    kind: Kind = "resid"
    noise: float = 3.0
    samples: int = 10
    window: int | None = None
    severed: Path | None = None
    roles: tuple[str, ...] | None = None
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        if self.kind not in SITES:
            raise InputError(f"kind {self.kind!r}: one of {', '.join(SITES)}")
        if not 0 < self.noise < math.inf or self.samples < 1:
            raise InputError("a trace needs noise above 0 and at least one noise draw")
        if self.window is not None and (self.kind == "resid" or self.window < 1):
            raise InputError("a window is a number of layers of FFN or attention outputs")
        if self.severed is not None and self.severed not in get_args(Path):
            raise InputError(f"severed {self.severed!r}: one of {', '.join(get_args(Path))}")
        if self.roles is not None and (not self.roles or {*self.roles} - {*ROLES}):
            raise InputError(f"roles {self.roles!r}: some of {', '.join(ROLES)}")

    @property
    def restoration(self) -> Restoration:
        """How one cell changes the corrupted run."""
        return Restoration(kind=self.kind, window=self.window, severed=self.severed)

    @checked
    @torch.no_grad()
    def __call__(
        self, model: LabModel, fact: Fact, *, progress: Progress | None = None
    ) -> TraceResult:
        """Trace one fact.

        Args:
            model: The model.
            fact: Prompt, subject and answer: the first token of the object (what of it says
                nothing moves to the prompt, see `labkit.facts.answers.follow`); without an object,
                what the model itself says next.
            progress: Called with what is being done and the share that is done.

        Raises:
            SubjectNotFound: If the subject is not in the prompt.
            NothingToTrace: If the prompt is one token, or nothing but the subject.
            EmptyTarget: If the object tokenises to nothing.
            NotOneToken: If the object is a number that is cut into digits.
        """
        warning = another_subject(model, fact)
        fact = told(model.tokenizer, fact)
        span, batch = require_traceable(model, fact), model.tokens([fact.prompt])
        n_positions = batch.shape[1]
        asked = self._positions(span, n_positions)
        answer = object_token(model, fact)
        rows = repeat_rows(batch, self.samples)
        corrupt = corruption(
            model, fact, span, noise=self.noise, samples=self.samples, seed=self.seed
        )
        with patched_embedding(model, corrupt):
            corrupted = Execution(model, rows)
        how, clean = self.restoration, Execution(model, batch)
        runs = Runs.of(model, how, clean, corrupted, rows, first=span.start)
        clean_logits = read_logits(model, runs.clean_last[:, -1:])[0, 0].float()
        answer_id = int(clean_logits.argmax()) if answer is None else answer

        def read(resid: Tensor) -> Tensor:
            return answer_probability(model, resid, answer_id)

        without = read(runs.last).cpu()
        cells = torch.full((self.samples, n_positions, model.n_layers), torch.nan)
        for index, pos in enumerate(asked):
            listener(progress)(
                f"restoring states, token {pos + 1} of {n_positions}", index / len(asked)
            )
            if pos < span.start:  # nothing is corrupted there
                cells[:, pos] = without[:, None]
            else:
                cells[:, pos] = restored(model, runs, how, pos, read, memory=self.memory)
        return TraceResult(
            **about_fact(
                model, fact, batch.ids[0].tolist(), answer_id=answer_id, subject_positions=span
            ),
            kind=self.kind,
            clean=clean_logits.softmax(-1)[answer_id].item(),
            corrupted=without.numpy(),
            cells=cells.numpy(),
            config=asdict(self),
            severed=self.severed,
            warning=warning,
        )

    def _positions(self, span: TokenSpan, n_positions: int) -> list[int]:
        """The positions that are asked for, in order."""
        if self.roles is None:
            return list(range(n_positions))
        spans = role_positions(n_positions, list(span))
        return [pos for role in ROLES if role in self.roles for pos in spans[role]]


@dataclass(frozen=True)
class Corruption:
    """Noise that is added to the embeddings of a subject's tokens.

    Attributes:
        span: The tokens.
        noise: What is added, one row per draw.
    """

    span: TokenSpan
    noise: Float[Tensor, "draw pos d_model"]

    def __call__(self, embeddings: Float[Tensor, "draw pos d_model"]) -> Tensor:
        """The embeddings with the noise on them."""
        embeddings = embeddings.clone()
        embeddings[:, self.span.start : self.span.stop] += self.noise.to(embeddings)
        return embeddings


def corruption(
    model: LabModel, fact: Fact, span: TokenSpan, *, noise: float, samples: int, seed: int
) -> Corruption:
    """The noise of a fact; the same seed gives the same draws everywhere.

    Args:
        model: The model.
        fact: The fact.
        span: Its subject's tokens.
        noise: Standard deviation, in standard deviations of the token embeddings.
        samples: Number of draws.
        seed: Seed of the draws.

    Raises:
        TooLarge: If that many runs are more than the machine can hold.
    """
    # The noise, and the states of the corrupted run of every block.
    n_states = (model.n_layers + 1) * len(model.ids(fact.prompt))
    require_memory(4.0 * samples * n_states * model.d_model, f"{samples:,} noise draws")
    draw = stats.generator(seed, "trace", fact.prompt, fact.subject)
    drawn = torch.randn((samples, len(span), model.d_model), generator=draw).to(model.device)
    return Corruption(span, drawn * noise * embedding_spread(model))


def object_token(model: LabModel, fact: Fact) -> int | None:
    """The token by which a fact's object is followed, its first; None without an object.

    Raises:
        EmptyTarget: If the object tokenises to nothing.
    """
    if fact.object is None:
        return None
    return target_ids(model.tokenizer, fact.prompt, fact.object)[0]


def require_traceable(model: LabModel, fact: Fact) -> TokenSpan:
    """The subject's tokens, if the prompt asks something about the subject.

    Raises:
        SubjectNotFound: If the subject is not in the prompt.
        NothingToTrace: If the prompt is one token, or nothing but the subject.
    """
    span = model.span(fact.prompt, fact.subject, at=fact.subject_start)
    front = n_prepended(model.tokenizer, fact.prompt, prepend_bos=model.prepend_bos)
    n_tokens = len(model.ids(fact.prompt)) - front
    if n_tokens == 1:
        raise NothingToTrace(
            f"the prompt {fact.prompt!r} is one token: no state lies between subject and answer"
        )
    if len(span) == n_tokens:
        raise NothingToTrace(
            f"the subject {fact.subject!r} is the whole prompt: nothing asks for an answer; "
            "write a prompt about it"
        )
    return span


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
