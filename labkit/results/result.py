"""Typed results that display and save themselves.

A result is a frozen dataclass that inherits from `Result` and says three things: a `title`
of one line, its numbers as a table (`to_frame`), and its picture (`figure`). Saving,
loading and how it looks in a notebook follow from its fields:

    @dataclass(frozen=True, kw_only=True)
    class TraceResult(Measured):
        prompt: str
        clean: Estimate
        cells: Float[np.ndarray, "sample pos layer"]

A result of a model inherits from `labkit.results.measured.Measured`, which says what weights it
was measured on. Runs of many cases are kept in a `RunDirectory`.
"""

import json
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from labkit.errors import MalformedRecord, MissingFile
from labkit.files import atomic_folder, atomic_write
from labkit.results.encoding import dumps, from_json, to_json
from labkit.results.provenance import environment
from labkit.results.runs import RunDirectory

__all__ = [
    "Result",
    "RunDirectory",
    "atomic_folder",
    "atomic_write",
    "dumps",
    "environment",
    "to_json",
]

FORMAT = 1
_ROWS_SHOWN = 8
R = TypeVar("R", bound="Result")


class Result:
    """Base of the frozen dataclasses that hold what was measured.

    Fields may be JSON values, estimates, dataclasses, data frames, and tuples, lists,
    dicts and optionals of those; numpy arrays and tensors as fields of their own.
    """

    def __init_subclass__(cls, **more: Any) -> None:
        """Every kind of result shows itself in one line: its fields may be arrays of millions."""
        super().__init_subclass__(**more)
        if "__repr__" not in vars(cls):
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """The kind of result and its title."""
        return f"{type(self).__name__}: {self.title}"

    @property
    def title(self) -> str:
        """What was measured, on what, in one line of plain text."""
        raise NotImplementedError

    def to_frame(self) -> pd.DataFrame:
        """The numbers as a long table, one row per cell."""
        raise NotImplementedError

    def figure(self) -> Any:
        """The picture, a plotly figure."""
        raise NotImplementedError

    def save(self, path: str | Path) -> Path:
        """Write the result as a folder: `result.json`, and `arrays.safetensors` if it has any.

        Args:
            path: A folder that does not exist or is empty.

        Raises:
            OutputError: If the folder holds something, or cannot be written.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray | torch.Tensor)}
        header = {
            "format": FORMAT,
            "kind": type(self).__name__,
            "arrays": {
                k: "numpy" if isinstance(v, np.ndarray) else "torch" for k, v in arrays.items()
            },
            "fields": {k: v for k, v in values.items() if k not in arrays},
        }
        tensors = {
            k: torch.as_tensor(np.array(v)) if isinstance(v, np.ndarray) else v
            for k, v in arrays.items()
        }
        with atomic_folder(path) as folder:
            atomic_write(folder / "result.json", dumps(header) + "\n")
            if tensors:
                contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
                save_file(contiguous, folder / "arrays.safetensors")
        return Path(path)

    @classmethod
    def load(cls: type[R], path: str | Path) -> R:
        """Read what `save` wrote.

        Raises:
            MissingFile: If the folder holds no result.
            MalformedRecord: If it holds a result of another kind or format.
        """
        file_path = Path(path) / "result.json"
        try:
            header = json.loads(file_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFile(f"{path} holds no result: there is no {file_path}") from error
        except ValueError as error:
            raise MalformedRecord(f"{file_path} is not valid JSON: {error}") from error
        found = (header.get("kind"), header.get("format"))
        if found != (cls.__name__, FORMAT):
            raise MalformedRecord(
                f"{path} holds a {found[0]} of format {found[1]}, "
                f"not a {cls.__name__} of format {FORMAT}"
            )
        hints = get_type_hints(cls)
        values = {name: from_json(value, hints[name]) for name, value in header["fields"].items()}
        if header["arrays"]:
            for name, tensor in load_file(Path(path) / "arrays.safetensors").items():
                values[name] = tensor.numpy() if header["arrays"][name] == "numpy" else tensor
        return cls(**values)

    def _repr_html_(self) -> str:
        """Title and the first rows: what a page without scripts can show."""
        frame = self.to_frame()
        more = len(frame) - _ROWS_SHOWN
        note = f"<p>and {more} more rows: <code>.to_frame()</code></p>" if more > 0 else ""
        table = frame.head(_ROWS_SHOWN).to_html(index=False, border=0)
        return f"<p><strong>{escape(self.title)}</strong></p>{table}{note}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The figure where the notebook can show one, else the table."""
        bundle = {"text/plain": self.title, "text/html": self._repr_html_()}
        return bundle | self.figure()._repr_mimebundle_()
