"""What a run was made on: versions, threads, model and its fingerprint, commit."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from labkit.arguments import checked
from labkit.results.encoding import to_json

PACKAGES = (
    "labkit",
    "torch",
    "transformers",
    "transformer-lens",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "plotly",
)


@checked
def environment(model: object | None = None) -> dict[str, Any]:
    """What a run is made on, as a JSON-ready record.

    Args:
        model: A `LabModel`, or anything with `name` and `fingerprint`.

    Returns:
        Python, platform, package versions, thread count, start time (UTC), the model's
        name, fingerprint, dtype and device, the fingerprint of the weights in effect and
        whether states are patched, and the commit if the package is a checkout.
    """
    record: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(Path(__file__).resolve().parents[2]),
        "model": None,
    }
    if model is not None:
        names = ("name", "fingerprint", "in_effect", "is_patched", "dtype", "device")
        record["model"] = {name: to_json(getattr(model, name, None)) for name in names}
    return record


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(root: Path) -> str | None:
    """The commit of the checkout at `root`; None for an installed package or without git."""
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
