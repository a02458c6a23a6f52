"""The weights in effect: whether a model still is as loaded, found by inspecting it.

Cached values of a model must not be used for an edited model, nor the other way round. Edits come
by many ways: a context that adds a delta, a write through a view, a parameter that points to
another tensor, a hook that replaces states. None of them reports itself, so none is relied on: the
weights are summed up and compared with the sums taken at load, and the modules are looked over for
hooks, replaced parts and changed settings.

The sums are those of the weights' bits as 64-bit integers, along rows and along columns of a
table of them. They take as long as reading the weights once (about a tenth of a second per
gigabyte); sha256 is computed only of what differs. Not noticed: changes inside the tokenizer,
and attributes of modules that are changed in place and are no module, tensor or number.
"""

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

COLUMNS = 1024
"""Width of the table of 64-bit integers that is summed."""

PLAIN = (bool, int, float, str, type(None))


class AsLoaded:
    """The state of a model when it was loaded.

    Args:
        hf: The model.
        tokenizer: Its tokenizer, which counts for the fingerprint.

    Attributes:
        fingerprint: sha256 (64 hex digits) over weights and tokenizer.
    """

    def __init__(self, hf: PreTrainedModel, tokenizer: Tokenizer) -> None:
        named = dict(_named(hf))
        with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter lock
            found = pool.map(lambda item: _tensor_digest(*item), named.items())
            self._digests = dict(zip(named, found, strict=True))
            sums = pool.map(_sums, named.values())
            self._sums = dict(zip(named, sums, strict=True))
        self._tokenizer = _tokenizer_bytes(tokenizer)
        self._changed: dict[tuple[str, bytes], bytes] = {}
        self._parts = list(_parts(hf))
        self._forwards = {type(part): type(part).forward for part, _, _ in self._parts}
        self.fingerprint = _combined(self._digests, self._tokenizer)

    def fingerprint_now(self, hf: PreTrainedModel) -> str:
        """Fingerprint of the weights as they are now: what loading a copy of them would give."""
        named = dict(_named(hf))
        sums = {name: _sums(tensor) for name, tensor in named.items()}
        if sums == self._sums:
            return self.fingerprint
        digests = {
            name: self._digests[name]
            if found == self._sums.get(name)
            else self._digest(name, found, named[name])
            for name, found in sums.items()
        }
        return _combined(digests, self._tokenizer)

    def is_patched(self, hf: PreTrainedModel) -> bool:
        """Whether anything but the weights changes what is computed.

        A hook on any module (one that only reads counts too: what it does is not known), a
        module that was put in another's place, a replaced `forward`, a changed setting of a
        module (a scale, its activation function), training mode.
        """
        if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
            return True
        now = list(_parts(hf))
        if len(now) != len(self._parts):
            return True
        if any(kind.forward is not forward for kind, forward in self._forwards.items()):
            return True
        return any(
            part is not before
            or hooks - hooks_before
            or own.keys() != own_before.keys()
            or not all(_same(value, own_before[name]) for name, value in own.items())
            for (part, own, hooks), (before, own_before, hooks_before) in zip(
                now, self._parts, strict=True
            )
        )

    def _digest(self, name: str, sums: bytes, tensor: Tensor) -> bytes:
        """Digest of a changed tensor, computed once for the same change."""
        if (name, sums) not in self._changed:
            self._changed[name, sums] = _tensor_digest(name, tensor)
        return self._changed[name, sums]


def fingerprint(hf: PreTrainedModel, tokenizer: Tokenizer) -> str:
    """sha256 over the names, shapes and bytes of all weights, and over the tokenizer."""
    named = list(_named(hf))
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda item: _tensor_digest(*item), named)
        found = {name: digest for (name, _), digest in zip(named, digests, strict=True)}
    return _combined(found, _tokenizer_bytes(tokenizer))


def _named(hf: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return itertools.chain(hf.named_parameters(), hf.named_buffers())


def _combined(digests: dict[str, bytes], tokenizer: bytes) -> str:
    """One fingerprint of the digests of all tensors, and the tokenizer."""
    whole = hashlib.sha256(b"".join(digests[name] for name in sorted(digests)))
    whole.update(tokenizer)
    return whole.hexdigest()


def _tokenizer_bytes(tokenizer: Tokenizer) -> bytes:
    """All that a tokenizer does, or at least its vocabulary."""
    if tokenizer.is_fast:
        return tokenizer.backend_tokenizer.to_str().encode()
    return repr(sorted(tokenizer.get_vocab().items())).encode()


def _tensor_digest(name: str, tensor: Tensor) -> bytes:
    """sha256 of one tensor with its name, dtype and shape."""
    digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    data = tensor.detach().cpu().contiguous().flatten()
    digest.update(data.view(torch.uint8).numpy().data if data.numel() else b"")
    return digest.digest()


def _sums(tensor: Tensor) -> bytes:
    """Digest of the sums of a tensor's bits, of its dtype and shape."""
    whole = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    data = tensor.detach().contiguous().flatten().view(torch.uint8)
    n_words, start = data.numel() // 8, data.storage_offset()
    if start % 8 or n_words < COLUMNS:  # small, or not where a 64-bit integer may stand
        whole.update(data.cpu().numpy().tobytes())
        return whole.digest()
    words = data[: n_words * 8].view(torch.int64)
    n_rows = n_words // COLUMNS
    table = words[: n_rows * COLUMNS].view(n_rows, COLUMNS)
    for part in (table.sum(dim=1), table.sum(dim=0), data[n_rows * COLUMNS * 8 :]):
        whole.update(part.cpu().numpy().tobytes())
    return whole.digest()


def _parts(hf: PreTrainedModel) -> Iterator[tuple[nn.Module, dict[str, Any], set[int]]]:
    """Every module, with its own settings and the hooks on its forward.

    Hooks that transformers itself leaves, once it was asked for hidden states, only read.
    """
    for part in hf.modules():
        own = {name: value for name, value in vars(part).items() if name[0] != "_"}
        hooks = {
            key
            for kind in (part._forward_hooks, part._forward_pre_hooks)
            for key, hook in kind.items()
            if not getattr(hook, "__module__", "").startswith("transformers.")
        }
        yield part, own, hooks


def _same(one: Any, other: Any) -> bool:
    """Whether a setting is unchanged."""
    if one is other:
        return True
    return type(one) is type(other) and isinstance(one, PLAIN) and one == other
