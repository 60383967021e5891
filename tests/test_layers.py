"""The house rules that can be read off the source: who imports whom, how long things are, what has words and tests.

Each rule is a list of what breaks it, so that a failure shows every place.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("words", "rules", "broker", "world", "wiring")
PURE = ("words", "rules", "broker")
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
# The pure rooms take time as an argument, and never wait, write or log.
IMPURE = {
    "asyncio",
    "uvloop",
    "os",
    "socket",
    "ssl",
    "select",
    "selectors",
    "time",
    "logging",
    "threading",
    "subprocess",
}
# Outside the standard library, by room; what is above may use what is below.
THIRD_PARTY = {
    "words": set[str](),
    "rules": {"hiredis", "isal"},
    "broker": {"hiredis", "isal"},
    "world": {"hiredis", "isal", "uvloop", "structlog"},
    "wiring": {"hiredis", "isal", "uvloop", "aiofiles", "click", "rich", "tomlkit", "busd_client", "structlog"},
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SOURCES = sorted((ROOT / "busd").rglob("*.py"))
CLIENT = sorted((ROOT / "clients" / "python").rglob("*.py"))


def tree_of(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(), str(path))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every module imported anywhere in a file, with the line; relative imports are not used here."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            # `from busd.rules import record` names a module behind the word import.
            yield from ((node.lineno, f"{module}.{name.name}" if module == "busd" else module) for name in node.names)


def where(path: Path, line: int, what: str) -> str:
    """A line for a report."""
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def report(wrong: list[str]) -> str:
    """All places, one a line."""
    return "\n".join(["", *wrong])


def in_rooms(*rooms: str) -> list[Path]:
    """The files of these rooms."""
    return [path for path in SOURCES if path.parent.name in rooms]


def test_there_are_sources_in_every_room() -> None:
    assert [room for room in ROOMS if len(in_rooms(room)) < 2] == []
    assert len(CLIENT) > 5


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    below = {"busd", *(f"busd.{name}" for name in ROOMS[: ROOMS.index(room) + 1])}
    wrong = [
        where(path, line, f"{room} imports {module}")
        for path in in_rooms(room)
        for line, module in imports_of(path)
        if module.split(".")[0] == "busd"
        and module != "busd.__version__"
        and ".".join(module.split(".")[:2]) not in below
    ]
    assert not wrong, report(wrong)


def test_pure_rooms_know_no_world() -> None:
    wrong = [
        where(path, line, f"imports {module}")
        for path in in_rooms(*PURE)
        for line, module in imports_of(path)
        if module.split(".")[0] in IMPURE
    ]
    assert not wrong, report(wrong)


def is_stranger(room: str, module: str) -> bool:
    """True where a room may not import this, because it is neither of the standard library nor the room's to use."""
    package = module.split(".")[0]
    return package != "busd" and package not in sys.stdlib_module_names and package not in THIRD_PARTY[room]


@pytest.mark.parametrize("room", ROOMS)
def test_third_parties_stay_where_they_belong(room: str) -> None:
    wrong = [
        where(path, line, f"{room} imports {module}")
        for path in in_rooms(room)
        for line, module in imports_of(path)
        if is_stranger(room, module)
    ]
    assert not wrong, report(wrong)


def test_what_is_nobodys_or_anothers_is_a_stranger() -> None:
    assert is_stranger("words", "isal")
    assert is_stranger("words", "isal.isal_zlib")
    assert is_stranger("broker", "uvloop")
    assert is_stranger("wiring", "numpy")
    assert not is_stranger("rules", "isal")
    assert not is_stranger("words", "collections.abc")


def test_what_is_depended_on_is_used_and_belongs_somewhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    depended = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    assert depended | {"busd_client"} == THIRD_PARTY["wiring"]
    used = {module.split(".")[0] for path in SOURCES for _, module in imports_of(path)}
    assert depended - used == set()


def test_a_program_can_carry_the_python_client_alone() -> None:
    """The client may share the pure rooms of busd, never the server."""
    wrong = [
        where(path, line, f"imports {module}")
        for path in CLIENT
        for line, module in imports_of(path)
        if module.startswith(("busd.broker", "busd.world", "busd.wiring"))
    ]
    assert not wrong, report(wrong)


def test_files_are_short() -> None:
    lengths = {path: path.read_text().count("\n") for path in SOURCES + CLIENT}
    wrong = [where(path, length, "lines") for path, length in lengths.items() if length > MAX_LINES]
    assert not wrong, report(wrong)


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    last = function.end_lineno or function.lineno
    first = function.body[0]
    docstring = 0
    if ast.get_docstring(function, clean=False) is not None:
        docstring = (first.end_lineno or first.lineno) - first.lineno + 1
    return last - function.lineno + 1 - docstring


def test_functions_are_short() -> None:
    wrong = [
        where(path, node.lineno, f"{node.name} has {length_of(node)} lines")
        for path in SOURCES + CLIENT
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length_of(node) > MAX_FUNCTION_LINES
    ]
    assert not wrong, report(wrong)


def public_definitions(tree: ast.Module | ast.ClassDef, inside: str = "") -> Iterator[tuple[str, Definition]]:
    """Public functions and classes of a file, and what is public in them.

    A method that overrides one of a base class has its words there, unless the base is a plain object.
    """
    inherits = isinstance(tree, ast.ClassDef) and any(
        name not in ("Protocol", "Generic", "Enum", "NamedTuple", "Exception") for name in map(ast.unparse, tree.bases)
    )
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        if not (inherits and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield inside + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node, f"{inside}{node.name}.")


def test_everything_public_has_words() -> None:
    wrong = [where(path, 1, "no docstring") for path in SOURCES + CLIENT if ast.get_docstring(tree_of(path)) is None]
    wrong += [
        where(path, node.lineno, f"{name} has no docstring")
        for path in SOURCES + CLIENT
        for name, node in public_definitions(tree_of(path))
        if ast.get_docstring(node) is None
    ]
    assert not wrong, report(wrong)


def has_code(path: Path) -> bool:
    """True when a function of the file does something; interfaces have words only."""
    functions = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(len(one.body) > (ast.get_docstring(one) is not None) for one in functions)


def subject_of(name: str, modules: set[str]) -> str:
    """The module a test file is about: that of test_log.py and test_log_order.py is log, unless log_order is one."""
    words = name.removeprefix("test_").split("_")
    return next((stem for n in range(len(words), 0, -1) if (stem := "_".join(words[:n])) in modules), "")


def test_each_pure_module_has_its_tests() -> None:
    modules = {path.stem: path for path in in_rooms(*PURE) if has_code(path)}
    have = {subject_of(path.stem, set(modules)) for path in (ROOT / "tests" / "unit").glob("test_*.py")}
    wrong = [
        f"tests/unit/test_{stem}.py is missing ({path.relative_to(ROOT)})"
        for stem, path in modules.items()
        if stem not in have
    ]
    assert not wrong, report(wrong)


def test_unit_tests_do_not_wait() -> None:
    wrong = [
        where(path, node.lineno, "sleeps")
        for path in sorted((ROOT / "tests" / "unit").rglob("*.py"))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    ]
    assert not wrong, report(wrong)
