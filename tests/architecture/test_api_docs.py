# SPDX-License-Identifier: Apache-2.0
"""The two API pages against the routes and the permission table the hub really has."""

from __future__ import annotations

import re
from pathlib import Path

from litestar.routes import HTTPRoute

from skerry.hub.api import governance, inventory, publishing, rollouts
from skerry.hub.api.device import device_router
from skerry.hub.services.access import LEAST_ROLE

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def rows(page, *, with_role=False):
    """(role, method, path) of every table row; an empty first column continues the role above."""
    role = ""
    for line in (REFERENCE / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) < 4:
            continue
        role = cells[0] or role
        methods, paths = (cells[1], cells[2]) if with_role else (cells[0], cells[1])
        for method in re.findall(r"[A-Z]{3,6}", methods):
            for path in re.findall(r"`(/[^`?]*)[^`]*`", paths):
                yield role, method, path


def plain(path):
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


def test_operator_page_lists_every_route_under_its_least_role():
    handlers = (*inventory.HANDLERS, *publishing.HANDLERS, *rollouts.HANDLERS, *governance.HANDLERS)
    real = {
        (LEAST_ROLE[handler.opt["action"]].value, str(method), plain(path))
        for handler in handlers
        for method in handler.http_methods
        for path in handler.paths
    }
    assert set(rows("operator-api.md", with_role=True)) == real


def test_device_page_lists_every_route():
    async def gate(_connection, _handler):
        """Never called."""

    router = device_router(gate)
    real = {
        (str(method), plain(route.path.removeprefix("/device/v1")))
        for route in router.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method != "OPTIONS"
    }
    assert {(method, path) for _, method, path in rows("device-api.md")} == real
