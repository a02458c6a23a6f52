"""How an edit is carried away: number format, originals, and whether the files are read back."""

from dataclasses import dataclass, fields

from labkit.errors import InputError
from labkit.models.formats import dtype_of


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How `export_hf`, `export_gguf` and `export_peft` write an edit.

        export_hf(model, delta, "out", ExportOptions(dtype="bfloat16"))

    Attributes:
        dtype: Number format of the files: "float32", "float16", "bfloat16", of a checkpoint also
            "float64". By default that of the model in memory; of the edited tensors of a GGUF
            file float32. An adapter is float32 always.
        keep_originals: Whether a checkpoint keeps, in `undo/`, the delta and the changed weights
            as they were, with which `undo_checkpoint` is exact; by default it does. Leave them
            out where an edit deletes what readers of the checkpoint should not find. Other
            formats keep none.
        check: Whether to open the files again and state in the card what they keep; by default
            they are opened.

    Raises:
        InputError: If there is no such dtype.
    """

    dtype: str | None = None
    keep_originals: bool = True
    check: bool = True

    def __post_init__(self) -> None:
        """Refuse a number format that there is none of."""
        if self.dtype is not None:
            dtype_of(self.dtype)


USUAL = ExportOptions()
"""As the model is in memory, with its originals, and read back."""


def require_heeded(how: ExportOptions, format: str, heeded: tuple[str, ...]) -> None:
    """Refuse options that a format cannot heed.

    Args:
        how: The options.
        format: The format, in words.
        heeded: The options that it can heed.

    Raises:
        InputError: If another one is not at its default.
    """
    for field in fields(ExportOptions):
        if field.name not in heeded and getattr(how, field.name) != field.default:
            raise InputError(
                f"{field.name}={getattr(how, field.name)!r} is not for {format}: leave it out"
            )
