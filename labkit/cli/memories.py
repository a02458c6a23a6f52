"""Memories: FFN neurons as keys and values, one by one and for one answer."""

from typing import Annotated

import typer
from rich.text import Text

from labkit.cli.command import (
    ModelOptions,
    columns,
    command,
    out_console,
    progress,
    short,
    writable,
)

app = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="FFN layers as key-value memories.")
app.add_typer(group, name="memories")


@command(group)
def neuron(
    options: ModelOptions,
    layer: Annotated[int, typer.Argument(help="The layer, from 0.")],
    neuron: Annotated[int, typer.Argument(help="The neuron, from 0.")],
    prompt: Annotated[str | None, typer.Option(help="Show where it fires on this text.")] = None,
    html: Annotated[
        str | None,
        typer.Option(help="Write the card as a page.", metavar="FILE", callback=writable),
    ] = None,
) -> None:
    """Show what a neuron detects and what it writes."""
    from labkit.memories import neuron_card

    lab = options.load()
    with progress() as told:
        card = neuron_card(lab, layer, neuron, prompt=prompt, progress=told)
    if html is not None:
        from labkit.results.report import Report

        Report(f"L{layer}N{neuron}").paragraph(card.title).figure(card.figure()).save(html)
    summary = {
        "title": card.title,
        "promoted": card.words.promoted,
        "suppressed": card.words.suppressed,
        "triggers": card.triggers.to_dict("records"),
        "fires": card.fires.to_dict("records"),
        "tokens_read": card.n_tokens,
        "corpus": card.corpus,
    }
    if options.write_json(summary):
        return
    out_console.print(card.title)
    table = columns("activation", "where it fires", title=f"{card.n_tokens} tokens, {card.corpus}")
    for row in card.triggers.itertuples():
        before, token = (" ".join(str(part).split()) for part in (row.before, row.token))
        where = Text.assemble(f"{before[-56:]} ", (token, "reverse"))
        table.add_row(f"{row.activation:.2f}", where)
    out_console.print(table)
    for what, words in (("promotes", card.words.promoted), ("suppresses", card.words.suppressed)):
        out_console.print(f"{what}: {', '.join(map(repr, words))}")


@command(group)
def writers(
    options: ModelOptions,
    token: Annotated[str, typer.Argument(help='One token, its space included: " Paris".')],
    k: Annotated[int, typer.Option(help="How many neurons.", min=1)] = 20,
) -> None:
    """List the neurons whose values promote a token most."""
    from labkit.memories import writers as writers_

    lab = options.load()
    with progress() as told:
        found = writers_(lab, token, k=k, progress=told)
    frame = found.to_frame()
    if options.write_json({"title": found.title, "neurons": frame.to_dict("records")}):
        return
    table = columns("neuron", "logit", "rank of the token", "length", title=found.title)
    for row in frame.itertuples():
        name = f"L{row.layer}N{row.neuron}"
        table.add_row(name, f"{row.logit:.2f}", f"{row.rank}", f"{row.length:.2f}")
    out_console.print(table)


@command(group)
def contributions(
    options: ModelOptions,
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    answer: Annotated[str | None, typer.Option(help="By default what the model says.")] = None,
    k: Annotated[int, typer.Option(help="How many neurons.", min=1)] = 10,
) -> None:
    """Decompose the logit of an answer, and switch the largest neurons off."""
    from labkit.memories import contributions as contributions_
    from labkit.memories import switched

    lab = options.load()
    with progress() as told:
        told("sharing out the logit", None)
        found = contributions_(lab, prompt, answer)
        # Where all neurons together lower the logit, none gives half of what they add.
        half = found.covering(0.5) or found.covering(0.5, of="positive")
        told(f"switching {len(half)} neurons off", None)
        off = switched(lab, found, half)
    direct, total = off.control
    whole = float(found.neurons.sum())
    whole = whole if whole > 0 else found.positive
    neurons = found.neurons_frame(k)
    summary = {
        "title": found.title,
        "logit": found.logit,
        "sum": found.total,
        "components": found.to_frame().to_dict("records"),
        "neurons": neurons.to_dict("records"),
        "neurons_for_half": len(half),
        "switched_off": off.to_frame().to_dict("records"),
    }
    if options.write_json(summary):
        return
    out_console.print(found.title)
    table = columns("neuron", "activation", "logit", "share of all that is positive")
    for row in neurons.itertuples():
        name = f"L{row.layer}N{row.neuron}"
        table.add_row(name, f"{row.activation:.2f}", f"{row.logit:+.3f}", f"{row.share:.1%}")
    out_console.print(table)
    kind = "" if whole != found.positive else " that are positive"
    said = f"half of the {whole:.2f} logits of all neurons{kind} comes from {len(half)}"
    out_console.print(f"{said}; without them the logit changes")
    out_console.print(f"  directly by {off.direct:+.3f}, as predicted ({off.predicted:+.3f}),")
    out_console.print(f"  in all by {off.total:+.3f};")
    out_console.print(f"  without as many random ones by {short(direct)} and {short(total)}")
