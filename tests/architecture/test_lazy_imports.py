# SPDX-License-Identifier: Apache-2.0
"""Imports stand at the top of a module. The exceptions are the lazy command line and declared extras, named here one by one."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "skerry"

# file -> what it may import inside a function, and why.
ALLOWED = {
    "serve/http2.py": {  # protobuf and hpack only where a client speaks gRPC
        "skerry.serve.grpc.connection",
        "skerry.serve.grpc.logged",
        "skerry.serve.grpc.service",
    },
    "cli/main.py": {"skerry.cli.program"},  # help and version are answered before click is loaded
    "cli/world.py": {"skerry.effects.http"},  # urllib3 only for verbs that talk to a hub
    "cli/render.py": {"ruamel.yaml"},  # only for the form of output asked for
    "cli/bench.py": {"rich.console", "rich.progress"},  # only on a terminal
    "cli/progress.py": {"rich.console", "rich.progress"},  # only on a terminal
    "cli/rollout_watch.py": {"rich.console", "rich.live", "rich.text"},  # only on a terminal
    "cli/describe.py": {"skerry.cli.describe_remote"},  # a file on disk needs no hub client
    "cli/evidence.py": {  # after a stand-in for what its own import would spend a second on
        "cyclonedx.exception",
        "cyclonedx.schema",
        "cyclonedx.validation.json",
    },
    "cli/verify.py": {
        "skerry.runtime.engine",
        "skerry.runtime.engines",
        "skerry.runtime.sequences",
        "skerry.runtime.selftest",
    },  # an engine is an extra; checking digests needs none
    "cli/top.py": {"rich.console", "rich.live", "rich.text"},  # only on a terminal
    "runner/app.py": {"skerry.runner"},  # the trial of a new version, which few runners have and which brings a client
    "cli/up.py": {"skerry.hub.app"},  # the hub is an extra, and its help needs none of it
    "cli/demo/__init__.py": {  # the table of verbs loads this package; its help needs none of the demo's machinery
        "msgspec",
        "skerry.cli.demo.narrator",
        "skerry.cli.demo.report",
        "skerry.cli.demo.story",
        "skerry.effects.disk",
    },
}


def lazy_imports(path):
    tree = ast.parse(path.read_text())
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom):
                    yield node.module or ""
                elif isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_inside_functions_are_declared(path):
    allowed = ALLOWED.get(str(path.relative_to(SOURCE)), set())
    assert set(lazy_imports(path)) <= allowed


@pytest.mark.parametrize("name", ALLOWED)
def test_the_list_has_no_leftovers(name):
    path = SOURCE / name
    assert path.exists()
    assert set(lazy_imports(path)) == ALLOWED[name]


def test_a_lazy_import_is_seen(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    import os.path\n    from a.b import c\nasync def g():\n    import x\n")
    assert set(lazy_imports(path)) == {"os.path", "a.b", "x"}
