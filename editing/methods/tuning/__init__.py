"""Editing by gradient descent: fine-tuning of one matrix, free or within a ball, and LoRA."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.methods.tuning.fine_tuning import Ball, FineTuning
    from editing.methods.tuning.lora import LoRA

__getattr__, __dir__, __all__ = door(__name__, __file__)
