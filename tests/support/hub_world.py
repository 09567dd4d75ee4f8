# SPDX-License-Identifier: Apache-2.0
"""A whole hub in this process: real routes, real services, real SQLite; only the clock is ours."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from httpx import ASGITransport, AsyncClient, Response
from litestar import Litestar

from skerry.bundle.blob import content
from skerry.bundle.oci import Bundle
from skerry.effects.disk import DiskFiles
from skerry.effects.system import SystemEntropy
from skerry.hub.app import Hub, HubConfig, create_app, open_hub
from skerry.testing.clock import VirtualClock
from skerry.trust import folder, publish
from skerry.trust.decision import CatalogueEntry
from skerry.trust.keyfile import read_private
from skerry.wire.v1.device import CLIENT_ASSERTION_TYPE, target_path
from skerry.wire.v1.operator import Role

LINE = "vision"
CAPABILITIES = {"arch": "x86_64", "cpus": 2, "memory_mib": 512}
NOW = VirtualClock().now()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


HEADER = b64url(b'{"alg":"EdDSA"}')


def make_trust(where: Path) -> Path:
    """Demo trust with one line; the folder a hub gets is `where/online`."""
    folder.make(
        where,
        folder.demo_plan((LINE,)),
        passphrases=folder.Passphrases(offline=None, online=None),
        files=DiskFiles(),
        now=NOW,
    )
    return where


class Device:
    """A device made by hand, so that it may also do what no agent would."""

    def __init__(self, world: World, device_id: str, key: Ed25519PrivateKey, audience: str) -> None:
        self.world = world
        self.id = device_id
        self.key = key
        self.audience = audience
        self.access = ""

    def assertion(self, *, jti: str | None = None, **claims: Any) -> str:
        now = self.world.clock.now()
        body = {
            "iss": self.id,
            "sub": self.id,
            "aud": self.audience,
            "exp": now + 120,
            "iat": now,
            "jti": self.world.unique() if jti is None else jti,
            **claims,
        }
        text = f"{HEADER}.{b64url(json.dumps(body).encode())}"
        return f"{text}.{b64url(self.key.sign(text.encode()))}"

    async def ask_token(self, assertion: str | None = None, **form: str) -> Response:
        body = {
            "grant_type": "client_credentials",
            "client_assertion_type": CLIENT_ASSERTION_TYPE,
            "client_assertion": self.assertion() if assertion is None else assertion,
            **form,
        }
        return await self.world.client.post("/device/v1/token", data=body)

    async def login(self) -> Device:
        reply = await self.ask_token()
        assert reply.status_code == 200, reply.text
        self.access = reply.json()["access_token"]
        return self

    async def call(self, method: str, path: str, **more: Any) -> Response:
        headers = {"authorization": f"Bearer {self.access}", **more.pop("headers", {})}
        return await self.world.client.request(method, f"/device/v1/{path}", headers=headers, **more)

    async def report(self, *bodies: dict[str, Any], first: int = 1) -> Response:
        reports = [{"seq": first + index, "at": NOW, "body": body} for index, body in enumerate(bodies)]
        return await self.call("POST", "reports", json={"reports": reports})


class World:
    def __init__(self, hub: Hub, app: Litestar, client: AsyncClient, clock: VirtualClock, keys: Path) -> None:
        self.hub = hub
        self.app = app
        self.client = client
        self.clock = clock
        self.keys = keys
        self.admin = hub.first_admin.token if hub.first_admin is not None else ""

    def unique(self) -> str:
        return secrets.token_hex(8)

    async def call(self, method: str, path: str, *, token: str | None = None, **more: Any) -> Response:
        """As the administrator, unless another token is given; an empty one sends none."""
        token = self.admin if token is None else token
        headers = {**({"authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        return await self.client.request(method, f"/api/v1/{path}", headers=headers, **more)

    async def user(self, role: Role, name: str | None = None) -> str:
        reply = await self.call("POST", "users", json={"name": name or f"{role}-{self.unique()}", "role": role})
        assert reply.status_code == 201, reply.text
        return str(reply.json()["token"])

    async def enrolment_token(self, **request: Any) -> str:
        reply = await self.call("POST", "enrolment-tokens", json=request)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["token"])

    async def try_enrol(self, **changes: Any) -> Response:
        key = Ed25519PrivateKey.generate()
        request = {"name": "cam", "public_key": b64(key.public_key().public_bytes_raw()), "capabilities": CAPABILITIES}
        return await self.client.post("/device/v1/enroll", json={**request, **changes})

    async def device(self, name: str = "cam", **labels: str) -> Device:
        """Enrolled, with an access token."""
        key = Ed25519PrivateKey.generate()
        reply = await self.try_enrol(
            token=await self.enrolment_token(labels=labels),
            name=name,
            public_key=b64(key.public_key().public_bytes_raw()),
        )
        assert reply.status_code == 201, reply.text
        body = reply.json()
        return await Device(self, body["device_id"], key, body["audience"]).login()

    async def upload(self, bundle: Bundle, *, leave_out: str = "") -> None:
        blobs = {bundle.digest: bundle.manifest.data}
        blobs |= {digest: content(blob) for digest, blob in bundle.blobs.items()}
        for digest, data in blobs.items():
            if digest != leave_out:
                reply = await self.call("PUT", f"blobs/{digest}", content=data)
                assert reply.status_code == 201, reply.text

    def entry(self, bundle: Bundle, **changes: Any) -> CatalogueEntry:
        config = bundle.config
        facts = {
            "target": target_path(config.line, config.name, config.version),
            "digest": bundle.digest,
            "size": len(bundle.manifest.data),
            "line": config.line,
            "model": config.name,
            "version": config.version,
            "release_seq": config.release_seq,
            "floor_seq": config.floor_seq,
        }
        return CatalogueEntry(**{**facts, **changes})

    async def signed_release(self, entry: CatalogueEntry, *, key: Ed25519PrivateKey | None = None) -> bytes:
        """The next version of the release role, signed offline."""
        current = await self.call("GET", f"catalogue/roles/line-{entry.line}")
        assert current.status_code == 200, current.text
        signer = key or read_private(self.keys / f"line-{LINE}.pem", passphrase=None, allow_plain=True)
        expires = self.clock.now() + publish.LINE_LIFETIME
        return publish.add_release(current.content, entry, keys=(signer,), expires=expires)

    async def publish(self, bundle: Bundle) -> CatalogueEntry:
        entry = self.entry(bundle)
        await self.upload(bundle)
        reply = await self.call("POST", f"catalogue/roles/line-{entry.line}", content=await self.signed_release(entry))
        assert reply.status_code == 204, reply.text
        return entry

    async def audit(self) -> list[dict[str, Any]]:
        reply = await self.call("GET", "audit?limit=1000")
        items: list[dict[str, Any]] = reply.json()["items"]
        return items


Scene = Callable[[World], Awaitable[None]]


def play(scene: Scene, tmp_path: Path, keys: Path, **config: Any) -> None:
    """Open a hub in `tmp_path` (again, if it was there) and let `scene` happen in it."""

    async def run() -> None:
        clock = VirtualClock()
        settings = HubConfig(data=tmp_path, trust=keys / "online", **config)
        hub = await open_hub(settings, clock=clock, entropy=SystemEntropy())
        app = create_app(hub)
        transport = ASGITransport(app)  # type: ignore[arg-type]  # Litestar types ASGI messages more strictly
        async with app.lifespan(), AsyncClient(transport=transport, base_url="http://hub") as client:
            await scene(World(hub, app, client, clock, keys))

    asyncio.run(run())
