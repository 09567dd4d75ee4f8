# SPDX-License-Identifier: Apache-2.0
"""Where `skerry top` reads: the workloads an agent on this machine has, or servers by their addresses."""

from __future__ import annotations

import http.client
import json
import math
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from skerry.agent import main as agent
from skerry.cli.benching import processes
from skerry.cli.top_figures import Reading, Row, from_metrics, from_statistics, rows, workloads
from skerry.client import address as addresses
from skerry.client.address import Address, Scheme
from skerry.effects import Clock

_PATIENCE_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 10.0  # for the process behind an address: it means reading all of /proc
_AT_ONCE: Final = 16
_LIMIT: Final = 4 << 20
_OK: Final = 200
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0"})  # noqa: S104 - compared with, not bound


class Place(Struct, frozen=True, kw_only=True):
    """One workload and where it serves; no `url` while it does not."""

    workload: str
    state: str
    url: str = ""
    bundle: str = ""
    variant: str = ""
    problem: str = ""


class Overview(Struct, frozen=True, kw_only=True):
    title: str
    places: tuple[Place, ...]
    issues: tuple[str, ...] = ()


def of_agent(state: Path) -> Overview:
    """Raises NotEnrolled, StateDamaged."""
    status = agent.status(state)
    places = tuple(
        Place(
            workload=work.name,
            state=work.state,
            url=work.url or (f"unix://{work.unix}" if work.unix else ""),
            bundle=work.bundle or work.committed,
            variant=work.variant,
            problem=work.problem,
        )
        for work in status.workloads
    )
    running = f"agent {status.pid}" if status.running else "agent stopped"
    return Overview(title=f"{status.name}, {running}", places=places, issues=status.issues)


def of_urls(urls: Iterable[str]) -> Overview:
    places = tuple(Place(workload=_name(url), state="serving", url=url) for url in urls)
    return Overview(title=f"{len(places)} server{'s' * (len(places) != 1)}", places=places)


def _name(url: str) -> str:
    """Host and port, or the name of the socket. Raises CallInvalid for what is no address."""
    address = addresses.parse(url)
    return address.authority if address.scheme is Scheme.HTTP else Path(address.path).name


class Watch:
    """Remembers the last reading of each place."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[tuple[str, str], dict[str, Reading]] = {}  # by the workload a box names
        self._pids: dict[str, tuple[int | None, float]] = {}  # and when it was looked for

    def look(self, places: Iterable[Place]) -> list[Row]:
        """All at once: one that hangs keeps no other waiting."""
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            return [row for found in pool.map(self._look, places) for row in found]

    def _look(self, place: Place) -> list[Row]:
        model, _, version = place.bundle.partition(":")
        idle = Row(
            workload=place.workload,
            state=place.state,
            model=model,
            version=version,
            variant=place.variant,
            problem=place.problem,
        )
        if not place.url:
            return [idle]
        key = (place.workload, place.url)
        try:
            readings = self._read(place.url)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._last.pop(key, None)
            self._pids.pop(place.url, None)
            state = "no answer" if place.state == "serving" else place.state
            return [_with(idle, state=state, problem=_why(error))]
        before = self._last.get(key, {})
        self._last[key] = {reading.workload: reading for reading in readings}
        found = [rows(place.workload, place.state, before.get(each.workload), each) for each in readings]
        return [row for several in found for row in several] or [idle]

    def _read(self, url: str) -> list[Reading]:
        """One, or at the address of a box one for each workload. Raises OSError, HTTPException, ValueError."""
        address = addresses.parse(url)
        status, text = get(address, "/metrics")
        named = workloads(text) if status == _OK else []
        if len(named) > 1:
            return [self._of_box(text, workload) for workload in named]
        return [self._of_server(url, address, text if status == _OK else "", "".join(named))]

    def _of_box(self, text: str, workload: str) -> Reading:
        """Who listens at the address is one of several processes: its CPU time says nothing of the others."""
        models, waiting, resident = from_metrics(text, workload)
        return Reading(at=self._clock.monotonic(), models=models, workload=workload, waiting=waiting, rss_mib=resident)

    def _of_server(self, url: str, address: Address, text: str, workload: str) -> Reading:
        models, waiting, resident = from_metrics(text, workload)
        if not models:
            models = from_statistics(_object(address, "/v2/models/stats"))
        pids = self._tree(url, address)
        rss = processes.memory(pids).rss if pids and resident is None else resident
        return Reading(
            at=self._clock.monotonic(),
            models=models,
            workload=workload,
            waiting=waiting,
            cpu=processes.cpu_seconds(pids) if pids else None,
            rss_mib=rss,
        )

    def _tree(self, url: str, address: Address) -> tuple[int, ...]:
        """The processes behind an address, looked for again once they are gone."""
        now = self._clock.monotonic()
        pid, looked = self._pids.get(url, (None, -math.inf))
        gone = pid is not None and not Path(f"/proc/{pid}").exists()
        if gone or (pid is None and now > looked + _LOOK_AGAIN_SECONDS):
            pid = _listener(address)
            self._pids[url] = (pid, now)
        return processes.tree(pid) if pid is not None else ()


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _with(row: Row, *, state: str, problem: str) -> Row:
    return Row(
        workload=row.workload, state=state, model=row.model, version=row.version, variant=row.variant, problem=problem
    )


def _listener(address: Address) -> int | None:
    if address.scheme is not Scheme.HTTP:
        return processes.unix_listener(address.path)
    return processes.listener_of(address.port) if address.host in _LOCAL else None


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(address: Address, path: str) -> tuple[int, str]:
    """Status and body, at most 4 MiB of it. Raises OSError, HTTPException."""
    connection = (
        http.client.HTTPConnection(address.host, address.port, timeout=_PATIENCE_SECONDS)
        if address.scheme is Scheme.HTTP
        else _Unix(address.path)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_LIMIT).decode("utf-8", "replace")
    finally:
        connection.close()


def _object(address: Address, path: str) -> Mapping[str, Any]:
    status, text = get(address, path)
    document = json.loads(text) if status == _OK else {}
    return document if isinstance(document, dict) else {}
