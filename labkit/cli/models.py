"""Models: which there are, bringing them here, asking them, training the smallest one."""

from typing import Annotated

import typer

from labkit.cli.command import (
    ModelOptions,
    Options,
    Out,
    Seed,
    columns,
    command,
    out_console,
    progress,
    quiet,
)

app = typer.Typer()
pocket = typer.Typer(no_args_is_help=True, help="The small model of an invented world.")
app.add_typer(pocket, name="pocket")


@command(app)
def models(options: Options) -> None:
    """List the models that have a short name."""
    from labkit.models import registry

    rows = [entry.to_dict() for entry in registry.entries()]
    if not options.write_json(rows):
        table = columns("name", "what", "licence", "from", "here")
        for row in rows:
            here = "yes" if row["cached"] else "no"
            table.add_row(row["name"], row["description"], row["license"], row["source"], here)
        out_console.print(table)
        out_console.print("Local folders and hub ids (org/name) work as well.")


@command(app)
def fetch(options: Options, name: Annotated[str, typer.Argument(help="Short name.")]) -> None:
    """Bring a model's weights into the cache, once."""
    from labkit.models import registry

    quiet()
    with progress() as told:
        path = registry.fetch(name, progress=told)
    if not options.write_json({"name": name, "path": str(path)}):
        out_console.print(f"{name} is at {path}", soft_wrap=True)


@command(app)
def predict(
    options: ModelOptions,
    model: Annotated[str, typer.Argument(help="Short name, local folder or hub id.")],
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    k: Annotated[int, typer.Option(help="How many next tokens.")] = 10,
) -> None:
    """Show the most probable next tokens after a prompt."""
    from labkit.readout import predict as predict_

    result = predict_(options.load(), prompt, k=k)
    if not options.write_json(result):
        table = columns("token", "probability", title=prompt)
        for token, probability in zip(result.tokens, result.probabilities, strict=True):
            table.add_row(repr(token), f"{probability:.4f}")
        out_console.print(table)


@command(pocket)
def train(options: Options, out: Out, seed: Seed = 0) -> None:
    """Train the pocket model from scratch on its invented world."""
    from labkit.pocket.recipe import Recipe
    from labkit.pocket.training import train as train_

    quiet()
    with progress() as told:
        train_(out, recipe=Recipe(seed=seed), progress=told)
    if not options.write_json({"out": str(out)}):
        out_console.print(f"trained to {out}", soft_wrap=True)
