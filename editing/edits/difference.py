"""The difference between two checkpoints of one architecture, as a delta.

The difference of two matrices is the change plus what rounding to the weights' number format
left: `W' = round(W + D)`. Rounding moves an entry by at most half a unit in its last place,
`u |w'|`, at random. Such a matrix has a spectral norm near `s (sqrt(rows) + sqrt(columns))`,
`s` being the root mean square of its entries. Singular values of the difference above that
belong to the change; if few are, the change is stored as factors, and the noise is dropped
with its size stated.

References:
    Vershynin 2012, Introduction to the non-asymptotic analysis of random matrices, theorem
    5.31, for the norm of a matrix of independent entries.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

import labkit
from editing.edits.change import Change, Dense, dtype_name
from editing.edits.delta import WeightDelta
from editing.edits.truncate import Spectrum, cut
from labkit.arguments import checked
from labkit.errors import FingerprintMismatch, InputError
from labkit.models.formats import DTYPES
from labkit.models.loading import load
from labkit.models.model import LabModel
from labkit.progress import Progress, listener


@checked
def diff(
    base: LabModel,
    edited: LabModel | str | Path,
    *,
    rank: int | None = None,
    tolerance: float = 1.0,
    progress: Progress | None = None,
) -> WeightDelta:
    """What has to be added to one model to obtain another.

    Args:
        base: The model that the delta will be for.
        edited: The other: opened, or a name or folder, opened in the number format of `base`.
        rank: Rank of every matrix that differs; by default it is found by the size of
            rounding, and a difference that is not of low rank stays dense.
        tolerance: How far above the norm of rounding noise a singular value has to be to
            belong to the change, as a factor.
        progress: Called with the weight being examined.

    Returns:
        A delta with a change for each weight that differs, and none for the others. Its
        provenance states by weight the `rank`, the `relative_error` and the
        `largest_dropped` singular value; none for a dense change, which is exact to float32.

    Raises:
        FingerprintMismatch: If the two differ in architecture, weights or vocabulary.
        InputError: If `edited` was saved in a narrower number format than that of `base`,
            if the two do not differ, or if an argument is out of its range.
    """
    if rank is not None and rank < 1:
        raise InputError(f"rank {rank}: choose a rank of at least 1")
    if not 0 <= tolerance < math.inf:
        raise InputError(f"tolerance {tolerance}: choose a finite factor of at least 0")
    if not isinstance(edited, LabModel):
        _require_format(base, edited)
        edited = load(str(edited), dtype=base.dtype, device=str(base.device), check=False)
    _require_alike(base, edited)
    theirs = dict(edited.hf.named_parameters())
    changes: dict[str, Change] = {}
    stated: dict[str, Any] = {}
    for number, (name, weight) in enumerate(ours := list(base.hf.named_parameters())):
        listener(progress)(f"comparing {name}", number / len(ours))
        if torch.equal(weight, theirs[name]):
            continue
        changes[name], stated[name] = _difference(weight, theirs[name], rank, tolerance)
    if not changes:
        raise InputError(
            f"{edited.name} has the same weights as {base.name}: there is no difference to store"
        )
    return WeightDelta(
        changes,
        base.fingerprint,
        {
            "method": "diff",
            "model": base.name,
            "edited": {"name": Path(edited.name).name, "fingerprint": edited.fingerprint},
            "labkit": labkit.__version__,
            "rank": rank,
            "tolerance": tolerance,
            "weights": stated,
        },
    )


def _difference(
    weight: Tensor, other: Tensor, rank: int | None, tolerance: float
) -> tuple[Change, dict[str, float] | None]:
    """The difference of two weights, as factors where its rank is low; and the error."""
    change = Dense((other.detach().double() - weight.detach().double()).float().cpu())
    if weight.dim() != 2:
        return change, None
    spectrum = Spectrum.of(change)
    rows, columns = change.shape
    if rank is None:
        level = tolerance * noise_norm(weight, other)
        keep = max(1, int((spectrum.values > level).sum()))
    else:
        keep = rank
    if keep * (rows + columns) >= rows * columns:
        return change, None
    return cut(change, spectrum, keep)


def noise_norm(weight: Tensor, other: Tensor) -> float:
    """Approximate spectral norm of the error of rounding a sum to the format of a weight.

    Half a unit in the last place for every entry: twice the mean size of rounding, and so
    above its norm with a margin.
    """
    unit = torch.finfo(weight.dtype).eps / 2
    size = torch.maximum(weight.detach().abs(), other.detach().abs()).double()
    rows, columns = size.shape
    return unit * float(size.square().mean().sqrt()) * (math.sqrt(rows) + math.sqrt(columns))


def _require_format(base: LabModel, edited: str | Path) -> None:
    """Refuse a folder whose weights were rounded to fewer digits than the base has.

    Every weight would differ then, by rounding alone.
    """
    if not (Path(edited) / "config.json").is_file():
        return  # a short name or hub id; opening it says what is wrong with it
    saved: Any = AutoConfig.from_pretrained(edited, trust_remote_code=False).dtype
    saved = DTYPES.get(saved, saved) if isinstance(saved, str) else saved
    if isinstance(saved, torch.dtype) and torch.finfo(saved).eps > torch.finfo(base.dtype).eps:
        short = dtype_name(saved)
        raise InputError(
            f"{edited} was saved in {short}, {base.name} is open in finer "
            f"{dtype_name(base.dtype)}: every weight would differ by rounding. "
            f"Open the base in {short} as well (dtype={short!r}, --dtype {short})"
        )


def _require_alike(base: LabModel, edited: LabModel) -> None:
    """Refuse two models that differ in more than the values of their weights."""
    kinds = [_kind(model.hf) for model in (base, edited)]
    if kinds[0] != kinds[1]:
        raise FingerprintMismatch(f"{edited.name} is a {kinds[1]}, {base.name} a {kinds[0]}")
    shapes = [
        {name: tuple(p.shape) for name, p in model.hf.named_parameters()}
        for model in (base, edited)
    ]
    if shapes[0] != shapes[1]:
        names = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
        raise FingerprintMismatch(
            f"{edited.name} and {base.name} have different weights, such as {names[0][0]}"
        )
    if base.tokenizer.get_vocab() != edited.tokenizer.get_vocab():
        raise FingerprintMismatch(f"{edited.name} and {base.name} have different vocabularies")


def _kind(hf: PreTrainedModel) -> str:
    """Name of an architecture."""
    return str(hf.config.model_type)
