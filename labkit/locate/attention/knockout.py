"""Attention knock-out: which edges into the last position carry a fact there.

The answer is read at the last position, and attention alone brings anything there. So block
single edges: in some layers, the last position (as the query) may not look at some source
positions (as keys). Their scores become -inf before the softmax, whose weights go to the
other keys (Geva et al. 2023, section 5). What is measured is the relative change of the
answer's probability,

    (P_blocked - P) / P        in -1..; -1: the answer is gone, 0: nothing happened

- *by layer*: all heads, in a window of layers around each layer, for each group of source
  positions; beside it the control, as many random other tokens;
- *by head*: one head of one layer, which may not look at the subject; beside it the same
  head, which may not look at as many random other tokens.

How the cells are computed: see `labkit.locate.attention.edges`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float

from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.answers import told
from labkit.facts.fact import Fact
from labkit.locate.attention.edges import Cuts, answer_when_blocked, head_mask, window_mask
from labkit.locate.attention.knockout_result import (
    SOURCES,
    KnockoutResult,
)
from labkit.locate.fact_result import about_fact
from labkit.locate.traces.tracing import object_token
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.running.logits import MEMORY, next_token_logits
from labkit.tokens import TokenBatch, TokenSpan

PAPER_WINDOW = 9 / 48
"""Share of the layers in a window: 9 of GPT-2 XL's 48."""


@dataclass(frozen=True, kw_only=True)
class AttentionKnockout:
    """Attention knock-out of one fact, by windows of layers and by single heads.

        AttentionKnockout()(model, fact).figure()

    Attributes:
        window: Number of consecutive layers that are blocked together, centred on the
            cell's layer and cut at the ends; by default 9/48 of the layers, at least 3 (the
            paper: 9 of GPT-2 XL's 48).
        draws: Number of draws of random positions for the control by layer; the control by
            head takes the first of them.
        seed: Seed of the draws.
        memory: Bound on the activations held at once, in bytes.

    Shows:
        Through which layers and heads attention to the subject brings the answer to the last
        position, against as many random tokens.

    Does not show:
        What a head writes. Blocked weight moves to other keys, so that a drop can mean that those
        were turned up: hence the control, without the first token, which takes idle attention and
        harms whatever is asked when blocked. A head whose loss others make good shows no effect,
        and a subject that is the first token is no clean case.

    References:
        Geva, Bastings, Filippova and Globerson 2023, Dissecting Recall of Factual
        Associations in Auto-Regressive Language Models, section 5 and figure 2.

    Differs from the paper: the subject's last token and the first token of the prompt are
    groups of their own, single heads are blocked too, and there are the controls.
    """

    window: int | None = None
    draws: int = 8
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        if (self.window is not None and self.window < 1) or self.draws < 1:
            raise InputError("a knock-out needs a window of at least one layer, and one draw")

    @checked
    @torch.no_grad()
    def __call__(
        self, model: LabModel, fact: Fact, *, progress: Progress | None = None
    ) -> KnockoutResult:
        """Knock attention out of one fact.

        Args:
            model: The model.
            fact: Prompt, subject and answer; without an object, the answer is what the
                model itself says next.
            progress: Called with what is being done and the share that is done.

        Raises:
            SubjectNotFound: If the subject is not in the prompt.
            EmptyTarget: If the object tokenises to nothing.
            NotOneToken: If the object is a number that is cut into digits.
            InputError: If the prompt is one token, or ends with its subject.
            SelfCheckFailed: If the model's blocks take no mask of single edges.
        """
        fact = told(model.tokenizer, fact)
        batch, groups = sources(model, fact)
        window = self.layers_of_window(model)
        drawn = self._random_positions(model, fact, groups)
        answer = first_answer(model, fact, batch)
        centres = torch.stack([window_mask(model, at, window) for at in range(model.n_layers)])
        singles = rearrange(
            torch.eye(model.n_layers * model.n_heads, dtype=torch.bool),
            "cell (layer head) -> cell layer head",
            layer=model.n_layers,
        )
        by_layer = [*groups.values(), *drawn]
        by_head = [groups["subject"], drawn[0]]
        plans = [(centres, keys) for keys in by_layer] + [(singles, keys) for keys in by_head]
        cuts = Cuts.joined([Cuts.of(heads, keys, batch.shape[1]) for heads, keys in plans])
        found = answer_when_blocked(
            model, batch, answer, cuts, memory=self.memory, progress=progress
        )
        nothing = Cuts.of(torch.zeros_like(centres[:1]), (), batch.shape[1])
        (clean,) = answer_when_blocked(model, batch, answer, nothing)
        layers, heads = np.split(found, [len(by_layer) * model.n_layers])
        layers = layers.reshape(len(by_layer), model.n_layers)
        for row, keys in enumerate(by_layer):
            if not keys:  # there is no such token: nothing was blocked, nothing was learned
                layers[row] = np.nan
        heads = heads.reshape(2, model.n_layers, model.n_heads)
        if not drawn[0]:
            heads[1] = np.nan
        return KnockoutResult(
            **about_fact(
                model,
                fact,
                batch.ids[0].tolist(),
                answer_id=answer,
                subject_positions=groups["subject"],
            ),
            n_control=len(drawn[0]),
            window=window,
            clean=float(clean),
            by_layer=layers[: len(SOURCES)],
            control=layers[len(SOURCES) :],
            by_head=heads[0],
            by_head_control=heads[1],
            config=asdict(self),
        )

    @checked
    @torch.no_grad()
    def together(
        self, model: LabModel, fact: Fact, heads: Sequence[tuple[int, int]]
    ) -> tuple[float, Float[np.ndarray, " draw"]]:
        """P(answer) where several heads at once may not look at the subject, and a control.

        Args:
            model: The model.
            fact: Prompt, subject and answer.
            heads: The heads, as (layer, head).

        Returns:
            P(answer) with these heads blocked, and with as many random other heads of the
            same layers (any of that layer, where no other is left), one number per draw.

        Raises:
            InputError, LayerOutOfRange: If no head is named, or one does not exist.
        """
        fact = told(model.tokenizer, fact)
        batch, groups = sources(model, fact)
        chosen = head_mask(model, heads)
        sets = [chosen]
        for draw in range(self.draws):
            random = torch.zeros_like(chosen)
            pick = stats.generator(self.seed, "random heads", fact.prompt, draw)
            for layer in chosen.any(dim=1).nonzero()[:, 0].tolist():
                n_chosen = int(chosen[layer].sum())
                others = (~chosen[layer]).nonzero()[:, 0]
                pool = others if len(others) >= n_chosen else torch.arange(model.n_heads)
                random[layer, pool[torch.randperm(len(pool), generator=pick)[:n_chosen]]] = True
            sets.append(random)
        cuts = Cuts.of(torch.stack(sets), groups["subject"], batch.shape[1])
        answer = first_answer(model, fact, batch)
        found = answer_when_blocked(model, batch, answer, cuts, memory=self.memory)
        return float(found[0]), found[1:]

    def layers_of_window(self, model: LabModel) -> int:
        """Number of layers in a window of this model."""
        if self.window is not None:
            return self.window
        return min(model.n_layers, max(3, round(PAPER_WINDOW * model.n_layers)))

    def _random_positions(
        self, model: LabModel, fact: Fact, groups: dict[str, tuple[int, ...]]
    ) -> list[tuple[int, ...]]:
        """Draws of as many other tokens as the subject has, the first of the prompt left out."""
        pool = [pos for pos in groups["other tokens"] if pos > 0]
        drawn = []
        for draw in range(self.draws):
            pick = stats.generator(self.seed, "random positions", fact.prompt, draw)
            order = torch.randperm(len(pool), generator=pick).tolist()
            drawn.append(tuple(sorted(pool[i] for i in order[: len(groups["subject"])])))
        return drawn


