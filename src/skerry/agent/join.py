# SPDX-License-Identifier: Apache-2.0
"""Enrolment: once per state folder, and safe to try again after a crash at any point.

Order: key, then the hub's answer, then factory root and floors, then device.json. Only device.json makes a folder enrolled;
a second try before that uses the same key, so the hub can tell a retry from a stranger.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from skerry.agent import transport
from skerry.agent.identity import ensure_identity
from skerry.agent.state import Device, Layout, load_device, save_device
from skerry.effects import Clock, Files, Http
from skerry.errors import AlreadyEnrolled, CatalogueRefused
from skerry.trust import ceremony, floors
from skerry.trust.metadata import CatalogueRefusal
from skerry.wire.v1.device import Capabilities, EnrolRequest


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    hub: str
    token: str
    name: str
    labels: dict[str, str] = {}
    ca_file: str = ""


def join(
    state: Path, request: JoinRequest, *, files: Files, http: Http, clock: Clock, capabilities: Capabilities
) -> Device:
    """Raises AlreadyEnrolled, EnrolmentRefused, RoadError, DeviceError, and CatalogueRefused for a hub without a real root."""
    layout = Layout(state)
    if files.read(layout.device) is not None:
        raise AlreadyEnrolled(state=str(state), device=load_device(files, layout).device_id)
    hub = request.hub.rstrip("/")
    identity = ensure_identity(files, layout.key)
    reply = transport.enrol(
        http,
        hub,
        EnrolRequest(
            token=request.token,
            name=request.name,
            public_key=identity.public_key,
            capabilities=capabilities,
            labels=request.labels,
        ),
    )
    _require_root(reply.factory_root)
    files.write(layout.factory_root, reply.factory_root)
    if files.read(layout.floors) is None:
        floors.save(files, layout.floors, floors.Floors())
    device = Device(
        device_id=reply.device_id,
        name=request.name,
        hub=hub,
        audience=reply.audience,
        poll_seconds=reply.poll_seconds,
        ca_file=request.ca_file,
        joined=clock.now(),
    )
    save_device(files, layout, device)
    return device


def _require_root(root: bytes) -> None:
    """Whose root it is, only the road to the hub can vouch for; but a folder must not be enrolled for good to one that is none."""
    missing = ceremony.root_status(root).missing
    if missing:
        detail = f"the root this hub gives its devices lacks {missing} signature(s)"
        raise CatalogueRefused(reason=CatalogueRefusal.UNSIGNED, detail=detail)
