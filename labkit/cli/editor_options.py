"""The options of every command that edits a model, and the editor that they name."""

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from labkit.cli.command import ModelOptions, Seed
from labkit.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EditorOptions(ModelOptions):
    """What every command takes that edits a model."""

    method: Annotated[
        str, typer.Option(help="Name of the editor, fields after it: rome:search.steps=40.")
    ] = "rome"
    layer: Annotated[
        int | None, typer.Option(help="By default the model's preset; for methods of one layer.")
    ] = None
    corpus: Annotated[
        Path | None,
        typer.Option(help="Text behind contexts and second moments; by default the model's own."),
    ] = None
    seed: Seed = 0

    def text(self) -> Any:
        """The corpus that was named, read; None for the model's own."""
        from labkit.text.corpus import Corpus

        return None if self.corpus is None else Corpus.from_file(self.corpus)

    def editor(self, name: str | None = None) -> Any:
        """The editor of that name, with the fields that follow it: `rome:layer=5`."""
        from editing import METHODS

        name, *settings = (self.method if name is None else name).split(":")
        if name not in METHODS:
            raise InputError(f"method {name!r}: one of {', '.join(METHODS)}")
        make: Any = METHODS[name]
        made = make()
        own = {field.name for field in fields(made)}
        given: dict[str, Any] = {"seed": self.seed} if "seed" in own else {}
        if self.layer is not None:
            if not own & {"layer", "layers"}:
                raise InputError(f"--layer: {name} has no layer to choose")
            given |= {"layer": self.layer} if "layer" in own else {"layers": (self.layer,)}
        made = replace(made, **given)
        for setting in settings:
            path, equals, value = setting.partition("=")
            if not equals:
                raise InputError(f"{setting!r} after {name}: write field=value")
            made = _with(made, path.strip(), value.strip())
        return made


def _with(config: Any, path: str, value: str) -> Any:
    """A configuration with one field changed; `search.steps` is a field of a field.

    Raises:
        InputError: If there is no such field, or the value is none for it.
    """
    from pydantic import TypeAdapter, ValidationError

    name, _, rest = path.partition(".")
    hints = get_type_hints(type(config))
    known = [field.name for field in fields(config)]
    if name not in known:
        raise InputError(f"{type(config).__name__} has no field {name!r}: {', '.join(known)}")
    if rest:
        inner = getattr(config, name)
        if not is_dataclass(inner):
            raise InputError(f"{type(config).__name__}.{name} has no fields, so no {rest!r}")
        return replace(config, **{name: _with(inner, rest, value)})
    kind: TypeAdapter[Any] = TypeAdapter(hints[name])
    try:
        made = kind.validate_strings(value) if value[:1] not in "[{" else kind.validate_json(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise InputError(f"{name}={value}: {problem}") from None
    if isinstance(made, float) and not math.isfinite(made):
        raise InputError(f"{name}={value}: a finite number")
    return replace(config, **{name: made})
