"""Which states are read: where, at which depths, of which of a word's tokens.

    States()                                        # the residual stream at all depths
    States(where="ffn_out", depths=(2, 3))          # what the FFNs of two layers give
    States(where="head_out", heads=(0, 5), pieces="mean")

The rows of the residual stream are counted in *depths*, blocks passed through: 0 is what the
embedding gives, d what leaves block d-1, before the final norm. The other sites have one row per
layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, get_args

import torch
from torch import Tensor

from labkit.errors import InputError
from labkit.models.anatomy import Site
from labkit.models.model import LabModel

Where = Literal["resid", "attn_out", "ffn_out", "ffn_key", "head_out"]
"""What is read: the residual stream by depth, or by layer a site of `labkit.models.anatomy`."""

Pieces = Literal["first", "last", "mean"]
"""Which of a word's tokens are read."""

Precision = Literal["float32", "float16"]
"""How states are kept."""


@dataclass(frozen=True, kw_only=True)
class States:
    """Which states are read, and how they are kept.

    Attributes:
        where: The residual stream ("resid"), or another site: "attn_out", "ffn_out", "ffn_key",
            "head_out".
        depths: Which depths (or layers), 0 the lowest; all with None.
        pieces: Which of a word's tokens: "first", "last" (it alone has seen the whole word), or
            the "mean" of all.
        heads: Which attention heads, for "head_out", side by side; all with None.
        dtype: How they are kept: "float32"; "float16" halves the file and overflows above 65504.

    Raises:
        InputError: If there is no such site, piece or dtype; if depths or heads are none, or no
            whole numbers from 0 on; or if heads are asked for elsewhere than at "head_out".
    """

    where: Where = "resid"
    depths: Sequence[int] | None = None
    pieces: Pieces = "last"
    heads: Sequence[int] | None = None
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse what cannot be read from any model."""
        for name, kind in (("where", Where), ("pieces", Pieces), ("dtype", Precision)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise InputError(f"{name} = {value!r}: choose one of {', '.join(get_args(kind))}")
        if self.depths is not None:
            object.__setattr__(self, "depths", tuple(sorted(set(_numbers("depths", self.depths)))))
        if self.heads is not None:
            object.__setattr__(self, "heads", _numbers("heads", self.heads))
            if self.where != "head_out":
                raise InputError(f"heads {self.heads} of {self.where!r}: heads are of 'head_out'")

    def depths_of(self, model: LabModel) -> tuple[int, ...]:
        """The depths (or layers) to read of a model, in rising order.

        Raises:
            InputError: If the model has no such depth.
        """
        n = n_rows(model, self.where)
        chosen = tuple(range(n)) if self.depths is None else tuple(self.depths)
        if not set(chosen) <= set(range(n)):
            raise InputError(
                f"depths {chosen} of {self.where} of {model.name}: choose from 0..{n - 1}"
            )
        return chosen

    def sites_of(self, model: LabModel) -> list[tuple[Site, int]]:
        """Where each depth is read: site and layer."""
        return [_site(self.where, depth) for depth in self.depths_of(model)]

    def columns_of(self, model: LabModel) -> Tensor | None:
        """Columns of `head_out` that belong to the heads; None where all are read.

        Raises:
            InputError: If the model has no such head.
        """
        if self.heads is None:
            return None
        if not set(self.heads) <= set(range(model.n_heads)):
            raise InputError(
                f"heads {self.heads} of {model.name}: choose from 0..{model.n_heads - 1}"
            )
        size = model.d_head
        return torch.cat([torch.arange(head * size, (head + 1) * size) for head in self.heads])

    def width_of(self, model: LabModel) -> int:
        """Numbers that one state has."""
        if self.where == "head_out":
            n_heads = model.n_heads if self.heads is None else len(self.heads)
            return n_heads * model.d_head
        return model.d_mlp if self.where == "ffn_key" else model.d_model


USUAL = States()
"""The residual stream at all depths, at a word's last token."""


def n_rows(model: LabModel, where: Where) -> int:
    """How many depths a site has: one more than blocks for the residual stream."""
    return model.n_layers + (where == "resid")


def _numbers(name: str, given: Sequence[int]) -> tuple[int, ...]:
    """Whole numbers from 0 on, at least one."""
    try:
        numbers = tuple(index(number) for number in given)
    except TypeError as error:
        raise InputError(f"{name} = {given!r}: whole numbers, such as (0, 4, 8)") from error
    if not numbers or min(numbers) < 0:
        raise InputError(f"{name} = {numbers}: choose at least one, from 0 on; None takes all")
    return numbers


def _site(where: Where, depth: int) -> tuple[Site, int]:
    """Where a depth or layer is read."""
    if where != "resid":
        return where, depth
    return ("resid_pre", 0) if depth == 0 else ("resid_post", depth - 1)
