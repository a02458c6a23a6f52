"""How the pocket model is made: a small Llama-shaped model learns the pocket world.

`train` draws the world, builds the tokenizer, and trains on the world's documents as a
language model does, next token after next token, with AdamW and a cosine schedule. It
leaves a folder in transformers' format with checkpoints along the way, so that one can
watch the facts being learned.

The same seed gives the same weights on the same machine with the same number of threads;
sums are taken in another order elsewhere, and the weights then differ in their last digits
(the facts that are learned do not).
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from labkit.errors import InputError, NonFiniteLoss, OutputError
from labkit.pocket.recall import recalled
from labkit.pocket.tokenizer import build_tokenizer
from labkit.pocket.world import World, build_world, documents
from labkit.stats import generator

IGNORED = -100  # the label that cross_entropy leaves out


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of the model.

    Attributes:
        n_layers: Blocks.
        d_model: Width of the residual stream.
        d_mlp: Number of FFN memories of a block.
        n_heads: Attention heads of a block; they divide `d_model`.
        n_positions: Longest sequence that the model is meant for, in tokens.
    """

    n_layers: int = 8
    d_model: int = 128
    d_mlp: int = 512
    n_heads: int = 4
    n_positions: int = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the model is trained.

    Attributes:
        seed: Seed of the world, the initial weights and the order of the documents.
        steps: Number of optimiser steps.
        batch: Documents in a step; a document has 32 tokens on average.
        learning_rate: Peak of the schedule (linear warm-up, then cosine down to zero).
        warmup: Steps of the warm-up.
        weight_decay: AdamW's, on matrices.
        n_checkpoints: Checkpoints before the end, each after twice as many steps as the
            one before, the last after half of all.
        threads: Threads of torch during training; part of the recipe because the weights
            depend on it in their last digits.
    """

    seed: int = 0
    steps: int = 1400
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.1
    n_checkpoints: int = 5
    threads: int = 2

    def __post_init__(self) -> None:
        """Refuse counts that no training run can have."""
        for name in ("steps", "batch", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")

    def checkpoint_steps(self) -> list[int]:
        """After which steps a checkpoint is written, in order."""
        halves = (self.steps >> shift for shift in range(1, self.n_checkpoints + 1))
        return sorted({step for step in halves if step > 0})

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        falling = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * rising * falling


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What `train` reports after every step: the step (from 1), of how many, and the loss."""

    step: int
    steps: int
    loss: float


def train(
    out: str | Path,
    *,
    recipe: Recipe = Recipe(),
    shape: Shape = Shape(),
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train a pocket model and write it, with its checkpoints, to a new folder.

    The folder holds the model in transformers' format (16-bit floats; load it in fp32),
    `training.json` (recipe, shape, world, and loss and recall at every checkpoint) and
    `checkpoints/step-000043/...`, each a model folder of its own.

    Args:
        out: Folder to write; it may exist if it is empty.
        recipe: How to train.
        shape: What to train.
        progress: Called after every step.

    Returns:
        The folder.

    Raises:
        OutputError: If `out` is not empty or cannot be written.
        NonFiniteLoss: If the loss stops being a number.
    """
    out = Path(out)
    _refuse_unless_free(out)
    world = build_world(recipe.seed)
    tokenizer = build_tokenizer(world.sentences())
    tokenizer.model_max_length = shape.n_positions
    with _new_folder(out) as folder, _threads(recipe.threads):
        model = initial_model(tokenizer, shape, seed=recipe.seed)
        history = []
        for step, loss in _steps(model, tokenizer, world, recipe):
            if progress is not None:
                progress(Progress(step=step, steps=recipe.steps, loss=loss))
            if step in (*recipe.checkpoint_steps(), recipe.steps):
                final = step == recipe.steps
                place = folder if final else folder / "checkpoints" / f"step-{step:06d}"
                kept = _save(model, tokenizer, place)
                history.append({"step": step, "loss": loss, **_recall(kept, tokenizer, world)})
        record = {"recipe": asdict(recipe), "shape": asdict(shape), "history": history}
        (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return out


def initial_model(
    tokenizer: PreTrainedTokenizerBase, shape: Shape, *, seed: int
) -> LlamaForCausalLM:
    """An untrained model; torch's global random state is neither used nor moved."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=shape.n_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlamaForCausalLM"],
        dtype="float16",  # of the file; see `_save`
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.02, generator=generator(seed, "pocket weights", name))
    return model


def _steps(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, world: World, recipe: Recipe
) -> Iterator[tuple[int, float]]:
    """Train in place, one optimiser step at a time; yield its number (from 1) and loss."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    batches = _batches(world, tokenizer, recipe)
    for step in range(recipe.steps):
        ids = next(batches)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        logits = model(input_ids=ids.clamp(min=0)).logits
        loss = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), ignore_index=IGNORED
        )
        if not torch.isfinite(loss):
            raise NonFiniteLoss(f"the loss is {loss.item()} at step {step + 1}: lower the rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        yield step + 1, loss.item()


def _batches(
    world: World, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> Iterator[Int[Tensor, "document pos"]]:
    """Documents without end: BOS, sentences, EOS, then `IGNORED` up to the longest."""
    for epoch in count():
        texts = documents(world, seed=recipe.seed, epoch=epoch)
        rows = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts).input_ids]
        rows.sort(key=len)  # batches of like lengths have little padding
        groups = [rows[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
        order = torch.randperm(
            len(groups), generator=generator(recipe.seed, "pocket batches", epoch)
        )
        for index in order.tolist():
            group = groups[index]
            ids = torch.full((len(group), len(group[-1])), IGNORED)
            for row, tokens in enumerate(group):
                ids[row, : len(tokens)] = torch.tensor(tokens)
            yield ids


def _save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> LlamaForCausalLM:
    """Write a model folder in 16-bit floats; return what a reader will load, in fp32."""
    folder.mkdir(parents=True, exist_ok=True)
    # named_parameters gives a tied matrix once, under the name that transformers reads.
    weights = {name: p.detach().half().contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kept = deepcopy(model).eval()
    kept.load_state_dict({name: p.float() for name, p in weights.items()}, strict=False)
    return kept


def _recall(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, world: World
) -> dict[str, float]:
    """Shares of the training and of the held-out pairs that a model completes."""
    return {
        "recall_training": recalled(model, tokenizer, world.training).float().mean().item(),
        "recall_held_out": recalled(model, tokenizer, world.held_out).float().mean().item(),
    }


def _refuse_unless_free(out: Path) -> None:
    """Raise before any work if the folder cannot become the output."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is not an empty folder: name a new one with --out")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its name at the end, or vanishes."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise OutputError(f"cannot write beside {out}: {error}") from error
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's folders are private
        os.replace(folder, out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already where it was moved


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Torch's thread count set to `n`, and back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
