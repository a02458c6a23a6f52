"""PEFT, which opens adapters: there or named as missing, and merged into a base model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.errors import InputError


def merged(hf: Any, path: str | Path) -> Any:
    """A Hugging Face model with an adapter added to its weights; the model is used up."""
    with without_notes():
        return peft_package().PeftModel.from_pretrained(hf, str(path)).merge_and_unload()


def peft_package() -> Any:
    """The peft package.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise InputError("adapters need the export extra: pip install 'labkit[export]'") from error
    return peft


@contextmanager
def without_notes() -> Iterator[None]:
    """Without peft's notes on what it sets by itself, layer by layer (`fan_in_fan_out`)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(peft|transformers)\.")
        yield
