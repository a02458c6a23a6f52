"""`v*`: the value that makes the model say the new object.

The vector `z` that, put in place of the FFN's output at the subject's last token, makes
the target the continuation, in several contexts, without changing the model's description of the
subject (after Meng et al. 2022, section 3.1, equation 4):

    v* = argmin_z  mean_contexts -log P_z(target | context + prompt)
                   + kl_factor * KL(P(. | "{subject} is a") || P_z(. | "{subject} is a"))
                   + decay * ||z - v||^2 / ||v||^2
                   + bystander_factor * sum_b KL(P(. | prompt of b) || P_z(. | prompt of b))

The last term is ours: `b` runs over the subjects that the write will leak to most
(`editing.methods.closed_form.bystanders`), and `P_z` is said with their share of the change,
exaggerated.

A deletion has no target. Its first term is the cross-entropy to what the model said before,
with the answer taken out and the rest flattened (`FLATTEN`): the answer becomes uncertain, and
the prompt still goes on in a way that the model finds possible.

Many groups of requests are searched for at once, each with its own `z`, loss and end. Only
what lies after the change is run: blocks from the edited layer on, positions from the
subject's last token on; everything before is frozen, with its keys and values. A group that
is done leaves the batch.

Differs from the paper:

- The divergence is taken from the unedited model's predictions to the edited one's, which asks
  that nothing the model said be lost; equation 4 and the published code take it the other way
  round, KL(P_z || P), which asks that nothing new be said.
- The norm term is a share without a unit: squared length over squared length. Equation 4 has
  none; the published code adds `0.5 ||z - v|| / ||v||^2` for GPT-2 XL, the length itself over its
  square, whose weight depends on the scale of the model's values. So `decay` and that 0.5 are
  different quantities, and neither can be put in place of the other.
- The published code stops where the loss falls below 0.05; here, where the target is likely
  enough in every context (`enough`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from editing.edits.requests import Group, requests_of
from editing.methods.closed_form.bystanders import ALIKE
from editing.methods.closed_form.value_rows import Batch, Reads, batches, rows_of
from editing.methods.closed_form.value_search import ALONE, Reach, ValueSearch
from labkit.errors import AlreadyTrue, NonFiniteLoss
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import patched
from labkit.running.logits import read_logits

FLATTEN = 2.0
"""Temperature at which a deletion flattens what the model said besides the answer."""

MEMORY = 256 << 20
"""Bound, in bytes, on what is kept for the backward run: groups that do not fit together are
searched for one batch after another."""


@dataclass(frozen=True)
class Values:
    """What a search found, for every group.

    Attributes:
        v_star: The value in place of the FFN's output.
        v: The FFN's output there before, in the bare prompt of the group's first request.
        steps: Steps taken.
        probability: Lowest probability, over contexts, requests and target tokens, of what
            was asked for at the end; for a deletion, of anything but the answer.
        losses: The loss before the first step and after each.
    """

    v_star: Float[Tensor, "group d_model"]
    v: Float[Tensor, "group d_model"]
    steps: Int[Tensor, " group"]
    probability: Float[Tensor, " group"]
    losses: tuple[tuple[float, ...], ...]

    @property
    def change(self) -> Float[Tensor, "group d_model"]:
        """`v* - v`."""
        return self.v_star - self.v


@torch.enable_grad()
def value_stars(
    model: LabModel,
    groups: Sequence[Group],
    layer: int,
    contexts: Sequence[str],
    search: ValueSearch,
    reach: Reach = ALONE,
    *,
    progress: Progress | None = None,
) -> Values:
    """Search for the `v*` of every group, many at once.

    Args:
        model: The model as it is now; it is not changed.
        groups: The requests, by subject.
        layer: The layer whose FFN output is replaced.
        contexts: The contexts put before a prompt; the first one is empty.
        search: How to search.
        reach: Which bystanders are held, and what else is moved; by default nothing.
        progress: Called after each step.

    Raises:
        EmptyTarget, SubjectNotFound: Before any work.
        NonFiniteLoss: If a loss stops being a number.
    """
    layer = model.layer(layer)
    rows = [
        rows_of(model, number, group, contexts, reach.near[number] if reach.near else ())
        for number, group in enumerate(groups)
    ]
    v_star = torch.zeros(len(groups), model.d_model, device=model.device)
    v, steps = torch.zeros_like(v_star), torch.zeros(len(groups), dtype=torch.long)
    probability = torch.zeros(len(groups))
    losses: dict[int, tuple[float, ...]] = {}
    for members in batches(model, rows, layer, MEMORY):
        batch = Batch(model, [rows[number] for number in members], layer)
        names = [groups[number] for number in members]
        found = _search(model, batch, names, layer, search, reach.sites, listener(progress))
        index = torch.tensor(members)
        v_star[index], v[index] = found.v_star, found.v
        steps[index], probability[index] = found.steps, found.probability
        losses |= dict(zip(members, found.losses, strict=True))
    in_order = tuple(losses[number] for number in range(len(groups)))
    return Values(v_star, v, steps, probability, in_order)


def refuse_already_true(groups: Sequence[Group], found: Values) -> None:
    """Raise if the search of some groups ended before its first step.

    Raises:
        AlreadyTrue: If there are such groups.
    """
    done = [group for group, n in zip(groups, found.steps.tolist(), strict=True) if not n]
    if done:
        subjects = ", ".join(group.subject for group in done)
        raise AlreadyTrue(
            f"the model says what is asked for already, in every context: {subjects}; "
            "leave these rewrites out",
            [request.prompt for request in requests_of(done)],
        )


def _search(
    model: LabModel,
    batch: Batch,
    groups: Sequence[Group],
    layer: int,
    search: ValueSearch,
    sites: Sequence[Site],
    told: Progress,
) -> Values:
    """Search for the values of one batch of groups, each with its own end."""
    v = torch.stack([batch.before[site] for site in sites])
    change = torch.zeros_like(v, requires_grad=True)
    optimiser = torch.optim.Adam([change], lr=search.lr)
    found, probability = torch.zeros_like(v), torch.zeros(batch.n_groups, device=v.device)
    steps = torch.zeros(batch.n_groups, dtype=torch.long)
    active = list(range(batch.n_groups))
    seen: list[Tensor] = []
    reads = Reads(batch, active)
    with torch.no_grad():
        anchors = _anchors(_logprobs(model, batch, reads, layer, {}, 0.0), reads)
    for step in range(search.steps + 1):
        pushes = dict(zip(sites, change, strict=True))
        logprobs = _logprobs(model, batch, reads, layer, pushes, search.bystander_push)
        losses = _losses(logprobs, reads, anchors, search, batch.n_groups)
        losses = losses + search.decay * (change.square().sum(-1) / v.square().sum(-1)).sum(0)
        _refuse_non_finite(losses, groups, active, step)
        seen.append(losses.detach())
        lowest = _lowest(logprobs.detach(), reads, batch.n_groups)
        told(f"searching for v*, step {step} of {search.steps}", step / search.steps)
        ended = [n for n in active if step == search.steps or lowest[n] >= search.enough]
        for number in ended:
            found[:, number] = change.detach()[:, number]
            steps[number], probability[number] = step, lowest[number]
        if ended:
            active = [number for number in active if number not in ended]
            if not active:
                break
            kept = torch.isin(reads.group, torch.tensor(active, device=v.device))
            anchors, reads = anchors[kept[reads.anchored]], Reads(batch, active)
        optimiser.zero_grad()
        losses[active].sum().backward()
        optimiser.step()
        with torch.no_grad():
            bound = search.clamp * v.norm(dim=-1, keepdim=True)
            change.mul_((bound / change.norm(dim=-1, keepdim=True)).clamp(max=1.0))
    ffn = sites.index("ffn_value")
    return Values(v[ffn] + found[ffn], v[ffn], steps, probability.cpu(), _by_group(seen, steps))


def _by_group(
    seen: Sequence[Float[Tensor, " group"]], steps: Int[Tensor, " group"]
) -> tuple[tuple[float, ...], ...]:
    """Every group's losses, from the start to its own last step."""
    rows = torch.stack(list(seen), dim=1).tolist()
    return tuple(tuple(row[: last + 1]) for row, last in zip(rows, steps.tolist(), strict=True))


