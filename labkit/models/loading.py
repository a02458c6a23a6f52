"""Open a language model: from a folder, a short name or the hub, checked before it is used."""

from os import PathLike
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from labkit.errors import INSTEAD, InputError, LabkitError, SelfCheckFailed, one_line
from labkit.models import registry
from labkit.models.anatomy import Anatomy
from labkit.models.bridging import bridge
from labkit.models.checkpoints import hub_folder, open_checkpoint
from labkit.models.formats import dtype_of, usable_device
from labkit.models.in_effect import AsLoaded
from labkit.models.model import LabModel
from labkit.running.selfcheck import check as selfcheck
from labkit.tokens import adds_bos


def load(
    name: str,
    *,
    dtype: str | torch.dtype = "float32",
    device: str = "cpu",
    prepend_bos: bool | None = None,
    world: Any = None,
    check: bool = True,
) -> LabModel:
    """Open a model by short name, local folder or hub id.

    Args:
        name: A folder in Hugging Face's format, one of `labkit models`, or `org/name`.
        dtype: Number format of the weights in memory.
        device: A torch device, or "auto" to spread a large model over what there is.
        prepend_bos: Whether prompts get a BOS. By default what the tokenizer itself does.
        world: What it can be asked about, a `labkit.facts.worlds.World`. By default what the
            weights say of themselves: the pocket world, or the real one.
        check: Run the self-check (well under a second for small models).

    Raises:
        UnknownModel: If nothing goes by this name.
        FetchError: If the weights cannot be brought here.
        InputError: If the dtype or device is unknown, or the name is no text.
        SelfCheckFailed: If a law that the lab's numbers rest on does not hold.
    """
    if not isinstance(name, str | PathLike):
        raise InputError(f"a model is opened by a name or a folder, not a {type(name).__name__}")
    weight_dtype = dtype_of(dtype)
    hf, tokenizer = _open(name, weight_dtype, usable_device(device))
    known_as = registry.known_as(name, hf.config)
    return wrap(
        hf,
        tokenizer,
        name=name,
        prepend_bos=prepend_bos,
        known_as=known_as,
        world=registry.world(known_as) if world is None else world,
        check=check,
    )


def wrap(
    hf: PreTrainedModel,
    tokenizer: Tokenizer,
    *,
    name: str,
    prepend_bos: bool | None = None,
    known_as: str | None = None,
    world: Any = None,
    check: bool = True,
) -> LabModel:
    """A `LabModel` around a Hugging Face model that is already in memory.

    The model is switched to evaluation and its parameters stop asking for gradients; the
    weights are shared, not copied.

    Raises:
        SelfCheckFailed: If the architecture or its numbers do not fit the lab.
    """
    hf.eval().requires_grad_(False)
    try:
        model = _wrapped(hf, tokenizer, name, prepend_bos, known_as, world)
        if check:
            selfcheck(model)
        return model
    except LabkitError:
        raise
    except Exception as error:
        kind, short = type(hf).__name__, str(hf.dtype).removeprefix("torch.")
        wider = "" if hf.dtype == torch.float32 else " It may run in float32 (dtype, --dtype)."
        raise SelfCheckFailed(
            f"{name}: this {kind} does not run in {short}: {one_line(error)}.{wider} {INSTEAD}"
        ) from error


def _wrapped(
    hf: PreTrainedModel,
    tokenizer: Tokenizer,
    name: str,
    prepend_bos: bool | None,
    known_as: str | None,
    world: Any,
) -> LabModel:
    """A `LabModel` around a model and tokenizer."""
    bridged = bridge(hf, tokenizer)
    loaded = AsLoaded(hf, tokenizer)
    model = LabModel(
        name=name,
        hf=hf,
        bridge=bridged,
        tokenizer=tokenizer,
        prepend_bos=adds_bos(tokenizer) if prepend_bos is None else prepend_bos,
        anatomy=Anatomy.of(bridged, hf),
        fingerprint=loaded.fingerprint,
        loaded=loaded,
        known_as=known_as,
        world=world,
    )
    _ = model.habits  # asked now: it runs the model, and hooks would see that
    return model


def _open(name: str, dtype: torch.dtype, device: str) -> tuple[PreTrainedModel, Tokenizer]:
    """Model and tokenizer from wherever the registry says they are."""
    source = registry.resolve(name)
    if source.kind == "random":
        hf, tokenizer = registry.random_model(source.family)
        return hf.to(device="cpu" if device == "auto" else device, dtype=dtype), tokenizer
    folder = source.path
    if source.kind == "hub":
        try:
            folder = hub_folder(source.id)
        except (OSError, ValueError) as error:
            raise registry.hub_error(name, error) from error
    assert folder is not None
    return open_checkpoint(folder, dtype=dtype, device=device)