def sources(model: LabModel, fact: Fact) -> tuple[TokenBatch, dict[str, tuple[int, ...]]]:
    """A fact's prompt as tokens, and the positions of each group of `SOURCES`.

    Raises:
        SubjectNotFound: If the subject is not in the prompt.
        InputError: If the prompt is one token, or ends with its subject: then nothing has to
            be carried to the last position.
    """
    span: TokenSpan = model.span(fact.prompt, fact.subject, at=fact.subject_start)
    batch = model.tokens([fact.prompt])
    last = batch.shape[1] - 1
    if last < 1:
        raise InputError(f"the prompt {fact.prompt!r} is one token: it has no edge to block")
    if span.last == last:
        raise InputError(
            f"the prompt {fact.prompt!r} ends with its subject {fact.subject!r}: nothing has to "
            "be carried to the last position; choose a template that goes on after the subject"
        )
    positions = {
        "subject": tuple(span),
        "last subject token": (span.last,),
        "other tokens": tuple(pos for pos in range(last) if pos not in span),
        "first token": () if 0 in span else (0,),
        "last token": (last,),
    }
    return batch, {name: positions[name] for name in SOURCES}


def first_answer(model: LabModel, fact: Fact, batch: TokenBatch) -> int:
    """The token that is followed: the object's first, or what the model itself says next."""
    token = object_token(model, fact)
    return int(next_token_logits(model, batch)[0].argmax()) if token is None else token
