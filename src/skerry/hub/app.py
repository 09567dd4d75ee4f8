# SPDX-License-Identifier: Apache-2.0
"""Composition: the only place where the hub's implementations are chosen.

A hub process holds nothing that matters: kill it at any instant, start it again, or start several on one PostgreSQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from litestar import Litestar, Router
from litestar.di import Provide
from msgspec import Struct

from skerry.effects import Clock, Entropy
from skerry.effects.disk import DiskFiles
from skerry.effects.system import SystemClock, SystemEntropy
from skerry.errors import AddressTaken, ConfigError, DatabaseUnavailable, StorageError
from skerry.hub.api import governance, inventory, publishing, rollouts, system
from skerry.hub.api.description import description
from skerry.hub.api.device import device_router
from skerry.hub.api.failures import answer_failure
from skerry.hub.api.frame import framing, timing
from skerry.hub.api.gate import audited, device_gate, operator_gate
from skerry.hub.api.metrics import Meter
from skerry.hub.blobs import Blobs
from skerry.hub.blobs.local import LocalBlobs
from skerry.hub.services.assignments import Assignments, Signer
from skerry.hub.services.audit import AuditLog
from skerry.hub.services.catalogue import Catalogue
from skerry.hub.services.controller import Controller
from skerry.hub.services.devices import Devices, Fleets
from skerry.hub.services.enrolment import Enrolment, HubFacts
from skerry.hub.services.models import Models
from skerry.hub.services.overview import Overview
from skerry.hub.services.people import People
from skerry.hub.services.presence import Presence
from skerry.hub.services.released import ReleasedBlobs
from skerry.hub.services.reports import Reports
from skerry.hub.services.rollouts import Rollouts
from skerry.hub.services.sessions import Sessions
from skerry.hub.services.strangers import Strangers
from skerry.hub.services.tokens import AccessTokens
from skerry.hub.store.interface import Store
from skerry.hub.store.sql import open_store
from skerry.trust.online import OnlineTrust
from skerry.wire.v1.operator import UserToken

log = logging.getLogger(__name__)

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_OPERATOR_PATH = "/api/v1"
_DATABASE = "hub.sqlite"
_BODY_LIMIT = 1024 * 1024
_SECRET_BYTES = 32
_PRESENCE_SECONDS = 2.0
_REFRESH_SECONDS = 60.0
_DRAIN_SECONDS = 10
_BACKLOG = 1024


class HubConfig(Struct, frozen=True, kw_only=True):
    """What a hub process is told at its start.

    `data` holds the blobs and, without `database` (an SQLAlchemy URL), an SQLite file. Replicas share `data`, `trust` and
    one PostgreSQL `database`.
    """

    data: Path
    trust: Path  # the online part of what `skerry keys` made
    database: str = ""
    host: str = "127.0.0.1"
    port: int = 8443  # 0 = any free one
    tls_cert: Path | None = None
    tls_key: Path | None = None
    passphrase: str | None = None  # of the online keys
    poll_seconds: float = 30.0  # how often devices are told to poll
    controller_seconds: float = 1.0  # how often rollouts are looked at
    new_admin_token: bool = False  # give the user `admin` a new token: the way back in for who owns the machine
    behind_proxy: bool = False  # TLS ends in front of this process, which only that proxy can reach

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert is not None else "http"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data / _DATABASE}"

    def check(self) -> None:
        """Raises ConfigError for what could not work or would not be safe."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError(where="tls", problem="give both the certificate and its key")
        if self.tls_cert is None and self.host not in _LOOPBACK and not self.behind_proxy:
            problem = "without TLS the hub listens on loopback only: give it a certificate, or say that a proxy has one"
            raise ConfigError(where="host", problem=problem)
        if self.poll_seconds <= 0 or self.controller_seconds <= 0:
            raise ConfigError(where="poll_seconds, controller_seconds", problem="must be above 0")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Everything the routes and the background tasks use, already opened."""

    config: HubConfig
    store: Store
    blobs: Blobs
    people: People
    sessions: Sessions
    presence: Presence
    strangers: Strangers
    enrolment: Enrolment
    assignments: Assignments
    reports: Reports
    catalogue: Catalogue
    released: ReleasedBlobs
    models: Models
    devices: Devices
    fleets: Fleets
    rollouts: Rollouts
    controller: Controller
    audit: AuditLog
    overview: Overview
    first_admin: UserToken | None  # only the process that made it knows the token, and only now


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The implementations a hub is built on."""

    store: Store
    blobs: Blobs
    trust: OnlineTrust
    clock: Clock
    entropy: Entropy


