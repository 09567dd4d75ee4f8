# SPDX-License-Identifier: Apache-2.0
"""Every relative link in our documents leads somewhere, and every page can be found from the README."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


def test_architecture_names_only_files_that_are_there():
    table = (ROOT / "ARCHITECTURE.md").read_text().partition("## Where each concept lives")[2].partition("## Layers")[0]
    assert [path for path in named_files(table) if not (ROOT / "src" / "skerry" / path).exists()] == []


def named_files(table: str) -> list[str]:
    """Paths in backquotes, with `{a,b}` spelled out; single words are not paths."""
    paths = []
    for path in re.findall(r"`([a-z_/0-9]+(?:\{[a-z_,]+\})?[a-z_/0-9]*(?:\.py)?)`", table):
        stem, _, rest = path.partition("{")
        names, _, suffix = rest.partition("}")
        paths += [f"{stem}{name}{suffix}" for name in names.split(",")] if rest else [path]
    return [path for path in paths if "/" in path]
