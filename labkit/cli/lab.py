"""JupyterLab with the notebooks."""

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
    folder: Annotated[Path, typer.Argument(help="The folder to open.")] = Path("notebooks"),
) -> None:
    """Open JupyterLab."""
    import os
    import shutil

    arguments, environment = lab_command(folder)
    if options.write_json({"command": arguments}):
        return
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder}; name the one with your notebooks")
    if shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)) is None:
        raise InputError("JupyterLab is not installed here: pip install 'labkit[lab]'")
    os.execve(sys.executable, arguments, environment)


def lab_command(folder: Path) -> tuple[list[str], dict[str, str]]:
    """What is started, and its environment.

    A `jupyterlab.py` in the working folder is not run in its place (-P). The variable says
    the same to the kernels that JupyterLab starts; IPython puts a notebook's own folder
    after the standard library, so that modules beside a notebook can still be imported.
    """
    import os

    arguments = [sys.executable, "-P", "-m", "jupyterlab", str(folder)]
    return arguments, {**os.environ, "PYTHONSAFEPATH": "1"}
