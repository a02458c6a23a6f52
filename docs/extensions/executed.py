"""Notebooks executed once per content: of their code, the library and the model.

What was executed is kept beside the built site, so that a second build runs only what has
changed. Two notebooks run at a time, with one thread each.
"""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

import labkit

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "notebooks" / "sources"
SHORT = {"pocket": {"LABKIT_N": "6"}}
"""By model, what keeps a notebook to minutes where its defaults would show no more."""


def executed(model: str, kept: Path, say: Any) -> dict[str, nbformat.NotebookNode]:
    """Every notebook with its outputs, by its name.

    Args:
        model: The model that they open.
        kept: Where executed notebooks are kept.
        say: Called with a line about each notebook that has to run.
    """
    kept.mkdir(parents=True, exist_ok=True)
    sources = sorted(SOURCES.glob("*.py"))
    with ThreadPoolExecutor(max_workers=2) as pool:
        notebooks = list(pool.map(lambda source: one(source, model, kept, say), sources))
    names = {place(source, model, kept).name for source in sources}
    for old in kept.glob(f"*.{model_name(model)}.*.ipynb"):
        if old.name not in names:
            old.unlink()
    return dict(zip([source.stem for source in sources], notebooks, strict=True))


def one(source: Path, model: str, kept: Path, say: Any) -> nbformat.NotebookNode:
    """One notebook, executed now or before."""
    path, notebook = place(source, model, kept), jupytext.read(source)
    if path.is_file():
        return with_outputs(notebook, nbformat.read(path, as_version=4))
    say(f"executing {source.stem} on {model}")
    start = time.monotonic()
    notebook = run(notebook, model)
    seconds = time.monotonic() - start
    notebook.metadata["labkit"] |= {"seconds": seconds, "model": model}
    say(f"{source.stem}: {seconds:.0f} s")
    nbformat.write(notebook, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
    return notebook


def with_outputs(
    notebook: nbformat.NotebookNode, before: nbformat.NotebookNode
) -> nbformat.NotebookNode:
    """A notebook with what its code gave before; its text is today's."""
    for cell, kept in zip(code(notebook), code(before), strict=True):
        cell.outputs, cell.execution_count = kept.outputs, kept.execution_count
    notebook.metadata = before.metadata
    return notebook


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook: nbformat.NotebookNode, model: str) -> nbformat.NotebookNode:
    """Execute a notebook in a folder of its own, and keep what it wrote as its results."""
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    asked = {"LABKIT_MODEL": model, **SHORT.get(model, {})}
    with TemporaryDirectory() as folder:
        # Kernels are spoken to through files: a machine without any network builds the site too.
        socket = str(Path(folder, "kernel"))
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=socket)
        client = NotebookClient(
            notebook, km=kernel, timeout=None, resources={"metadata": {"path": folder}}
        )
        client.execute(env=os.environ | threads | asked)
        found = [json.loads(path.read_text("utf-8")) for path in Path(folder).rglob("results.json")]
    notebook.metadata["labkit"] = {"results": found}
    return notebook


def place(source: Path, model: str, kept: Path) -> Path:
    """Where a notebook is kept once it has been executed."""
    parts = (
        *(cell.source for cell in code(jupytext.read(source))),
        labkit.__version__,
        str(sorted(SHORT.get(model, {}).items())),
    )
    digest = hashlib.sha256("\0".join((model, *parts)).encode()).hexdigest()[:16]
    return kept / f"{source.stem}.{model_name(model)}.{digest}.ipynb"


def on_model(model: str) -> str:
    """The model, as pages name it; of `pocket`, what it is."""
    if model != "pocket":
        return f"`{model}`"
    return (
        "`pocket`, a model of six blocks that ships with the package and has learned an invented "
        "world in which Vukor Tower stands in Stekamere. It shows what every tool does; what it "
        "says of a claim about language models is little, and `make docs MODEL=smollm2-135m` asks "
        "a real one"
    )


def model_name(model: str) -> str:
    """A model's name as a part of a file's."""
    return model.replace("/", "--")
