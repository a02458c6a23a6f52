"""Files that are only touched when they change, so that a rebuild reads nothing twice."""

from pathlib import Path


def write(path: Path, text: str) -> Path:
    """Write a page if it says anything new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path
