"""`v*`: the value that makes the model say the new object.

The vector `z` that, put in the place of the FFN's output at the subject's last token, makes
the target the continuation, in several contexts, without changing what the model says the
subject is (Meng et al. 2022, section 3.1, equation 4):

    v* = argmin_z  mean_contexts -log P_z(target | context + prompt)
                   + kl_factor * KL(P(. | "{subject} is a") || P_z(. | "{subject} is a"))
                   + decay * ||z - v||^2 / ||v||^2

Only what lies behind the change is run: blocks from the edited layer on, positions from the
subject's last token on; everything before is frozen, with its keys and values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from editing.keys import Placed, place
from labkit.activations import capture, patched
from labkit.errors import InputError, NonFiniteLoss
from labkit.execute import Execution, freeze, read_logits
from labkit.facts import Rewrite
from labkit.models import LabModel
from labkit.tokens import pad_id, target_ids

ESSENCE = "{} is a"
"""The prompt whose continuation an edit should leave alone."""


@dataclass(frozen=True, kw_only=True)
class ValueSearch:
    """How `v*` is searched for.

    Attributes:
        steps: Steps of Adam at most (the paper: 20).
        lr: Step size (the paper: 0.5).
        kl_factor: Weight of the essence term (the paper: 0.0625).
        decay: Weight of the norm term (the paper: 0.5 for GPT-2 XL).
        clamp: Largest `||z - v||`, in units of `||v||` (the paper: 4).
        enough: The search ends when P(target) reaches this in every context.
    """

    steps: int = 25
    lr: float = 0.5
    kl_factor: float = 0.0625
    decay: float = 0.1
    clamp: float = 4.0
    enough: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a search that could not move."""
        if self.steps < 1 or not self.lr > 0 or not self.clamp > 0:
            raise InputError("a search for v* needs at least one step, and lr and clamp above 0")


@dataclass(frozen=True)
class Value:
    """What a search found.

    Attributes:
        v_star: The value, `[d_model]`, in the place of the FFN's output.
        v: The FFN's output there before, in the bare prompt.
        steps: Steps taken.
        probability: Lowest P(target) over contexts, per target token, at the end.
    """

    v_star: Float[Tensor, " d_model"]
    v: Float[Tensor, " d_model"]
    steps: int
    probability: float


class _Rows:
    """The prompts of one search, their subject's last tokens in one column.

    Prompts are padded on the left up to that column, and filled up on the right with
    tokens that nothing reads: what follows a position cannot change it.
    """

    def __init__(
        self, model: LabModel, rewrite: Rewrite, contexts: Sequence[str], layer: int
    ) -> None:
        target = target_ids(model.tokenizer, rewrite.prompt, rewrite.target_new)
        asked = [place(model, c, rewrite.template, rewrite.subject) for c in contexts]
        # The essence prompt stands behind a context too, so that the subject is never first.
        essence = place(model, contexts[-1], ESSENCE, rewrite.subject)
        rows = [Placed(p.ids + target[:-1], p.subject_last) for p in asked] + [essence]
        behind = max(len(row.ids) - row.subject_last - 1 for row in rows)
        fill = pad_id(model.tokenizer)
        batch = model.pad(
            [row.ids + [fill] * (behind - (len(row.ids) - row.subject_last - 1)) for row in rows]
        )
        self.n_asked = len(asked)
        self.column = batch.shape[1] - behind - 1
        # Columns of the run from the subject's last token on, where each target token is read.
        last = len(asked[0].ids) - asked[0].subject_last - 1
        self.reads = [last + i for i in range(len(target))]
        self.essence_read = len(essence.ids) - essence.subject_last - 1
        self.target = torch.tensor(target, device=model.device)

        prefix = freeze(model, batch, length=self.column) if self.column else None
        self.run = Execution(model, batch, prefix)
        with torch.no_grad(), capture(model, ["ffn_value"], [layer]) as seen:
            self.entering = self.run.forward(stop=layer)
            self.run.forward(self.entering, start=layer, stop=layer + 1)
        self.v = seen["ffn_value", layer][: self.n_asked, 0]


def value_star(
    model: LabModel,
    rewrite: Rewrite,
    layer: int,
    contexts: Sequence[str],
    search: ValueSearch,
    *,
    step_done: Callable[[int, float], None] | None = None,
) -> Value:
    """Search for `v*` of one rewrite.

    Args:
        model: The model; it is not changed.
        rewrite: What the model should say.
        layer: The layer whose FFN output is replaced.
        contexts: What stands in front of the prompt; the first one is empty.
        search: How to search.
        step_done: Called after each step with its number and the loss.

    Raises:
        EmptyTarget, SubjectNotFound: Before any work.
        NonFiniteLoss: If the loss stops being a number.
    """
    rows = _Rows(model, rewrite, contexts, layer)
    v = rows.v[0].float()
    change = torch.zeros_like(v, requires_grad=True)
    optimiser = torch.optim.Adam([change], lr=search.lr)
    essence_before: Tensor | None = None
    step, lowest = 0, 0.0
    for step in range(search.steps + 1):

        def write(out: Tensor) -> Tensor:
            first = out[:, :1] + change.to(out.dtype)
            return torch.cat([first, out[:, 1:]], dim=1)

        with patched(model, {("ffn_value", layer): write}):
            resid = rows.run.forward(rows.entering, start=layer)
        target, essence = _read(model, resid, rows)
        if essence_before is None:
            essence_before = essence.detach()
        nll = -target.mean()
        kl = functional.kl_div(essence, essence_before, log_target=True, reduction="sum")
        decay = change.square().sum() / v.square().sum()
        loss = nll + search.kl_factor * kl + search.decay * decay
        if not torch.isfinite(loss):
            raise NonFiniteLoss(
                f"the loss of the rewrite {rewrite.prompt!r} -> {rewrite.target_new!r} is "
                f"{loss.item()} at step {step}: try a smaller lr; the model is untouched"
            )
        lowest = float(target.detach().min().exp())
        if step_done is not None:
            step_done(step, loss.item())
        if step == search.steps or lowest >= search.enough:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            bound = search.clamp * v.norm()
            change.mul_((bound / change.norm()).clamp(max=1.0))
    return Value((v + change).detach(), v, step, lowest)


def _read(model: LabModel, resid: Tensor, rows: _Rows) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the target `[context token]` and after the essence prompt `[vocab]`."""
    asked = rearrange(resid[: rows.n_asked, rows.reads], "context token d -> (context token) 1 d")
    essence = resid[rows.n_asked :, rows.essence_read :][:, :1]
    logits = read_logits(model, torch.cat([asked, essence]))[:, 0].float()
    logprobs = logits.log_softmax(dim=-1)
    by_token = rearrange(
        logprobs[:-1], "(context token) v -> context token v", context=rows.n_asked
    )
    index = rows.target.expand(rows.n_asked, -1).unsqueeze(-1)
    return by_token.gather(-1, index).squeeze(-1), logprobs[-1]
