"""Undoing one of several edits, in any order, and reporting how exact that is.

Two things can go wrong, and both are reported. *Rounding*: floating-point addition cannot always be
inverted exactly. *Promise*: an edit that was made on top of another one was made for a state of the
model that no longer exists once the other is undone; what was measured of it no longer holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from editing.edits.change import Change, Dense, LowRank
from editing.edits.delta import WeightDelta, composed
from editing.edits.provenance import of_composition
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.results.result import Result


@dataclass(frozen=True, kw_only=True, eq=False)
class Undo(Result):
    """The outcome of undoing an edit.

    Attributes:
        taken_back: The edit, in words.
        digest: Its digest.
        weights: One row per weight that it changed: `weight`, `entries`, `how` (in words),
            `differing` (numbers that are not bit for bit what they are without the edit;
            missing where that cannot be known), `largest` (the largest deviation; a bound where
            `differing` is missing).
        remaining: Number of edits that remain.
        stale: Edits, in words, that were made on top of the one undone.
    """

    taken_back: str
    digest: str
    weights: pd.DataFrame
    remaining: int
    stale: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every weight is known to be bit for bit what it is without the edit."""
        return bool((self.weights["differing"] == 0).all())

    @property
    def title(self) -> str:
        """What was undone, how exactly, and what that means for the other edits."""
        if self.exact:
            how = "bit for bit"
        else:
            known = self.weights["differing"].dropna()
            count = f"{int(known.sum())} numbers differ" if len(known) else "not bit for bit"
            how = f"{count}, by at most {self.weights['largest'].max():.2g}"
        stale = f"; {len(self.stale)} later edit(s) were made on top of it" if self.stale else ""
        return f"taken back: {self.taken_back} ({how}){stale}"

    def to_frame(self) -> pd.DataFrame:
        """One row per weight; see `weights`."""
        return self.weights

    def figure(self) -> Any:
        """By weight, the share of its numbers that are exactly restored."""
        from labkit.plots import share_bars

        rows = self.weights
        shares = rows.assign(share=1 - rows["differing"] / rows["entries"], note=rows["how"])
        return share_bars(shares, axis="numbers that are exactly restored", title=self.title)


@checked
def undo(
    edits: WeightDelta | Sequence[WeightDelta], delta: WeightDelta
) -> tuple[WeightDelta, Undo]:
    """Undo one of several edits.

    Args:
        edits: All edits in effect: the deltas in order, each once, or their composition. With the
            deltas themselves the answer is always exact; from a composition it is where its factors
            are still those of the edit.
        delta: The edit to undo; if it occurs several times, the latest.

    Returns:
        The remaining edits as one delta (without changes if there are none), and how exact it is.

    Raises:
        InputError: If the edit is not among them, or a truncation has since mixed it with
            the others.
        FingerprintMismatch: If the deltas do not follow one another.
    """
    if isinstance(edits, WeightDelta):
        return _from_total(edits, delta)
    total = edits[0] if edits else composed(edits)
    for later in edits[1:]:
        total = total.then(later)
    places = [number for number, edit in enumerate(edits) if edit.digest == delta.digest]
    if not places:
        raise _absent(delta, len(edits))
    left = [edit for number, edit in enumerate(edits) if number != places[-1]]
    remaining = _nothing(delta)
    if left:  # what is left stands where all of it stood, whatever the first of it was made on
        remaining = replace(composed(left), on_top_of=total.on_top_of)
    rows = [_row(name, change, "left out", 0, 0.0) for name, change in delta.changes.items()]
    steps = [step for edit in edits[places[-1] + 1 :] for step in edit.steps]
    return remaining, report(delta, rows, _count(remaining), steps)


def _from_total(total: WeightDelta, delta: WeightDelta) -> tuple[WeightDelta, Undo]:
    """The same from a composition, whose parts are no longer available."""
    if total.digest == delta.digest:
        return undo([total], delta)
    steps = list(total.steps)
    start, times = run_of(steps, delta)
    later = steps[start + len(delta.steps) :]
    changes: dict[str, Change] = dict(total.changes)
    rows = []
    for name, change in delta.scaled(times).changes.items():
        left, row = _subtracted(name, changes.pop(name), change, len(steps))
        rows.append(row)
        if left is not None:
            changes[name] = left
    memory = {k: _without(rows_, delta.memory.get(k)) for k, rows_ in total.memory.items()}
    remaining = replace(
        total,
        changes={name: changes[name] for name in total.changes if name in changes},
        provenance=of_composition([*steps[:start], *later]),
        memory=memory,
    )
    return remaining, report(delta, rows, _count(remaining), later)


