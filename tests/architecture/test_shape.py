# SPDX-License-Identifier: Apache-2.0
"""The house rules that are counted, not argued: sizes, names, licence lines. A limit may only go down."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A migration is a frozen record of one schema change, generated and never edited again: length says nothing about it.
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if "migrations/versions" not in str(path))
EVERYTHING = [
    path
    for folder in ("src", "tests", "benchmarks", "scripts", "conformance")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
MODULE_LINES = 500
FUNCTION_LINES = 60
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "core", "manager", "managers"}
BROAD_HANDLERS_SHARE = 0.05


def functions(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= MODULE_LINES
    long = [
        (f.name, f.end_lineno - f.lineno + 1)
        for f in functions(ast.parse(text))
        if f.end_lineno - f.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_the_median_function_is_short():
    lengths = sorted(f.end_lineno - f.lineno + 1 for path in SOURCES for f in functions(ast.parse(path.read_text())))
    assert lengths[len(lengths) // 2] < 12


def test_no_dumping_grounds():
    bad = [
        path
        for path in EVERYTHING
        if {part.removesuffix(".py") for part in path.relative_to(ROOT).parts} & FORBIDDEN_NAMES
    ]
    assert bad == []


def test_every_file_says_its_licence():
    bad = [
        path
        for path in EVERYTHING
        if path.stat().st_size and not path.read_text().startswith(("# SPDX-License-Identifier: Apache-2.0\n", "#!"))
    ]
    assert bad == []


def test_packages_are_not_empty_rooms():
    rooms = [path.parent for path in SOURCES if path.name == "__init__.py"]
    empty = [room for room in rooms if {child.name for child in room.iterdir()} <= {"__init__.py", "__pycache__"}]
    assert empty == []


def broad(handler):
    names = [handler.type] if not isinstance(handler.type, ast.Tuple) else handler.type.elts
    return handler.type is None or any(getattr(name, "id", "") in {"Exception", "BaseException"} for name in names)


def test_broad_handlers_are_rare():
    handlers = [
        node
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
    ]
    assert sum(map(broad, handlers)) <= max(1, BROAD_HANDLERS_SHARE * len(handlers))


def test_tests_do_not_sleep():
    sleeping = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "sleep"
        and getattr(node.func.value, "id", "") in {"time", "asyncio", "anyio"}
    ]
    assert sleeping == []


def test_logging_is_lazy():
    eager = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"debug", "info", "warning", "error", "exception"}
        and node.args
        and isinstance(node.args[0], ast.JoinedStr)
        and "log" in getattr(node.func.value, "id", "").lower()
    ]
    assert eager == []
