"""The house: no circles of imports, no function that hides its module, doors that open."""

import ast
import importlib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("labkit", "probes", "editing")


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name; a package is its `__init__.py`."""
    found = {}
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_for_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(node: ast.AST):
    """All import statements below a node, in functions too, without those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not is_for_checkers(child):
            yield from imports(child)


@cache
def door(package: str) -> dict[str, str]:
    """The modules behind the names that a package hands on."""
    tree = ast.parse(modules()[package].read_text(encoding="utf-8"))
    return {
        alias.name: str(node.module)
        for block in tree.body
        if is_for_checkers(block)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def imported(module: str) -> set[str]:
    """The modules of the project that one imports; a name behind a door counts where it lives."""
    found = set()
    for node in imports(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if inner in modules():
                found.add(inner)
            elif node.module in modules():
                behind = door(node.module) if modules()[node.module].stem == "__init__" else {}
                found.add(behind.get(alias.name, node.module))
    return {name for name in found if name in modules()} - {module}


@cache
def graph() -> dict[str, set[str]]:
    return {module: imported(module) for module in modules()}


def room(module: str) -> str:
    """The folder that a module lies in; the files at a package's top are rooms of their own."""
    path = modules()[module]
    folder = path.parent.relative_to(ROOT)
    return module if len(folder.parts) == 1 else folder.as_posix()


def assert_no_circle(arrows: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail("a circle of imports: " + " -> ".join(reversed(error.args[1])))


def test_no_circle_between_files():
    assert_no_circle(graph())


def test_no_circle_between_rooms():
    arrows: dict[str, set[str]] = {}
    for module, targets in graph().items():
        arrows.setdefault(room(module), set()).update(room(target) for target in targets)
    assert_no_circle({name: targets - {name} for name, targets in arrows.items()})


def test_a_circle_is_found():
    with pytest.raises(pytest.fail.Exception, match="a -> b -> a|b -> a -> b"):
        assert_no_circle({"a": {"b"}, "b": {"a"}})


def test_no_function_hides_its_module():
    hiding = [
        module
        for module, path in modules().items()
        # A command is named for its function and lies in the file of its family.
        if not module.startswith("labkit.cli.")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == path.stem
    ]
    assert hiding == []


MOST = 7
"""Parameters that a person can keep apart; more go into a frozen configuration."""


def is_command(node: ast.FunctionDef) -> bool:
    """Whether it is a command: its parameters are options of the command line."""
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


def functions(node: ast.AST, prefix: str):
    """Functions and methods with their dotted names; those inside functions are nobody's."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}.{child.name}", child
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, f"{prefix}.{child.name}")
        elif isinstance(child, ast.If | ast.Try):
            yield from functions(child, prefix)


def too_many(source: str, module: str) -> dict[str, int]:
    """The public functions of a module that take more than `MOST` parameters, self aside."""
    found = {}
    for name, node in functions(ast.parse(source), module):
        parts = name.removeprefix(f"{module}.").split(".")
        public = not any(part.startswith("_") and part not in CALLED for part in parts)
        told = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        n = len([argument for argument in told if argument.arg not in ("self", "cls")])
        if public and n > MOST and not is_command(node):
            found[name] = n
    return found


CALLED = ("__call__", "__init__")


def test_no_public_function_takes_more_parameters_than_a_person_can_keep_apart():
    found = {}
    for module, path in modules().items():
        found |= too_many(path.read_text(encoding="utf-8"), module)
    assert found == {}


def test_long_lists_of_parameters_are_found():
    names = ", ".join("abcdefg")
    for source, found in (
        (f"def f({names}): ...", {}),
        (f"def f({names}, *, h): ...", {"m.f": 8}),
        (f"def _f({names}, h): ...", {}),
        (f"@command(app)\ndef f({names}, h): ...", {}),
        (f"class A:\n def f(self, {names}): ...", {}),
        (f"class A:\n def __call__(self, {names}, h): ...", {"m.A.__call__": 8}),
        (f"class _A:\n def f(self, {names}, h): ...", {}),
        (f"def f(a):\n def g({names}, h): ...", {}),
    ):
        assert too_many(source, "m") == found


@pytest.mark.parametrize(
    "package", [name for name, path in sorted(modules().items()) if path.stem == "__init__"]
)
def test_every_door_opens(package):
    names = door(package)
    assert not {name for name in names if f"{package}.{name}" in modules()}, "a name hides a module"
    opened = importlib.import_module(package)
    for name, home in names.items():
        assert getattr(opened, name) is getattr(importlib.import_module(home), name)
        assert name in dir(opened)
    if names:
        assert sorted(names) == opened.__all__


def test_nobody_reaches_past_a_door_for_a_private_name():
    reaching = [
        f"{module}: {node.module}.{alias.name}"
        for module, path in modules().items()
        for node in imports(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in modules()
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert reaching == []


def test_folders_and_files_keep_their_size():
    """A folder that lists more, or a file that runs longer, is asking to be two."""
    crowded = {}
    for path in modules().values():
        crowded.setdefault(path.parent, []).append(path)
    assert {
        folder.relative_to(ROOT).as_posix(): len(paths)
        for folder, paths in crowded.items()
        if len(paths) > 17
    } == {}
    long = {
        path.relative_to(ROOT).as_posix(): n
        for path in modules().values()
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}
