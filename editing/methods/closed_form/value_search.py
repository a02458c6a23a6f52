"""How `v*` is searched for: steps, what the terms of the loss weigh, and how far it reaches."""

from collections.abc import Sequence
from dataclasses import dataclass

from editing.methods.closed_form.bystanders import Bystander
from labkit.bounds import STEPS, require_finite
from labkit.errors import InputError
from labkit.models.anatomy import Site


@dataclass(frozen=True, kw_only=True)
class ValueSearch:
    """How `v*` is searched for.

    Attributes:
        steps: Optimisation steps at most (the paper: 20 for GPT-2 XL).
        lr: Learning rate of Adam, in units of the FFN's output (the paper: 0.5).
        kl_factor: Weight of the essence term (the published code: 0.0625, of the divergence in
            the other direction).
        decay: Weight of the norm term, which is a share: 1 at `||z - v|| = ||v||` (the published
            code's 0.5 weighs another quantity, see
            `editing.methods.closed_form.values`).
        clamp: Largest `||z - v||`, in units of `||v||` (the paper: 4).
        bystanders: Number of other subjects that are held to what was said about them (the
            paper: 0). Eight halve what neighbours of bundled facts lose, at 1.7 times the cost
            of a step; published neighbours gained nothing.
        bystander_factor: Weight of the term of each.
        bystander_push: The share of the change that a bystander is held against, in units of
            the share that will leak to it; `editing.methods.closed_form.bystanders.ALIKE` at most.
        enough: A search ends when P(target) reaches this in every context; for a deletion,
            when P(answer) falls to one minus this.
    """

    steps: int = 25
    lr: float = 0.5
    kl_factor: float = 0.0625
    decay: float = 0.1
    clamp: float = 4.0
    bystanders: int = 0
    bystander_factor: float = 4.0
    bystander_push: float = 2.0
    enough: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a search configuration with nothing to do."""
        require_finite(self)
        if not 1 <= self.steps <= STEPS or not self.lr > 0 or not self.clamp > 0:
            raise InputError(
                f"a search for v* needs 1 to {STEPS:,} steps, and lr and clamp above 0"
            )
        if self.bystanders < 0:
            raise InputError(f"{self.bystanders} bystanders: choose 0 or more")
        for name in ("kl_factor", "decay", "bystander_factor", "bystander_push"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} {getattr(self, name)}: 0, or more")
        if not 0 <= self.enough <= 1:
            raise InputError(f"enough {self.enough} is a probability: 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far a search reaches beyond one output and one subject.

    Attributes:
        near: The bystanders of every group, held to what was said about them; by default none.
        sites: Which outputs of the layer are searched for together; by default the FFN's. `v*`
            is always that one; PMET also moves "attn_out", and drops what it finds there.
    """

    near: Sequence[Sequence[Bystander]] = ()
    sites: Sequence[Site] = ("ffn_value",)


ALONE = Reach()
"""The FFN's output and the subject, alone."""
