# SPDX-License-Identifier: Apache-2.0
"""What probes and Prometheus ask, without credentials: nothing here names a device, a person or a model."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency
from msgspec import Struct

from skerry.hub.api.metrics import Meter
from skerry.hub.services.overview import Overview
from skerry.observe.exposition import CONTENT_TYPE, render


class Condition(Struct, frozen=True, kw_only=True):
    status: str


@get("/healthz", tags=["system"])
async def healthz() -> Condition:
    """The process answers."""
    return Condition(status="ok")


@get("/readyz", tags=["system"])
async def readyz(overview: NamedDependency[Overview]) -> Condition:
    """The process can do its work: its database answers too. 503 otherwise."""
    await overview.ready()
    return Condition(status="ok")


@get("/metrics", tags=["system"], media_type="text/plain")
async def metrics(overview: NamedDependency[Overview], meter: NamedDependency[Meter]) -> Response[bytes]:
    """Prometheus text format."""
    families = (*await overview.families(), *meter.families())
    return Response(content=render(families), headers={"content-type": CONTENT_TYPE})


HANDLERS = (healthz, readyz, metrics)
