"""Treebanks of Universal Dependencies by name, brought into the user's cache once.

    path = fetch_treebank("UD_English-EWT", "train")        # needs the network the first time
    sentences = read_treebank(path)

Names are those of the collection's repositories, releases their tags. A treebank's licence lies
beside its files; some forbid commercial use.

References:
    Nivre et al. (2020), Universal Dependencies v2.
"""

import hashlib
import http.client
import json
import logging
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal, get_args

from labkit.cache import cache_dir
from labkit.errors import FetchError, InputError, MissingFile
from labkit.files import atomic_write, output_errors
from labkit.models.wheels import sha256_of

logger = logging.getLogger(__name__)

Part = Literal["train", "dev", "test"]
"""The files of a treebank; small ones lack some."""

RELEASE = "r2.14"
"""The release that is fetched by default: numbers change between releases."""

LISTING = "https://api.github.com/repos/UniversalDependencies/{name}/contents?ref={release}"
"""Where the files of a treebank are listed, with an address for each."""

SECONDS = 30
"""How long the network may be silent."""


def is_name(text: str | os.PathLike[str]) -> bool:
    """Whether something reads as a treebank's name, such as "UD_French-GSD"."""
    return re.fullmatch(r"UD_[A-Za-z_]+-[A-Za-z0-9]+", os.fspath(text)) is not None


def fetch_treebank(name: str, part: Part = "train", *, release: str = RELEASE) -> Path:
    """A part of a treebank, as a CoNLL-U file in the user's cache.

    Args:
        name: Name of the treebank, such as "UD_English-EWT".
        part: Which of its files.
        release: Tag of the release.

    Raises:
        InputError: If this is no name or part of a treebank.
        MissingFile: If the treebank has no such part.
        FetchError: If it cannot be fetched: no network, no such treebank or release.
    """
    if not is_name(name) or part not in get_args(Part):
        raise InputError(
            f"{part!r} of {name!r}: a treebank has a name such as UD_English-EWT, and the parts "
            f"{', '.join(get_args(Part))}"
        )
    path = cache_dir() / "treebanks" / release / name / f"{part}.conllu"
    if path.is_file() and _is_sound(path):
        return path
    files = {
        entry["name"]: entry["download_url"]
        for entry in json.loads(_fetched(LISTING.format(name=name, release=release), name))
    }
    wanted = [file for file in files if file.endswith(f"-ud-{part}.conllu")]
    if not wanted:
        raise MissingFile(f"{name} ({release}) has no {part} part; it has {', '.join(files)}")
    licences = [file for file in files if file.upper().startswith("LICENSE")]
    contents = {path.with_name(file): _fetched(files[file], name) for file in licences}
    text = _fetched(files[wanted[0]], name)
    contents[_checksum_file(path)] = hashlib.sha256(text).hexdigest().encode()
    contents[path] = text
    with output_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    for own, content in contents.items():
        atomic_write(own, content)
    return path


def _checksum_file(path: Path) -> Path:
    """The path of the checksum of a treebank's file."""
    return path.with_name(f"{path.name}.sha256")


def _is_sound(path: Path) -> bool:
    """Whether a file is as fetched; taken on trust if no checksum was kept (up to 0.5)."""
    recorded = _checksum_file(path)
    if not recorded.is_file() or recorded.read_text().strip() == sha256_of(path):
        return True
    logger.warning("the treebank %s is damaged (its checksum differs): fetching it anew", path)
    return False


def _fetched(address: str, name: str) -> bytes:
    """The content of an address, or an error that says what to do."""
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "labkit"})
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        reason = "there is no such treebank or release" if error.code == 404 else str(error)
        raise FetchError(f"{name}: {reason} ({address})") from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(
            f"{name} cannot be fetched: {error}. Without a network, name a CoNLL-U file instead"
        ) from error
