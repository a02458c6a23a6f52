"""Locating: which states of a model carry a fact, and which neurons hold it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.command import (
    MANY,
    ModelOptions,
    Out,
    Seed,
    columns,
    command,
    out_console,
    progress,
    to_resume,
)
from labkit.errors import InputError
from labkit.files import atomic_folder, require_free

app = typer.Typer()

Prompt = Annotated[str, typer.Option(help="The prompt, ending where the answer follows.")]
Subject = Annotated[str, typer.Option(help="The subject, as it stands in the prompt.")]
Answer = Annotated[str | None, typer.Option(help="By default what the model says.")]


@dataclass(frozen=True, kw_only=True)
class TraceOptions(ModelOptions):
    """How a fact is traced."""

    kind: Annotated[str, typer.Option(help="resid, ffn or attn.")] = "resid"
    severed: Annotated[
        str | None,
        typer.Option(
            help="ffn or attn: outputs held at their corrupted values at the restored token."
        ),
    ] = None
    samples: Annotated[int, typer.Option(help="Number of noise draws.", max=MANY)] = 10
    seed: Seed = 0

    def method(self) -> Any:
        """The causal trace with these settings."""
        from labkit.locate import CausalTrace

        return CausalTrace(
            kind=self.kind,  # type: ignore[arg-type]
            severed=self.severed,  # type: ignore[arg-type]
            samples=self.samples,
            seed=self.seed,
        )


@command(app)
def trace(
    options: TraceOptions,
    out: Annotated[
        Path,
        typer.Option(
            help="A new folder; with --facts, one of the same run is resumed.", callback=to_resume
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option(help="One fact: its prompt, up to the answer.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Its subject, as it stands there.")] = None,
    answer: Answer = None,
    facts: Annotated[Path | None, typer.Option(help="Many facts instead: JSONL of facts.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N facts.", min=1)] = None,
) -> None:
    """Locate a fact, or the average of many, by causal tracing; writes results and figures."""
    if (prompt is None or subject is None) if facts is None else (prompt or subject or answer):
        raise InputError("a trace takes either --prompt and --subject, or --facts FILE")
    if limit is not None and facts is None:
        raise InputError("--limit is a number of facts: it goes with --facts")
    if facts is not None:
        _trace_many(options, facts, limit, out)
        return
    from labkit.facts.fact import Fact
    from labkit.results.report import Report

    require_free(out)
    method = options.method()
    fact = Fact.from_prompt(str(prompt), str(subject), answer)
    lab = options.load()
    with progress() as told:
        result = method(lab, fact, progress=told)
    page = Report(fact.prompt).paragraph(result.title).figure(result.figure())
    with atomic_folder(out) as folder:
        result.save(folder)
        page.save(folder / "trace.html")
    pos, layer = result.peak()
    summary = {
        "title": result.title,
        "peak": {"pos": pos, "token": result.tokens[pos], "layer": layer},
        "indirect_effect": result.indirect_effect(pos, layer).to_dict(),
        "total_effect": result.total_effect.to_dict(),
        "warning": result.warning,
        "out": str(out),
    }
    if not options.write_json(summary):
        out_console.print(result.title)
        if result.warning:
            out_console.print(f"warning: {result.warning}")
        out_console.print(
            f"strongest subject state: after layer {layer} at {result.tokens[pos]!r}, "
            f"indirect effect {result.indirect_effect(pos, layer)}"
        )
        out_console.print(f"{out}/trace.html", soft_wrap=True)


def _trace_many(options: TraceOptions, path: Path, limit: int | None, out: Path) -> None:
    """Trace the facts of a file that the model knows, and average them."""
    from labkit.facts.known import known_facts
    from labkit.facts.records import read_facts
    from labkit.locate import average_traces
    from labkit.results.report import Report
    from labkit.results.result import RunDirectory

    method = options.method()
    asked = read_facts(path)[:limit]
    lab = options.load()
    known = known_facts(lab, asked)
    if not known.facts:
        raise InputError(f"{lab.name} knows none of the {len(asked)} facts of {path}")
    config = {
        "command": "trace",
        "trace": asdict(method),
        "facts": [[fact.prompt, fact.object] for fact in known.facts],
    }
    with RunDirectory.session(out, config, lab, resume=True) as run:
        with progress() as told:
            result = average_traces(lab, known.facts, method, run=run, progress=told)
        sites = result.sites()
        summary = {
            "title": result.title,
            "known": known.share.to_dict(),
            "total_effect": result.total_effect.to_dict(),
            "sites": sites.to_dict("records"),
            "effects": result.to_frame().to_dict("records"),
            "out": str(out),
        }
        run.write_metrics(summary)
        page = Report(result.title).paragraph(f"Known of the facts asked: {known.share}.")
        page.figure(result.figure()).figure(result.heatmap()).table(sites, caption="Sites by role")
        run.write_text("report.html", page.html())
    if not options.write_json(summary):
        out_console.print(f"known of the facts asked: {known.share}")
        out_console.print(result.title)
        for role in sites["role"]:
            out_console.print(f"{result.early_site(role)}")
        out_console.print(f"{out}/report.html", soft_wrap=True)


@command(app)
def neurons(
    options: ModelOptions,
    prompt: Prompt,
    subject: Subject,
    out: Out,
    answer: Answer = None,
    paraphrase: Annotated[
        list[str] | None,
        typer.Option(help="The fact in other words, {} for the subject; may be repeated."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Share of the largest attribution that a neuron must reach.")
    ] = 0.2,
    shared: Annotated[
        float, typer.Option(help="Share of the wordings in which it must reach it.")
    ] = 0.7,
    draws: Annotated[
        int, typer.Option(help="Sets of random neurons to compare with.", min=1, max=MANY)
    ] = 10,
    seed: Seed = 0,
) -> None:
    """Find a fact's knowledge neurons, and suppress and amplify exactly these."""
    from dataclasses import replace

    from labkit.facts.fact import Fact
    from labkit.locate import KnowledgeNeurons, RandomNeurons
    from labkit.results.report import Report

    fact = Fact.from_prompt(prompt, subject, answer)
    fact = replace(fact, paraphrases=tuple(paraphrase or ()))
    method = KnowledgeNeurons(threshold=threshold, shared=shared)
    lab = options.load()
    with progress() as told:
        found = method(lab, fact, progress=told)
        told("switching the neurons off and up", None)
        random = RandomNeurons(draws=draws, seed=seed)
        test = found.test(lab, random=random) if found.neurons else None
    page = Report(prompt).paragraph(found.title).figure(found.figure())
    if test is not None:
        page.figure(test.figure())
    with atomic_folder(out) as folder:
        found.save(folder)
        page.save(folder / "neurons.html")
    frame = found.to_frame()
    effects = None if test is None else test.to_frame()
    summary = {
        "title": found.title,
        "neurons": frame.to_dict("records"),
        "test": [] if effects is None else effects.to_dict("records"),
        "warning": found.warning,
        "out": str(out),
    }
    if not options.write_json(summary):
        out_console.print(found.title)
        if found.warning:
            out_console.print(f"warning: {found.warning}")
        if test is None or effects is None:
            out_console.print(
                "no neuron passed, so there is nothing to switch; --threshold and --shared say "
                "how much is asked of one"
            )
            out_console.print(f"{out}/neurons.html", soft_wrap=True)
            return
        names = [f"L{layer}N{neuron}" for layer, neuron in found.neurons]
        out_console.print(", ".join(names))
        table = columns("neurons", "switched", "change of P(answer), relative", title=test.title)
        for group, intervention in zip(effects["group"], effects["intervention"], strict=True):
            change = test.change(group, intervention)
            table.add_row(group, intervention, f"{change:+.1%}")
        out_console.print(table)
        out_console.print(f"{out}/neurons.html", soft_wrap=True)