async def open_hub(config: HubConfig, *, clock: Clock | None = None, entropy: Entropy | None = None) -> Hub:
    """Migrate, import the trust folder, make the first administrator. Safe to repeat and to run on several replicas.

    Raises ConfigError, DatabaseUnavailable, StorageError, and what OnlineTrust.load raises.
    """
    config.check()
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    trust = OnlineTrust.load(config.trust, passphrase=config.passphrase, files=DiskFiles(), now=clock.now())
    _make_private(config)
    blobs = LocalBlobs(config.data / "blobs")
    blobs.prepare(now=clock.now())
    store = await open_store(config.database_url)
    try:
        return await _compose(config, Parts(store=store, blobs=blobs, trust=trust, clock=clock, entropy=entropy))
    except BaseException:
        await store.close()
        raise


def _make_private(config: HubConfig) -> None:
    """The database holds the secret that access tokens are signed with: new files are for this user alone."""
    try:
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not config.database:
            (config.data / _DATABASE).touch(mode=0o600)
    except OSError as error:
        raise StorageError(path=str(config.data), problem=error.strerror or str(error)) from error


async def _compose(config: HubConfig, parts: Parts) -> Hub:
    store, blobs, trust, clock, entropy = parts.store, parts.blobs, parts.trust, parts.clock, parts.entropy
    audience = (await store.settle("audience", f"urn:skerry:hub:{entropy.token(16).hex()}".encode())).decode()
    secret = await store.settle("access-token-secret", entropy.token(_SECRET_BYTES))
    presence = Presence(store, clock)
    catalogue = Catalogue(store, blobs, clock, trust)
    await catalogue.open()
    people = People(store, clock, entropy)
    models = Models(store)
    facts = HubFacts(audience=audience, poll_seconds=config.poll_seconds)
    return Hub(
        config=config,
        store=store,
        blobs=blobs,
        people=people,
        sessions=Sessions(store, clock, tokens=AccessTokens(secret), audience=audience, presence=presence),
        presence=presence,
        strangers=Strangers(clock),
        enrolment=Enrolment(store, clock, entropy, facts=facts, newest_root=catalogue.newest_root),
        assignments=Assignments(store, clock, Signer(keyid=trust.assignment_keyid, private_key=trust.assignment_key)),
        reports=Reports(store, clock),
        catalogue=catalogue,
        released=ReleasedBlobs(store),
        models=models,
        devices=Devices(store, clock, models),
        fleets=Fleets(store),
        rollouts=Rollouts(store, clock, entropy),
        controller=Controller(store, clock),
        audit=AuditLog(store, clock),
        overview=Overview(store, clock, poll_seconds=config.poll_seconds, demo_trust=trust.demo),
        first_admin=await people.first_admin(replace=config.new_admin_token),
    )


def create_app(hub: Hub) -> Litestar:
    """The ASGI application. Its lifespan runs the background tasks and closes the hub."""
    meter = Meter()
    given = {
        "meter": meter,
        "blobs": hub.blobs,
        "people": hub.people,
        "sessions": hub.sessions,
        "strangers": hub.strangers,
        "enrolment": hub.enrolment,
        "assignments": hub.assignments,
        "reports": hub.reports,
        "catalogue": hub.catalogue,
        "released": hub.released,
        "models": hub.models,
        "devices": hub.devices,
        "fleets": hub.fleets,
        "rollouts": hub.rollouts,
        "audit": hub.audit,
        "overview": hub.overview,
    }
    operator = Router(
        path=_OPERATOR_PATH,
        route_handlers=[*inventory.HANDLERS, *publishing.HANDLERS, *rollouts.HANDLERS, *governance.HANDLERS],
        guards=[operator_gate(hub.people, hub.strangers)],
        middleware=[audited(hub.audit, below=_OPERATOR_PATH)],
        tags=["operator"],
        security=[{"bearer": []}],
    )
    return Litestar(
        route_handlers=[device_router(device_gate(hub.sessions, hub.strangers)), operator, *system.HANDLERS],
        dependencies={name: _always(value) for name, value in given.items()},
        middleware=[timing(meter)],
        before_send=[framing(meter)],
        exception_handlers={Exception: answer_failure},
        request_max_body_size=_BODY_LIMIT,
        openapi_config=description(),
        lifespan=[lambda _: running(hub)],
        logging_config=None,
        debug=False,
    )


