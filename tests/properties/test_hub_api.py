# SPDX-License-Identifier: Apache-2.0
"""Whatever anybody sends to any route, the hub answers in its one shape and never fails itself.

Requests are made from the OpenAPI document the hub serves: bodies that fit their schema, bodies that nearly do, and nonsense.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from httpx import ASGITransport, AsyncClient, Response
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from contracts.store.private_postgres import binaries, private_postgres
from skerry.effects.system import SystemEntropy
from skerry.hub.app import HubConfig, create_app, open_hub
from skerry.testing.clock import VirtualClock
from skerry.wire.v1.report import Body
from support.bundles import bundle
from support.hub_world import Device, World, make_trust

EXAMPLES = 400
ENDS_IT = {
    ("POST", "/api/v1/devices/{device_id}/revoke"),
    ("DELETE", "/api/v1/devices/{device_id}"),
    ("DELETE", "/api/v1/users/{name}"),
}
"""What would leave the examples after it without credentials."""


class Running:
    """A hub with something in it, kept over all examples by a thread of its own."""

    def __init__(self, folder: Path, database: str) -> None:
        self._keys = make_trust(folder / "trust")
        self._config = HubConfig(data=folder, trust=self._keys / "online", database=database, controller_seconds=0.05)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._live(),))
        self._thread.start()
        assert self._ready.wait(30)

    async def _live(self) -> None:
        self._loop, self._stop, clock = asyncio.get_running_loop(), asyncio.Event(), VirtualClock()
        try:
            hub = await open_hub(self._config, clock=clock, entropy=SystemEntropy())
            app = create_app(hub)
            transport = ASGITransport(app)  # type: ignore[arg-type]  # Litestar types ASGI messages more strictly
            async with app.lifespan(), AsyncClient(transport=transport, base_url="http://hub") as client:
                await self._fill(World(hub, app, client, clock, self._keys))
                self._ready.set()
                await self._stop.wait()
        finally:
            self._ready.set()

    async def _fill(self, world: World) -> None:
        self.world = world
        await world.publish(bundle())
        self.device: Device = await world.device()
        self.schema: dict[str, Any] = (await world.client.get("/schema/openapi.json")).json()
        self.reported = 0
        self.names = [self.device.id, bundle().digest, "north", "admin", "vision", "digits", "line-vision", "targets"]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def operations(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (method.upper(), path, described)
            for path, methods in self.schema["paths"].items()
            for method, described in methods.items()
        ]

    def ask(self, method: str, path: str, **more: Any) -> Response:
        token = self.device.access if path.startswith("/device") else self.world.admin
        self.world.clock.advance(0.001)
        headers = {"authorization": f"Bearer {token}", **more.pop("headers", {})}
        asked = self.world.client.request(method, path, headers=headers, **more)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(30)


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])]
)
def running(request, tmp_path_factory):
    with ExitStack() as stack:
        database = ""
        if request.param == "postgres":
            place = binaries()
            if place is None:
                pytest.skip("no PostgreSQL server binaries (apt install postgresql-15)")
            database = stack.enter_context(private_postgres(place)).database()
        made = Running(tmp_path_factory.mktemp("hub"), database)
        stack.callback(made.close)
        yield made


TEXT = st.text(max_size=30) | st.sampled_from(
    ["\0", "a\0b", "..", "../x", "%00", "\u2028", "\U0001f600", "a" * 300, ""]
)
NUMBER = st.integers() | st.floats() | st.sampled_from([2**53, 2**63, 2**64, -1, 0, 1e308, 1e-320])
SCALAR = TEXT | NUMBER | st.none() | st.booleans()
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    "string": TEXT | st.sampled_from(["north", "site", "digits:1.0.0", "sorter", "cam"]),
    "integer": st.integers() | st.sampled_from([0, 1, 2, 2**53, 2**64]),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    "boolean": st.booleans(),
}
DEEPEST = 8


class Shapes:
    """Values that nearly fit a JSON schema: of the right shape, with numbers and words nobody expects."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        self._schemas = schemas

    def of(self, schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
        choices = schema.get("oneOf") or schema.get("anyOf")
        if "$ref" in schema:
            return self.of(self._schemas[schema["$ref"].rpartition("/")[2]], depth)
        if choices:
            return st.one_of([self.of(one, depth) for one in choices])
        if "enum" in schema or "const" in schema:
            return st.sampled_from(schema.get("enum") or [schema["const"]])
        return self._of_kind(schema, depth + 1)

    def _of_kind(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object" and depth < DEEPEST:
            return self._object(schema, depth)
        if kind == "array" and isinstance(schema.get("items"), dict):
            return st.lists(self.of(schema["items"], depth), max_size=3)
        return PLAIN.get(kind, JSON)

    def _object(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        if "properties" not in schema:
            inner = schema.get("additionalProperties")
            values = self.of(inner, depth) if isinstance(inner, dict) else SCALAR
            return st.dictionaries(TEXT | st.sampled_from(["site", "line"]), values, max_size=4)
        parts = {name: self.of(one, depth) for name, one in schema["properties"].items()}
        required = {name: parts.pop(name) for name in schema.get("required", []) if name in parts}
        return st.fixed_dictionaries(required, optional=parts)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()  # also NaN, Infinity and lone surrogates: what a careless client sends


def body_of(described: dict[str, Any], schemas: dict[str, Any]) -> st.SearchStrategy[bytes]:
    content = described.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return st.binary(max_size=200)
    shaped = Shapes(schemas).of(content["application/json"]["schema"])
    return st.one_of(shaped.map(encoded), shaped.map(encoded), JSON.map(encoded), st.binary(max_size=200))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_makes_the_hub_fail(running, data):
    schemas = running.schema["components"]["schemas"]
    method, template, described = data.draw(st.sampled_from(running.operations()), label="operation")
    path = template
    for parameter in described.get("parameters", []):
        if parameter["in"] == "path":
            word = data.draw(st.sampled_from(running.names) | TEXT, label=parameter["name"])
            path = path.replace(f"{{{parameter['name']}}}", quote(word, safe="") or "x")
    assume((method, template) not in ENDS_IT or not ({running.device.id, "admin"} & set(path.split("/"))))
    names = [parameter["name"] for parameter in described.get("parameters", []) if parameter["in"] == "query"]
    query = data.draw(st.dictionaries(st.sampled_from([*names, "x"]), TEXT | NUMBER.map(str), max_size=3))
    query.pop("wait", None)
    headers = data.draw(
        st.dictionaries(
            st.sampled_from(["range", "if-range", "if-none-match", "content-encoding", "x-request-id", "content-type"]),
            st.sampled_from(["bytes=0-", "bytes=5-2", "zstd", "gzip", "*", "\xff", "application/json", '"x"', ""]),
            max_size=2,
        )
    )
    body = data.draw(body_of(described, schemas), label="body") if method not in {"GET", "HEAD"} else b""
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    reply = running.ask(method, path, params=query, headers=raw, content=body)
    assert reply.status_code < 500, reply.text
    if reply.status_code >= 400 and method != "HEAD":
        refusal = reply.json()
        assert set(refusal) == {"code", "message", "hint", "fields"}
        assert "Traceback" not in reply.text


@settings(max_examples=EXAMPLES // 8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_a_device_reports_it_jams_neither_its_queue_nor_a_page(running, data):
    """What fits the schema is taken, exactly once, and everything that shows it goes on working."""
    shapes = Shapes(running.schema["components"]["schemas"])
    kind = data.draw(st.sampled_from(["Workload", "Figures", "Result", "Device"]), label="kind")
    name = next(name for name in running.schema["components"]["schemas"] if name.endswith(f"{kind}Report"))
    body = data.draw(shapes.of({"$ref": f"#/components/schemas/{name}"}), label="body")
    assume(fits(body))
    device = f"/api/v1/devices/{running.device.id}"
    seq = running.reported + 1
    batch = {"reports": [{"seq": seq, "at": data.draw(FLOAT), "body": body}], "outbox": "o", "oldest": seq}
    for _ in range(2):
        reply = running.ask("POST", "/device/v1/reports", content=encoded(batch))
        assert (reply.status_code, reply.json()) == (200, {"through": seq}), reply.text
    running.reported = seq
    for page in (
        device,
        f"{device}/reports?after={max(0, seq - 3)}",
        f"{device}/results",
        "/api/v1/devices",
        "/metrics",
    ):
        shown = running.ask("GET", page)
        assert shown.status_code == 200, shown.text


FLOAT = st.floats(allow_nan=False, allow_infinity=False)


def fits(body: Any) -> bool:
    """Whether the wire itself would take it: what is left is for the hub to cope with."""
    try:
        msgspec.convert(json.loads(encoded(body)), Body)
        msgspec.json.decode(encoded(body), type=Body)
    except (msgspec.MsgspecError, UnicodeError):
        return False
    return True
