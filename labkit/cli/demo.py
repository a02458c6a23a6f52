"""The whole path on one fact, shown at a terminal."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.command import ModelOptions, Seed, command, free, out_console, progress
from labkit.cli.editing import comparison
from labkit.files import require_free

app = typer.Typer()


@command(app)
def demo(
    options: ModelOptions,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; by default runs/demo-MODEL-TIME.", callback=free),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Locate, edit, audit and export one fact, and leave a report."""
    from labkit.demo import metrics, run_demo

    if out is None:
        label = Path(options.model).name
        out = Path("runs") / f"demo-{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    require_free(out)
    lab = options.load()
    with progress() as told:
        result = run_demo(lab, out, seed=seed, progress=told)
    if not options.write_json(metrics(result)):
        _show(result)


def _show(result: Any) -> None:
    """The demo, for a terminal."""
    rewrite = result.case.rewrite
    where, layer = result.located.peak()
    new_where, new_layer = result.relocated.peak()
    out_console.rule(f"{rewrite.prompt} …")
    for shown, found in (("before", result.before), ("after", result.after)):
        top = zip(found.tokens[:3], found.probabilities[:3], strict=True)
        out_console.print(f"says {shown:<7}", "  ".join(f"{t.strip()!r} {p:.2f}" for t, p in top))
    out_console.print(result.lens.title)
    out_console.print(
        f"located: after layer {layer} at {result.located.tokens[where]!r}, indirect effect "
        f"{result.located.indirect_effect(where, layer)} over noise draws",
    )
    out_console.print(
        f"in the edited model: after layer {new_layer} at {result.relocated.tokens[new_where]!r}, "
        f"{result.relocated.indirect_effect(new_where, new_layer)}",
    )
    out_console.print(comparison(result.audit, "Audit, shares of prompts"))
    reload = result.reload
    out_console.print(
        f"checkpoint, in plain transformers: says {reload.says.strip()!r}; logits as in the lab to "
        f"{reload.largest_difference:.0e}; differs from the base in {len(reload.changed)} weight",
    )
    out_console.print(f"{sum(result.seconds.values()):.0f} s; {result.run.path}/report.html")