def run_of(steps: Sequence[Mapping[str, Any]], delta: WeightDelta) -> tuple[int, float]:
    """The last position of an edit's steps among all steps, and by how much they were scaled.

    Raises:
        InputError: If they are not there, or a truncation has since mixed them with others.
    """
    own = delta.steps
    wanted = [step.get("digest") for step in own]
    for start in range(len(steps) - len(own), -1, -1):
        here = steps[start : start + len(own)]
        shares = {
            there.get("times", 1.0) / mine.get("times", 1.0)
            for there, mine in zip(here, own, strict=True)
        }
        if [step.get("digest") for step in here] == wanted and len(shares) == 1:
            if any(step.get("method") == "truncation" for step in steps[start + len(own) :]):
                raise InputError(
                    "the composition was truncated, which mixed its edits: undo the edit from "
                    "the composition before the truncation"
                )
            return start, shares.pop()
    raise _absent(delta, len(steps))


def _absent(delta: WeightDelta, among: int) -> InputError:
    """The error for an edit that cannot be undone because it is not among the edits."""
    return InputError(
        f"the edit {delta.digest[:12]} ({said(delta)}) is not among the {among} in effect"
    )


def _subtracted(
    name: str, total: Change, change: Change, n_steps: int
) -> tuple[Change | None, dict[str, Any]]:
    """A change without one of its parts: its factors cut out, or subtracted."""
    if isinstance(total, LowRank) and isinstance(change, LowRank):
        start = block(_sides(total), _sides(change))
        if start is not None:
            keep = [i for i in range(total.rank) if not start <= i < start + change.rank]
            left = LowRank(total.left[:, keep], total.right[keep]) if keep else None
            return left, _row(name, change, "factors cut out", 0, 0.0)
    difference = Dense(total.dense() - change.dense())
    # Half a unit for every sum that was rounded, unless larger changes cancelled in between.
    unit = n_steps * torch.finfo(torch.float32).eps / 2
    bound = float((total.dense().abs() + difference.matrix.abs()).max()) * unit
    return difference, _row(name, change, "subtracted", None, bound)


def block(rows: Tensor, part: Tensor) -> int | None:
    """The position of a contiguous block of rows among others; None if it is not there."""
    for start in range(len(rows) - len(part), -1, -1):
        if torch.equal(rows[start : start + len(part)], part):
            return start
    return None


def _sides(change: LowRank) -> Tensor:
    """Both factors of each term, side by side."""
    return torch.cat([change.left.T, change.right], 1)


def _without(rows: Tensor, part: Tensor | None) -> Tensor:
    """The memory without one edit's part."""
    start = None if part is None or part.dim() != rows.dim() else block(rows, part)
    if part is None or start is None:
        return rows
    return torch.cat([rows[:start], rows[start + len(part) :]])


def _nothing(delta: WeightDelta) -> WeightDelta:
    """No change, of the same model."""
    return WeightDelta({}, delta.base, of_composition([]))


def _row(
    name: str, change: Change, how: str, differing: int | None, largest: float
) -> dict[str, Any]:
    """One weight of an `Undo`."""
    return {
        "weight": name,
        "entries": math.prod(change.shape),
        "how": how,
        "differing": differing,
        "largest": largest,
    }


def _count(remaining: WeightDelta) -> int:
    """Number of edits in a delta."""
    return len(remaining.steps) if remaining.changes else 0


def report(
    delta: WeightDelta,
    rows: Sequence[Mapping[str, Any]],
    remaining: int,
    later: Sequence[Mapping[str, Any]],
) -> Undo:
    """The outcome in words and numbers.

    Args:
        delta: The edit that was undone.
        rows: One per weight, as `Undo.weights` has them.
        remaining: Number of edits that remain.
        later: The steps that followed the edit.
    """
    table = pd.DataFrame(list(rows), columns=["weight", "entries", "how", "differing", "largest"])
    return Undo(
        taken_back=said(delta),
        digest=delta.digest,
        weights=table.astype({"differing": float}),
        remaining=remaining,
        stale=tuple(said_of(step) for step in later if step.get("on_top_of")),
    )


def said(delta: WeightDelta) -> str:
    """An edit in a few words: its methods and the rewrites asked for."""
    return "; ".join(said_of(step) for step in delta.steps)


def said_of(step: Mapping[str, Any]) -> str:
    """A step of a delta's provenance in a few words."""
    asked = step.get("rewrites", ())
    what = [f"{r['subject']} → {r.get('target_new') or 'forgotten'}" for r in asked[:2]]
    more = f" and {len(asked) - 2} more" if len(asked) > 2 else ""
    return f"{step.get('method', 'an edit')} {', '.join(what)}{more}".strip()
