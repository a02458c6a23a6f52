"""What the laws are held against: plain Hugging Face models, run in full.

Nothing here goes through `labkit.running.execute` or `labkit.running.activations`.
"""

import inspect
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from labkit.models.model import LabModel
from labkit.tokens import TokenBatch

DATA = Path(os.environ.get("LABKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
"""Published files to measure on, where they are; tests that need one skip with a reason."""


def is_interval(found) -> bool:
    """Whether an estimate's interval holds its mean; a single unit has none (NaN in JSON)."""
    record = found if isinstance(found, dict) else found._asdict()
    if record["n"] == 1:
        return str(record["low"]).lower() == str(record["high"]).lower() == "nan"
    none = str(record["low"]).lower() == "nan"  # equal values of no known range
    return none or record["low"] <= record["mean"] <= record["high"]


def full_run(model: LabModel, batch: TokenBatch, **more):
    """Every block at every position of a left-padded batch, by the model's own forward."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "use_cache": False}
    if "position_ids" in inspect.signature(type(model.hf).forward).parameters:
        inputs["position_ids"] = (batch.mask.long().cumsum(-1) - 1).clamp(min=0)
    return model.hf(**inputs, **more)


def full_logits(model: LabModel, batch: TokenBatch) -> torch.Tensor:
    """Logits of a full run."""
    return full_run(model, batch).logits


@contextmanager
def output_hook(module, change):
    """A hand-written hook: `change(out)` stands in place of a module's output."""

    def hook(_module, _args, out):
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def inputs_of(module):
    """The inputs that a module gets inside the block, as a list."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def outputs_of(module):
    """The outputs that a module gives inside the block, as a list."""
    seen = []
    with output_hook(module, lambda out: seen.append(out.detach()) or out):
        yield seen


def n_hooks(model: LabModel) -> int:
    """Hooks on any module of the plain model, and forwards that stand in for the class's own.

    Those that transformers itself leaves, once asked for hidden states, do not count.
    """
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(
        not hook.__module__.startswith("transformers.")
        for module in model.hf.modules()
        for kind in kinds
        for hook in getattr(module, kind).values()
    ) + sum("forward" in vars(module) for module in model.hf.modules())


def random_batch(model: LabModel, *lengths: int, seed: int = 0) -> TokenBatch:
    """Random tokens from the whole vocabulary, padded on the left."""
    draw = torch.Generator().manual_seed(seed)
    return model.pad(
        [torch.randint(model.d_vocab, (length,), generator=draw).tolist() for length in lengths]
    )


def at_tokens(values: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """The entries of `[prompt, pos, ...]` where there is a token, the last positions of all."""
    return values[batch.mask[:, -values.shape[1] :]]


def shows(figure, numbers) -> bool:
    """Whether a figure draws some numbers: each is a coordinate or a cell of one of its traces."""
    drawn = [
        float(value)
        for trace in figure.data
        for axis in ("x", "y", "z")
        if axis in trace and trace[axis] is not None
        for value in np.ravel(np.asarray(trace[axis], dtype=object))
        if isinstance(value, int | float | np.number) and np.isfinite(value)
    ]
    wanted = [float(number) for number in numbers if np.isfinite(number)]
    assert wanted, "there is no number to look for"
    return all(np.isclose(drawn, number, rtol=1e-6, atol=1e-9).any() for number in wanted)
