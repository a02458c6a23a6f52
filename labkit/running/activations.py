"""Read and write activations with hooks that are always removed.

Plain torch hooks on the Hugging Face modules, so they fire in full and in partial runs
(`labkit.running.execute`) alike. For attention scores and patterns see `run_with_cache`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformer_lens import ActivationCache

from labkit.arguments import checked
from labkit.tokens import TokenBatch

if TYPE_CHECKING:
    from labkit.models.anatomy import Site
    from labkit.models.model import LabModel

Activations = dict[tuple["Site", int], Tensor]
"""Activations by site and layer, each `[row, pos, width]`."""


@checked
@contextmanager
def capture(
    model: "LabModel", sites: Iterable["Site"], layers: Iterable[int] | None = None
) -> Iterator[Activations]:
    """Collect activations of every run inside the block.

        with capture(model, ["ffn_key"], layers=[5]) as seen:
            run.forward(stop=6)
        seen["ffn_key", 5]    # [row, pos, d_mlp]

    Tensors are handed over as they are, with their gradient history; a second run
    overwrites the first.

    Args:
        model: The model.
        sites: Which activations; see `labkit.models.anatomy.Site`.
        layers: Which blocks; all by default.

    Raises:
        InputError, LayerOutOfRange: For a site or layer that does not exist.
    """
    layers = range(model.n_layers) if layers is None else list(layers)
    seen: Activations = {}
    with ExitStack() as stack:
        for site in list(sites):
            for layer in layers:

                def keep(tensor: Tensor, key: tuple["Site", int] = (site, layer)) -> None:
                    seen[key] = tensor

                stack.enter_context(_hooked(model, site, layer, keep))
        yield seen


@checked
@contextmanager
def patched(
    model: "LabModel", changes: Mapping[tuple["Site", int], Callable[[Tensor], Tensor]]
) -> Iterator[None]:
    """Replace activations in every run inside the block.

    Args:
        model: The model.
        changes: By site and layer, a function from the activation to what shall stand in
            its place (the same shape). It must not write into its argument.

    Raises:
        InputError, LayerOutOfRange: For a site or layer that does not exist.
    """
    with ExitStack() as stack:
        for (site, layer), change in changes.items():
            stack.enter_context(_hooked(model, site, layer, change))
        yield


@checked
@contextmanager
def patched_embedding(model: "LabModel", change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the output of the token embedding in every run inside the block.

    Args:
        model: The model.
        change: From the embeddings `[row, pos, d_model]` to what shall stand in their place.
    """
    embedding = model.hf.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda module, args, out: change(out))
    try:
        yield
    finally:
        handle.remove()


@checked
@torch.no_grad()
def run_with_cache(
    model: "LabModel", batch: TokenBatch | str | Sequence[str]
) -> tuple[Tensor, ActivationCache]:
    """Logits and every activation of a full run, scores and patterns included.

    The same as `model.bridge.run_with_cache`, under the same names, aliases included, at a
    fraction of its overhead: one hook per hook point, whatever it goes by.

    Args:
        model: The model.
        batch: A prompt, several, or a left-padded batch of them (`model.tokens`).

    Returns:
        Logits `[prompt, pos, vocab]`, and transformer_lens' cache (`cache["pattern", 3]`).
    """
    if not isinstance(batch, TokenBatch):
        batch = model.tokens([batch] if isinstance(batch, str) else batch)
    kept: dict[Any, Any] = {}
    padded = None if bool(batch.mask.all()) else batch.mask.long()
    with _recorded(model.hook_points, kept, copies=model.habits.in_place):
        logits = model.bridge(batch.ids, attention_mask=padded)
    found: dict[str, Tensor] = {}
    for point, names in model.hook_points.items():
        if point in kept:
            tensor = kept[point][0] if isinstance(kept[point], tuple) else kept[point]
            conversion: Any = point.hook_conversion
            if conversion is not None:
                tensor = conversion.convert(tensor)
            found |= dict.fromkeys(names, tensor)
    return logits, ActivationCache(found, model.bridge)


@contextmanager
def _recorded(
    points: Iterable[Any], kept: dict[Any, Any], *, copies: bool = False
) -> Iterator[None]:
    """Keep what passes through the bridge's hook points.

    A hook point does nothing but carry hooks. One that carries none is made to record in
    its own forward, which spares torch's slow path; there are forty of them per block. One
    that carries somebody's hooks records after them, since they may change what passes.
    """
    handles, swapped = [], []

    def recorder(point: Any) -> Callable[[Any], Any]:
        def record(value: Any) -> Any:
            kept[point] = value.clone() if copies and isinstance(value, Tensor) else value
            return value

        return record

    try:
        for point in points:
            record = recorder(point)
            if point._forward_hooks:
                handles.append(
                    point.register_forward_hook(lambda _module, _args, out, to=record: to(out))
                )
            else:  # past torch's own __setattr__, which looks for parameters first
                vars(point)["forward"] = record
                swapped.append(point)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for point in swapped:
            del vars(point)["forward"]


@contextmanager
def _hooked(
    model: "LabModel", site: "Site", layer: int, function: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """A function on one activation; where it returns a tensor, that takes its place."""
    module, side = model.site(site, layer)
    shape: list[int] = []
    flat = model.habits.flattens and site.startswith("ffn")
    if flat:
        function = _unflattened(function, shape)

    def on_block(_module, args, kwargs):
        shape[:] = (args[0] if args else kwargs["hidden_states"]).shape[:2]

    def on_input(_module, args):
        new = function(args[0])
        return None if new is None else (new, *args[1:])

    def on_output(_module, _args, out):
        several = isinstance(out, tuple)
        old = out[0] if several else out
        new = function(old)
        if model.habits.in_place:  # what follows writes into a copy
            new = (old if new is None else new.expand_as(old)).clone()
        if new is None:
            return None
        return (new, *out[1:]) if several else new

    def on_keyword_input(_module, args, kwargs):
        if args:
            changed = on_input(_module, args)
            return None if changed is None else (changed, kwargs)
        new = function(kwargs["hidden_states"])
        return None if new is None else (args, {**kwargs, "hidden_states": new})

    if side == "input":
        handles = [module.register_forward_pre_hook(on_keyword_input, with_kwargs=True)]
    else:
        handles = [module.register_forward_hook(on_output)]
    if flat:
        block = model.blocks[layer]
        handles.append(block.register_forward_pre_hook(on_block, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _unflattened(
    function: Callable[[Tensor], Tensor | None], shape: list[int]
) -> Callable[[Tensor], Tensor | None]:
    """A function of `[row, pos, width]`, where a module runs on `[row * pos, width]`.

    Args:
        function: The function.
        shape: Number of rows and of positions, filled in when the block is entered.
    """

    def reshaped(tensor: Tensor) -> Tensor | None:
        new = function(tensor.reshape(*shape, -1))
        # As elsewhere, one row may stand in place of all.
        return None if new is None else new.expand(*shape, -1).reshape(tensor.shape)

    return reshaped
