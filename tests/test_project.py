"""The project's files say the same thing, and imports point down only."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("labkit", "probes", "editing")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# The command line and the demo sit on top of all three packages; they import lazily.
ON_TOP = ("labkit/cli/", "labkit/demo/")
# Who may touch the libraries that everything else goes through one module for.
DOORS = {
    "plotly": lambda path: path.startswith("labkit/plots/"),
    "transformer_lens": lambda path: (
        path
        in {
            "labkit/readout.py",
            "labkit/direct_attribution.py",
            "labkit/running/activations.py",
        }
        or path.startswith("labkit/models/")
        or path.startswith("labkit/locate/")  # which wraps its analysis tools
        or path == "probes/probing/sparse.py"  # likewise
    ),
}


def sources() -> list[str]:
    return sorted(
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
    )


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported(node: ast.AST) -> set[str]:
    """Top-level packages that a piece of code imports."""
    names = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            names |= {alias.name.split(".")[0] for alias in child.names}
        elif isinstance(child, ast.ImportFrom) and not child.level:
            names.add(str(child.module).split(".")[0])
    return names


def imported_at_load(module: ast.Module) -> set[str]:
    """What is imported by importing the module: function bodies are left out."""
    names = set()
    for node in module.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names |= imported(node)
    return names


def tracked_names() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.split("\0") if name]


def tracked_texts() -> dict[str, str]:
    """Every text file that git knows, except data too large to be prose."""
    texts = {}
    for name in tracked_names():
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 5_000_000:
            content = path.read_bytes()
            if b"\0" not in content:
                texts[name] = content.decode("utf-8", errors="replace")
    return texts


# --- imports --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sources())
def test_imports_point_down_only(path):
    package = path.split("/")[0]
    above = {"labkit": {"probes", "editing"}, "probes": {"editing"}, "editing": {"probes"}}[package]
    seen = imported_at_load(tree(path)) if path.startswith(ON_TOP) else imported(tree(path))
    assert not seen & above, f"{path} imports {sorted(seen & above)}"
    assert not seen & {"tests", "notebooks"}


@pytest.mark.parametrize("library", DOORS)
def test_one_door_to_each_big_library(library):
    users = [path for path in sources() if library in imported(tree(path))]
    assert [path for path in users if not DOORS[library](path)] == []


def test_every_import_is_a_declared_dependency():
    distributions = {
        "IPython": "ipython",
        "sklearn": "scikit-learn",
        "yaml": "pyyaml",
        "transformer_lens": "transformer-lens",
    }
    extras = [entry for extra in PROJECT["optional-dependencies"].values() for entry in extra]
    declared = {
        canonicalize_name(Requirement(entry).name) for entry in PROJECT["dependencies"] + extras
    }
    used = set().union(*(imported(tree(path)) for path in sources()))
    foreign = used - set(sys.stdlib_module_names) - set(PACKAGES)
    missing = {n for n in foreign if canonicalize_name(distributions.get(n, n)) not in declared}
    assert missing == set()


def test_the_library_does_not_print():
    calls = [
        f"{path}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert calls == []


# --- one version of everything ----------------------------------------------------------------


def pins() -> dict[str, str]:
    """Name to version; a name that is pinned twice, or not exactly, is an error."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, separator, release = line.partition("==")
            assert separator and re.fullmatch(r"[\w.!]+", release), f"not an exact pin: {line!r}"
            assert canonicalize_name(name) not in found, f"pinned twice: {name}"
            found[canonicalize_name(name)] = release
    return found


def test_every_dependency_is_pinned_within_its_range():
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for entry in (entry for group in groups.values() for entry in group):
        requirement = Requirement(entry)
        if requirement.name == PROJECT["name"]:
            assert requirement.extras <= set(groups)
            continue
        assert canonicalize_name(requirement.name) in pins(), f"{entry} is not in constraints.txt"
        release = pins()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(release), f"{entry} excludes the pin {release}"


def test_environment_yml_installs_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (nested,) = (entry for entry in environment["dependencies"] if isinstance(entry, dict))
    conda = [Requirement(entry) for entry in environment["dependencies"] if entry is not nested]
    assert {requirement.name for requirement in conda} == {"python", "pip"}
    assert conda[0].specifier == SpecifierSet(PROJECT["requires-python"])
    options, project = nested["pip"]
    assert options == "-c constraints.txt"
    (extras,) = re.fullmatch(r"-e \.\[([\w,]+)\]", project).groups()
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    makefile = (ROOT / "Makefile").read_text()
    (installed,) = re.findall(r"-c constraints\.txt -e '\.\[([\w,]+)\]'", makefile)
    assert set(installed.split(",")) <= set(extras.split(","))


def test_the_commit_hooks_use_the_pinned_versions():
    (group,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for requirement in (pin for hook in group["hooks"] for pin in hook["additional_dependencies"]):
        name, release = requirement.split("==")
        assert pins()[name] == release


def test_the_makefile_accepts_the_pythons_of_pyproject():
    low, high = re.findall(r"\((3, \d+)\)", (ROOT / "Makefile").read_text())
    bounds = f">={low.replace(', ', '.')},<{high.replace(', ', '.')}"
    assert SpecifierSet(bounds) == SpecifierSet(PROJECT["requires-python"])


# --- files ------------------------------------------------------------------------------------


def test_no_path_of_a_machine_is_in_a_tracked_file():
    place = re.compile(r"(?<![\w.])/(?:root|work|opt|home/\w+|Users/\w+)/[\w.]")
    found = [name for name, text in tracked_texts().items() if place.search(text)]
    assert [name for name in found if name != "tests/test_project.py"] == []


def test_every_data_file_is_shipped_in_the_wheel():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    shipped = {
        path
        for package, patterns in globs["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package).glob(pattern)
    }
    tracked = [ROOT / name for name in tracked_names() if name.startswith(tuple(PACKAGES))]
    data = {path for path in tracked if path.suffix != ".py" and path.exists()}
    assert sorted(path.name for path in data - shipped) == []


def folders_of_the_readme() -> set[str]:
    """The folders that README's map names, each by its whole path."""
    blocks = re.findall(r"^```text\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.S | re.M)
    (chart,) = (block for block in blocks if block.startswith("labkit/"))
    above: list[tuple[int, str]] = []
    named = set()
    for line in chart.splitlines():
        depth = len(line) - len(line.lstrip())
        above = [entry for entry in above if entry[0] < depth]
        above.append((depth, line.split()[0].rstrip("/")))
        named.add("/".join(name for _, name in above))
    return named


def test_the_map_of_the_readme_names_every_folder_and_no_other():
    packages = {(ROOT / path).parent.relative_to(ROOT).as_posix() for path in sources()}
    assert folders_of_the_readme() == packages | {"notebooks", "tests"}