def _logprobs(
    model: LabModel,
    batch: Batch,
    reads: Reads,
    layer: int,
    pushes: Mapping[Site, Tensor],
    bystander_push: float,
) -> Float[Tensor, "reading vocab"]:
    """Log-probabilities at every reading, with the layer's outputs changed at the column."""
    heard = (bystander_push * reads.share).clamp(-ALIKE, ALIKE)
    size = torch.where(reads.bystanders, heard, 1.0)[:, None]

    def pushed(push: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda out: torch.cat(
            [out[:, :1] + (size * push[reads.groups])[:, None].to(out.dtype), out[:, 1:]], dim=1
        )

    with patched(model, {(site, layer): pushed(push) for site, push in pushes.items()}):
        resid = batch.run.forward(batch.entering[reads.rows], start=layer, rows=reads.rows)
    logits = read_logits(model, resid[reads.row, reads.pos][:, None])[:, 0]
    return logits.float().log_softmax(dim=-1)


def _anchors(logprobs: Float[Tensor, "reading vocab"], reads: Reads) -> Tensor:
    """The distributions that anchored readings are held to, as log-probabilities.

    For essence prompts what the model said before; for deletions the same without the
    answer, flattened.
    """
    anchors = logprobs[reads.anchored].clone()
    deletes, answer = reads.deletes[reads.anchored], reads.target[reads.anchored]
    rest = anchors[deletes] / FLATTEN
    rest.scatter_(-1, answer[deletes, None], -torch.inf)
    # A floor in place of log 0: its share of the cross-entropy is nothing all the same.
    anchors[deletes] = rest.log_softmax(dim=-1).clamp(min=-1e4)
    return anchors


def _losses(
    logprobs: Float[Tensor, "reading vocab"],
    reads: Reads,
    anchors: Tensor,
    search: ValueSearch,
    n_groups: int,
) -> Float[Tensor, " group"]:
    """Every group's loss without its norm term; 0 for a group that is not run."""
    named = reads.asked & ~reads.deletes
    each = torch.zeros(len(logprobs), device=logprobs.device)
    nll = -logprobs[named].gather(-1, reads.target[named, None])[:, 0]
    held = logprobs[reads.anchored]
    # KL to the anchor; for a deletion the cross-entropy, which differs by a constant.
    distance = (anchors.exp() * (anchors - held)).sum(-1)
    factor = torch.where(reads.deletes[reads.anchored], 1.0, search.kl_factor)
    factor = factor.masked_fill(reads.bystander[reads.anchored], search.bystander_factor)
    each = each.index_put((named.nonzero()[:, 0],), nll)
    each = each.index_put((reads.anchored.nonzero()[:, 0],), factor * distance)
    total = torch.zeros(n_groups, device=logprobs.device)
    return total.index_add(0, reads.group, reads.weight * each)


def _lowest(
    logprobs: Float[Tensor, "reading vocab"], reads: Reads, n_groups: int
) -> Float[Tensor, " group"]:
    """Every group's lowest probability of what it asks for; infinite where nothing is run."""
    asked = reads.asked
    said = logprobs[asked].gather(-1, reads.target[asked, None])[:, 0].exp()
    wanted = torch.where(reads.deletes[asked], 1 - said, said)
    lowest = torch.full((n_groups,), torch.inf, device=logprobs.device)
    return lowest.scatter_reduce(0, reads.group[asked], wanted, "amin")


def _refuse_non_finite(
    losses: Float[Tensor, " group"], groups: Sequence[Group], active: Sequence[int], step: int
) -> None:
    """Raise `NonFiniteLoss` for the first group whose loss is no number."""
    for number in active:
        if not torch.isfinite(losses[number]):
            raise NonFiniteLoss(
                f"the loss of {groups[number].requests[0].prompt!r} is {losses[number].item()} "
                f"at step {step}: try a smaller lr; the model is untouched"
            )
