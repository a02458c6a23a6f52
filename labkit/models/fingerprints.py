"""Fingerprints: whether two models have the same weights and tokenizer, to the bit."""

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer


def fingerprint(hf: PreTrainedModel, tokenizer: Tokenizer) -> str:
    """sha256 over the names, shapes and bytes of all weights, and over the tokenizer."""
    named = sorted(itertools.chain(hf.named_parameters(), hf.named_buffers()))
    with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter lock
        digests = list(pool.map(lambda item: _tensor_digest(*item), named))
    whole = hashlib.sha256(b"".join(digests))
    if tokenizer.is_fast:
        whole.update(tokenizer.backend_tokenizer.to_str().encode())
    else:
        whole.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    return whole.hexdigest()


def _tensor_digest(name: str, tensor: Tensor) -> bytes:
    """sha256 of one tensor with its name, dtype and shape."""
    digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    data = tensor.detach().cpu().contiguous().flatten()
    digest.update(data.view(torch.uint8).numpy().data if data.numel() else b"")
    return digest.digest()
