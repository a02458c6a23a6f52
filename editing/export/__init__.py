"""Carrying an edit away: checkpoint, PEFT adapter or GGUF file; the card; reading it back."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.export.adapter import export_peft
    from editing.export.checkpoint import export_hf
    from editing.export.gguf_file import export_gguf
    from editing.export.options import ExportOptions
    from editing.export.reopening import ExportCheck, check_export
    from editing.export.restore import undo_checkpoint

__getattr__, __dir__, __all__ = door(__name__, __file__)
