"""Random generators that are seeded by a run's seed and by what the numbers are for."""

import hashlib

import numpy as np
import torch


def generator(seed: int, *content: object) -> torch.Generator:
    """A torch generator seeded by a run's seed and by what the numbers are for.

    Keying by content makes a draw independent of the order in which cells are computed.

    Args:
        seed: The run's seed.
        *content: Anything with a stable `repr` (strings, integers, tuples of those).
    """
    digest = hashlib.sha256(repr((seed, content)).encode()).digest()
    # torch takes a signed 64-bit seed; 63 bits keep it positive everywhere.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def numpy_generator(seed: int, *content: object) -> np.random.Generator:
    """The numpy counterpart of `generator`."""
    digest = hashlib.sha256(repr((seed, content)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
