"""An export read back from its files, and compared with the edit in memory.

Three things can get lost between the two: digits (a narrower number format rounds part of
the change away), a weight (written under the wrong name, or transposed), or the edit's
effect. So the files are opened again as a user would open them, and asked the edited prompts.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM

from editing.edits.applying import applied
from editing.edits.delta import WeightDelta
from editing.export.merging import merged
from editing.export.record import KINDS, read_record
from labkit.arguments import checked
from labkit.errors import FingerprintMismatch
from labkit.facts.fact import fill
from labkit.models.checkpoints import named, open_checkpoint
from labkit.models.formats import DTYPES
from labkit.models.loading import wrap
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import next_token_logits
from labkit.running.scoring import score
from labkit.stats import Estimate, generator, share
from labkit.tokens import TokenBatch

GGUF_FILE = "model.gguf"
ASKED_AT_MOST = 100
STATES = ("unedited", "edited", "exported")


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportCheck(Measured):
    """An exported edit, as read back from its files.

    Attributes:
        kind: One of `editing.export.record.KINDS`.
        dtype: Number format of the changed weights in the files.
        result: Fingerprint of the model that the files give.
        weights: One row per changed weight: `weight`; `relative_error`, the Frobenius norm of
            what differs between the change in the files and the change in memory, over the
            norm of the latter; `kept`, the part of the change in the files, as its projection on
            the change in memory (1: all of it); `unmoved`, the share of entries that the edit
            changes in memory and that rounding leaves unchanged in the files.
        answers: One row per rewrite, 100 at most: `prompt`, `target`, and the probability of
            the target in the three states `unedited`, `edited` (in memory) and `exported`:
            the geometric mean over its tokens, 0..1.
        logits_off: Largest difference between a logit of the export and of the edited model
            in memory, over the last tokens of these prompts.
        logits_moved: The same between the edited and the unedited model: the scale.
    """

    kind: str
    dtype: str
    result: str
    weights: pd.DataFrame
    answers: pd.DataFrame
    logits_off: float
    logits_moved: float

    @property
    def title(self) -> str:
        """How much of the edit the files keep, in one line."""
        kept, off = self.weights["kept"].min(), self.weights["relative_error"].max()
        return (
            f"{KINDS[self.kind]} of {self.model}, {self.dtype}: {kept:.2%} of the change kept, "
            f"off by {off:.2g} of its norm; logits off by {self.logits_off:.2g} "
            f"(the edit moves them by {self.logits_moved:.2g})"
        )

    def answer(self, state: str) -> Estimate | None:
        """Mean probability of the targets in a state, over rewrites; None without any."""
        return share(self.answers[state].to_list()) if len(self.answers) else None

    def to_frame(self) -> pd.DataFrame:
        """One row per rewrite; without any, one per weight."""
        return self.answers if len(self.answers) else self.weights

    def figure(self) -> Any:
        """Probabilities of the targets in the three states; without any, the change kept."""
        from labkit.plots import export_bars, share_bars

        if len(self.answers):
            return export_bars(self.answers, title=self.title)
        off = [f"off by {error:.2g} of the norm" for error in self.weights["relative_error"]]
        shares = self.weights.assign(share=self.weights["kept"], note=off)
        return share_bars(shares, axis="part of the change that is kept", title=self.title)


@checked
def check_export(model: LabModel, delta: WeightDelta, path: str | Path) -> ExportCheck:
    """Open an export again and compare it with the edit in memory.

    Args:
        model: The model that the delta was made for; afterwards it is what it was.
        delta: The change that was exported.
        path: The folder of the export.

    Raises:
        MissingFile, MalformedRecord: If the folder is no export.
        FingerprintMismatch: If it was made from another model or another delta.
    """
    record = read_record(path)
    delta.require(model)
    if record["delta"]["digest"] != delta.digest:
        raise FingerprintMismatch(
            f"{path} was made from the delta {record['delta']['digest'][:12]}, "
            f"not from {delta.digest[:12]}"
        )
    asked = delta.rewrites[:ASKED_AT_MOST]
    prompts = [fill(row["template"], row["subject"]) for row in asked]
    targets = [row.get("target_new") or row["target_true"] for row in asked]
    pairs = list(zip(prompts, targets, strict=True))
    batch = model.tokens(prompts) if prompts else _any_tokens(model)

    unedited = _answers(model, pairs, batch)
    with applied(model, delta):
        edited = _answers(model, pairs, batch)
    reopened = reopen(model, path)
    exported = _answers(reopened, pairs, batch)
    answers = pd.DataFrame({"prompt": prompts, "target": targets}, dtype=str)
    for state, (probability, _) in zip(STATES, (unedited, edited, exported), strict=True):
        answers[state] = probability.tolist()
    return ExportCheck(
        kind=record["kind"],
        dtype=record["dtype"],
        **measured_on(model),
        result=reopened.fingerprint,
        weights=_weights(model, delta, reopened, record["changed"]),
        answers=answers,
        logits_off=float((exported[1] - edited[1]).abs().max()),
        logits_moved=float((edited[1] - unedited[1]).abs().max()),
    )


def reopen(model: LabModel, path: str | Path) -> LabModel:
    """Open an export as its users do: with transformers, PEFT, or from the GGUF file.

    Args:
        model: The base model, which an adapter needs; it is not changed.
        path: The folder of the export.

    Raises:
        MissingFile, MalformedRecord: If the folder is no export.
        MalformedModel: If the model that it holds cannot be opened.
    """
    record = read_record(path)
    hf: Any
    tokenizer = model.tokenizer
    if record["kind"] == "adapter":
        hf = merged(copy.deepcopy(model.hf), path)
    elif record["kind"] == "gguf":
        with named(Path(path)):
            hf = AutoModelForCausalLM.from_pretrained(
                path, gguf_file=GGUF_FILE, dtype=torch.float32, trust_remote_code=False
            )
        hf.to(model.device)
    else:
        hf, tokenizer = open_checkpoint(path, dtype=DTYPES[record["dtype"]])
        hf.to(model.device)
    return wrap(hf, tokenizer, name=str(path), prepend_bos=model.prepend_bos, check=False)


def _answers(
    model: LabModel, pairs: list[tuple[str, str]], batch: TokenBatch
) -> tuple[Float[Tensor, " pair"], Float[Tensor, "prompt vocab"]]:
    """Probability per token of each target, and the logits at the end of each prompt."""
    nll = score(model, pairs)[0] if pairs else torch.zeros(0)
    return (-nll).exp(), next_token_logits(model, batch).float()


def _weights(
    model: LabModel, delta: WeightDelta, reopened: LabModel, stored: Mapping[str, Any]
) -> pd.DataFrame:
    """The changed weights of the export compared with those in memory."""
    ours, theirs = (dict(m.hf.named_parameters()) for m in (model, reopened))
    rows = []
    for name, change in delta.changes.items():
        wanted = change.dense().double().to(model.device)
        # The base, rounded as the export rounds: what the file would hold without the edit.
        base = ours[name].to(DTYPES[stored[name]["dtype"]]).double()
        found = theirs[name].double() - base
        moves = wanted != 0
        norm = wanted.norm()
        rows.append(
            {
                "weight": name,
                "relative_error": float((found - wanted).norm() / norm) if norm > 0 else 0.0,
                "kept": float((found * wanted).sum() / norm**2) if norm > 0 else 1.0,
                "unmoved": float((found[moves] == 0).double().mean()) if moves.any() else 0.0,
            }
        )
    return pd.DataFrame(rows)


def _any_tokens(model: LabModel) -> TokenBatch:
    """Some random ids, for an edit that names no prompt."""
    draw = generator(0, "check of an export")
    return model.pad(torch.randint(model.d_vocab, (4, 12), generator=draw).tolist())
