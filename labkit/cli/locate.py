"""Locating: which states of a model carry a fact."""

from typing import Annotated

import typer

from labkit.cli.command import ModelOptions, Out, Seed, command, out_console, progress

app = typer.Typer()


@command(app)
def trace(
    options: ModelOptions,
    prompt: Annotated[str, typer.Option(help="The prompt, ending where the answer follows.")],
    subject: Annotated[str, typer.Option(help="The subject, as it stands in the prompt.")],
    out: Out,
    answer: Annotated[str | None, typer.Option(help="By default what the model says.")] = None,
    kind: Annotated[str, typer.Option(help="resid, ffn or attn.")] = "resid",
    samples: Annotated[int, typer.Option(help="Number of noise draws.")] = 10,
    seed: Seed = 0,
) -> None:
    """Locate a fact by causal tracing; writes the result and its figure."""
    from labkit.facts import Fact
    from labkit.locate import CausalTrace
    from labkit.report import Report

    method = CausalTrace(kind=kind, samples=samples, seed=seed)  # type: ignore[arg-type]
    fact = Fact.from_prompt(prompt, subject, answer)
    lab = options.load()
    with progress() as told:
        result = method(lab, fact, progress=told)
    result.save(out)
    Report(prompt).paragraph(result.title).figure(result.figure()).save(out / "trace.html")
    pos, layer = result.peak()
    summary = {
        "title": result.title,
        "peak": {"pos": pos, "token": result.tokens[pos], "layer": layer},
        "indirect_effect": result.indirect_effect(pos, layer).to_dict(),
        "total_effect": result.total_effect.to_dict(),
        "out": str(out),
    }
    if not options.write_json(summary):
        out_console.print(result.title)
        out_console.print(
            f"strongest subject state: after layer {layer} at {result.tokens[pos]!r}, "
            f"indirect effect {result.indirect_effect(pos, layer)}"
        )
        out_console.print(f"{out}/trace.html", soft_wrap=True)
