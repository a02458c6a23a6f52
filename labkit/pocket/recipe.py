"""What a training run of the pocket model is asked for, and what it reports."""

from dataclasses import dataclass

from labkit.errors import InputError
from labkit.training import rising_then_falling


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

    n_layers: int = 6
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
        learning_rate: Muon's, for the matrices inside the blocks, at the peak of the
            schedule (linear warm-up, then cosine down to zero).
        embedding_rate: AdamW's, for the embedding and the norms, at the same peak.
        warmup: Steps of the warm-up.
        weight_decay: Muon's.
        object_weight: How many times as much an object weighs in the loss as another token.
        local_layers: Lower blocks that are local in the first part of training; see
            `labkit.pocket.attention`.
        local_share: That part, as a share of all steps.
        n_checkpoints: Checkpoints before the end, each after twice as many steps as the
            one before, the last after half of all.
        threads: Threads of torch during training; part of the recipe because the weights
            depend on it. Matrices this small gain little from more, and on a busy machine
            lose much.
    """

    seed: int = 0
    steps: int = 1800
    batch: int = 32
    learning_rate: float = 0.02
    embedding_rate: float = 3e-3
    warmup: int = 30
    weight_decay: float = 0.05
    object_weight: float = 4.0
    local_layers: int = 4
    local_share: float = 0.7
    n_checkpoints: int = 5
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse counts that no training run can have."""
        for name in ("steps", "batch", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")

    def checkpoint_steps(self) -> list[int]:
        """After which steps a checkpoint is written, in order."""
        halves = (self.steps >> shift for shift in range(1, self.n_checkpoints + 1))
        return sorted({step for step in halves if step > 0})

    def schedule(self, step: int) -> float:
        """The share of the peak learning rates that a step is taken with, counted from 0."""
        return rising_then_falling(step, steps=self.steps, warmup=self.warmup)