def _always(value: object) -> Provide:
    def provide() -> object:
        return value

    return Provide(provide, use_cache=True, sync_to_thread=False)


# --- running -------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(hub: Hub) -> AsyncIterator[None]:
    """Background tasks for as long as the context lasts; then what they gathered is written and the store closed."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(_until(stop, _PRESENCE_SECONDS, hub.presence.flush, "writing when devices were seen")),
        asyncio.create_task(_until(stop, _REFRESH_SECONDS, hub.catalogue.refresh, "keeping the catalogue fresh")),
        asyncio.create_task(hub.controller.run(holder, seconds=hub.config.controller_seconds, stop=stop)),
    ]
    try:
        yield
    finally:
        hub.assignments.stop_waiting()
        stop.set()
        _, unfinished = await asyncio.wait(tasks, timeout=_DRAIN_SECONDS)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await hub.store.close()


async def _until(stop: asyncio.Event, seconds: float, work: Callable[[], Awaitable[object]], what: str) -> None:
    """The outermost loop of a background task: a failure is logged and the next round tries again. Works once more at
    the end, so that nothing gathered is left behind.
    """
    last = False
    while not last:
        last = stop.is_set()
        try:
            await work()
        except DatabaseUnavailable as error:
            log.warning("%s waits: %s", what, error)
        except Exception:
            log.exception("%s failed; trying again in %s s", what, seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


class _Server(uvicorn.Server):
    """Ends long-polls before it waits for requests to finish, and leaves exit codes to its caller."""

    def __init__(self, config: uvicorn.Config, hub: Hub, on_ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._hub = hub
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            named = f"[{host}]" if ":" in host else host
            self._on_ready(f"{self._hub.config.scheme}://{named}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.assignments.stop_waiting()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but without raising the signal again at the end: a hub told to stop has done as told."""
        kept = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


def serve(
    config: HubConfig,
    *,
    on_admin: Callable[[UserToken], None],
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Run a hub in this process until SIGINT or SIGTERM; call it from the main thread.

    `on_admin` gets the first administrator's token on the first start (and with `new_admin_token`), `on_ready` the address
    once requests are answered. Raises what `open_hub` raises, and AddressTaken when the address cannot be had.
    """
    config.check()
    _allow_many_connections()
    listener = _listen(config)
    with contextlib.closing(listener):
        asyncio.run(_serve(config, listener, on_admin, on_ready))


async def _serve(
    config: HubConfig,
    listener: socket.socket,
    on_admin: Callable[[UserToken], None],
    on_ready: Callable[[str], None],
) -> None:
    hub = await open_hub(config)
    if hub.first_admin is not None:
        on_admin(hub.first_admin)
    settings = uvicorn.Config(
        create_app(hub),
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        backlog=_BACKLOG,
    )
    await _Server(settings, hub, on_ready).serve(sockets=[listener])


def _allow_many_connections() -> None:
    """Every device that waits for news is an open connection, and the usual limit is a thousand files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a service manager may forbid it: then its own limit counts
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(config: HubConfig) -> socket.socket:
    try:
        listener = socket.create_server(
            (config.host, config.port),
            family=socket.AF_INET6 if ":" in config.host else socket.AF_INET,
            backlog=_BACKLOG,
        )
    except OSError as error:
        address = f"{config.host}:{config.port}"
        raise AddressTaken(address=address, problem=error.strerror or str(error)) from error
    # Inherited by every connection. Without it an answer in two writes waits 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
