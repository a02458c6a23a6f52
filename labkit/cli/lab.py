"""The lab's own room: notebooks."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from labkit.cli.command import Options, command
from labkit.errors import InputError, MissingFile

app = typer.Typer()


@command(app)
def lab(
    options: Options,
    folder: Annotated[Path, typer.Argument(help="Where to open it.")] = Path("notebooks"),
) -> None:
    """Open JupyterLab."""
    import os
    import shutil

    arguments = [sys.executable, "-m", "jupyterlab", str(folder)]
    if options.write_json({"command": arguments}):
        return
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder}; name the one with your notebooks")
    if shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)) is None:
        raise InputError("JupyterLab is not installed here: pip install 'labkit[lab]'")
    os.execv(sys.executable, arguments)
