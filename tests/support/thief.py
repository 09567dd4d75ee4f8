# SPDX-License-Identifier: Apache-2.0
"""Whoever took a hub over: stands before the real one with all of its online keys, passes on what suits them, forges the rest."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.metadata import Metadata

from skerry.trust import dsse, keyfile, metadata, publish
from skerry.trust.assignment import sign_assignment
from skerry.wire.v1.device import Assignment, BundleRef, WorkloadSpec

Answer = bytes | Iterator[bytes]


class Thief:
    """`instead`: a part of a path -> what is answered for it; an iterator is sent in chunks for as long as it lasts."""

    def __init__(self, hub: str, keys: Path) -> None:
        self.hub = urlsplit(hub)
        online = keys / "online"
        self.snapshot_key, self.timestamp_key, self.assignment_key = (
            keyfile.read_private(online / f"{name}.pem", passphrase=None)
            for name in ("snapshot", "timestamp", "assignment")
        )
        self.instead: dict[str, Callable[[], Answer]] = {}
        self.asked: list[str] = []
        thief = self

        class Handler(_Handler):
            owner = thief

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def assign(
        self, device: str, *workloads: WorkloadSpec, sequence: int, key: Ed25519PrivateKey | None = None
    ) -> None:
        """From now on every device gets this, signed with the real key of the hub."""
        now = time.time()
        key = key or self.assignment_key
        assignment = Assignment(
            device_id=device, sequence=sequence, issued=now, expires=now + 3600.0, workloads=workloads
        )
        envelope = sign_assignment(assignment, key, dsse.key_id(metadata.raw_public(key)))
        self.instead["/assignment"] = lambda: envelope

    def catalogue(self, roles: dict[str, bytes], *, version: int, served: dict[str, bytes]) -> None:
        """Fresh snapshot and timestamp over `roles`, with the keys the root names for them; `served`: what they point to."""
        expires = time.time() + publish.DAY
        snapshot = publish.make_snapshot(None, roles, key=self.snapshot_key, expires=expires)
        snapshot = _numbered(snapshot, version, self.snapshot_key)
        timestamp = publish.make_timestamp(None, snapshot, key=self.timestamp_key, expires=expires)
        timestamp = _numbered(timestamp, version, self.timestamp_key)
        self.instead["catalogue/timestamp.json"] = lambda: timestamp
        self.instead[f"catalogue/{version}.snapshot.json"] = lambda: snapshot
        for name, data in served.items():
            self.instead[name] = partial(bytes, data)


def _numbered(data: bytes, version: int, key: Ed25519PrivateKey) -> bytes:
    parsed: Metadata[Any] = Metadata.from_bytes(data)
    parsed.signed.version = version
    parsed.signatures.clear()
    return metadata.add_signature(parsed.to_bytes(), key)


def workload(ref: BundleRef, name: str) -> WorkloadSpec:
    return WorkloadSpec(name=name, bundle=ref, soak_seconds=0.2)


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A device that hangs up on an endless answer is what is wanted."""


class _Handler(BaseHTTPRequestHandler):
    owner: Thief
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self.owner.asked.append(self.path)
        forged = next((answer for part, answer in self.owner.instead.items() if part in self.path), None)
        if forged is None:
            self._pass_on(b"")
            return
        answer = forged()
        self.send_response(200)
        if isinstance(answer, bytes):
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            return
        self.close_connection = True
        self.end_headers()
        for chunk in answer:
            self.wfile.write(chunk)

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def _pass_on(self, body: bytes) -> None:
        hub = self.owner.hub
        connection = http.client.HTTPConnection(hub.hostname or "", hub.port, timeout=30)
        try:
            kept = {key: value for key, value in self.headers.items() if key.lower() not in {"host", "connection"}}
            connection.request(self.command, self.path, body=body or None, headers=kept)
            reply = connection.getresponse()
            data = reply.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            connection.close()
        self.send_response(reply.status)
        for key, value in reply.getheaders():
            if key.lower() not in {"connection", "content-length", "transfer-encoding"}:
                self.send_header(key, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
