"""Prompts of demonstrations, with the tokens of every part known by character offsets.

A prompt is assembled from parts whose characters are counted on the way; the whole text is
tokenised once, and the tokenizer's own offsets say which tokens cover which part. Nothing is
decoded or searched for.

    prompt = render(model, task.template, [Shot(input="France", label="Paris")], "Italy")
    prompt.ids, prompt.shots[0].label          # positions of "Paris", the BOS counted in
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.icl.tasks.items import Template
from labkit.models.model import LabModel
from labkit.tokens import TokenSpan, text_ids


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A demonstration as it is shown: an input and the label that follows it."""

    input: str
    label: str


@dataclass(frozen=True, kw_only=True)
class ShotSpans:
    """Where a demonstration stands in a prompt.

    Attributes:
        whole: All of it.
        input: Its input; None where only labels are shown.
        label: Its label; None where only inputs are shown.
        separator: What separates it from what follows.
    """

    whole: TokenSpan
    input: TokenSpan | None
    label: TokenSpan | None
    separator: TokenSpan


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Demonstrations and a query, as text, as ids, and part by part.

    Positions are those of the unpadded ids, the BOS counted in. Where a tokenizer glues the
    edge of a part to its neighbour, the glued token belongs to both.

    Attributes:
        text: The whole text; the label would follow.
        ids: Its ids.
        instruction: The instruction in front; None if there is none.
        shots: The demonstrations, in order.
        query: The query, with the words of the template.
        query_input: Its input alone.
    """

    text: str
    ids: tuple[int, ...]
    instruction: TokenSpan | None
    shots: tuple[ShotSpans, ...]
    query: TokenSpan
    query_input: TokenSpan


Range = tuple[int, int]


@dataclass(frozen=True)
class _Layout:
    """A prompt's text and the characters of its parts, start and end."""

    text: str
    instruction: Range | None
    shots: tuple[tuple[Range, Range | None, Range | None, Range], ...]
    query: Range
    query_input: Range


def write(
    template: Template, shots: Sequence[Shot], query: str, *, shown: str | None = None
) -> str:
    """The text of a prompt; arguments as in `render`."""
    return _lay_out(template, shots, query, shown).text


@checked
def render(
    model: LabModel,
    template: Template,
    shots: Sequence[Shot],
    query: str,
    *,
    shown: str | None = None,
) -> Prompt:
    """A prompt with the tokens of its parts.

    Args:
        model: Whose tokenizer, and whose setting of the BOS.
        template: How demonstrations and query are written.
        shots: The demonstrations, first to last; none is a prompt too.
        query: The input that is asked about.
        shown: How demonstrations are written where that differs from the query: "{label}",
            "{input}" or "{input} {label}" show them without the template's words.

    Raises:
        InputError: If the tokenizer reports no offsets, or `shown` shows nothing.
    """
    layout = _lay_out(template, shots, query, shown)
    if not model.tokenizer.is_fast:
        raise InputError("prompts with spans need a fast tokenizer, which reports offsets")
    encoding = model.tokenizer(layout.text, add_special_tokens=False, return_offsets_mapping=True)
    offsets, shift = encoding["offset_mapping"], int(model.prepend_bos)

    def covering(characters: Range) -> TokenSpan:
        start, stop = characters
        found = [p for p, (first, last) in enumerate(offsets) if first < stop and last > start]
        # White space that a tokenizer drops leaves an empty span where it would have been.
        at = found[0] if found else sum(last <= start for _, last in offsets)
        return TokenSpan(at + shift, (found[-1] + 1 if found else at) + shift)

    def optional(characters: Range | None) -> TokenSpan | None:
        return None if characters is None else covering(characters)

    return Prompt(
        text=layout.text,
        ids=tuple(text_ids(model.tokenizer, layout.text, prepend_bos=model.prepend_bos)),
        instruction=optional(layout.instruction),
        shots=tuple(
            ShotSpans(
                whole=covering(whole),
                input=optional(own),
                label=optional(label),
                separator=covering(separator),
            )
            for whole, own, label, separator in layout.shots
        ),
        query=covering(layout.query),
        query_input=covering(layout.query_input),
    )


def _lay_out(template: Template, shots: Sequence[Shot], query: str, shown: str | None) -> _Layout:
    """Assemble a text, and keep count of its characters."""
    shown = template.demonstration if shown is None else shown
    if "{input}" not in shown and "{label}" not in shown:
        raise InputError(f"{shown!r} shows neither {{input}} nor {{label}} of a demonstration")
    pieces: list[str] = []
    length = 0

    def put(text: str) -> Range:
        nonlocal length
        pieces.append(text)
        length += len(text)
        return length - len(text), length

    def put_filled(form: str, **values: str) -> dict[str, Range]:
        places, start = {}, length
        for piece in re.split(r"(\{input\}|\{label\})", form):
            name = piece[1:-1]
            if piece in ("{input}", "{label}"):
                places[name] = put(values[name])
            else:
                put(piece)
        return places | {"whole": (start, length)}

    instruction = None
    if template.instruction:
        instruction = put(template.instruction)
        put(template.separator)
    placed = []
    for shot in shots:
        at = put_filled(shown, input=shot.input, label=shot.label)
        separator = put(template.separator)
        placed.append((at["whole"], at.get("input"), at.get("label"), separator))
    asked = put_filled(template.query, input=query)
    return _Layout("".join(pieces), instruction, tuple(placed), asked["whole"], asked["input"])
