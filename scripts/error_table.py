# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference/errors.md from errors/, the two HTTP tables and the table of exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from skerry import errors
from skerry.cli.exit_codes import exit_code
from skerry.hub.api.status import REACHABLE, http_status
from skerry.serve.status import status_of

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "errors.md"

HEAD = """# Error codes

Made by `python scripts/error_table.py`; a test fails when it is out of date. A code is never reused or renumbered.

- On the command line an error is one line with its code and, below it, what to do; with `-o json` it is an object.
- The hub answers `{"code", "message", "hint", "fields"}` with the status below; a runner answers `{"error", "code"}`, the
  text where the Open Inference Protocol wants it.
- `{word}` in a message stands for a fact of the case; in JSON it is a field of that name.
- No status means that the error never leaves over HTTP: should one reach that far, the hub answers SKY-5011.
"""

COLUMNS = "| code | message | HTTP | exit | what to do |\n|---|---|---|---|---|"


def tree(root: type[errors.SkerryError]) -> Iterator[type[errors.SkerryError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def status(kind: type[errors.SkerryError]) -> str:
    if issubclass(kind, errors.ServeError):
        return str(int(status_of(kind.__new__(kind))))
    return str(http_status(kind.__new__(kind))) if issubclass(kind, REACHABLE) else ""


def row(kind: type[errors.SkerryError]) -> str:
    message = " ".join(kind.template.replace("|", "\\|").split("\n"))  # a table's row is one line
    advice = kind.advice.replace("|", "\\|")
    exits = int(exit_code(kind.__new__(kind)))
    return f"| {kind.code} {kind.__name__} | {message} | {status(kind)} | {exits} | {advice} |"


def render() -> str:
    parts = [HEAD]
    for branch in errors.SkerryError.__subclasses__():
        rows = "\n".join(row(kind) for kind in sorted(tree(branch), key=lambda kind: kind.code))
        parts.append(f"## {branch.code[:5]}xxx {branch.__name__}\n\n{COLUMNS}\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"wrote {PAGE}")
