# SPDX-License-Identifier: Apache-2.0
"""The device API of a hub over real HTTP on loopback, in one thread pool and no database; its catalogue is a real one.

What a test may bend: `cut_blobs_after` breaks downloads, `refuse` answers every request with a status, `stop` takes it away.
"""

from __future__ import annotations

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from skerry.hub.services.tokens import check_assertion
from skerry.trust import dsse
from skerry.trust.assignment import sign_assignment
from skerry.wire.v1.device import (
    Assignment,
    BundleRef,
    EnrolReply,
    EnrolRequest,
    ErrorBody,
    TokenReply,
    WorkloadSpec,
)
from skerry.wire.v1.report import (
    FiguresReport,
    HistoryEntry,
    HistoryReport,
    Report,
    ReportAck,
    ReportBatch,
    ResultReport,
    WorkloadReport,
)
from support.victim import Owner, public

DEVICE = "device-1"


class MiniHub:
    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.changed = threading.Condition()
        self.public_key = b""
        self.sequence = 0
        self.envelope = b""
        self.reports: dict[int, Report] = {}
        self.received_twice = 0
        self.cut_blobs_after: int | None = None
        self.ranges: list[str] = []
        self.refuse = 0
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        hub = self

        class Handler(_Handler):
            mini = hub

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is None:
            return
        with self.changed:
            server, self._server = self._server, None
            self.changed.notify_all()
        server.shutdown()
        server.server_close()

    def assign(self, *workloads: WorkloadSpec, lifetime: float = 86_400.0, device: str = DEVICE) -> None:
        with self.changed:
            self.sequence += 1
            now = time.time()
            assignment = Assignment(
                device_id=device, sequence=self.sequence, issued=now, expires=now + lifetime, workloads=workloads
            )
            key = self.owner.hub_key
            self.envelope = sign_assignment(assignment, key, dsse.key_id(public(key)))
            self.changed.notify_all()

    def bodies(self, kind: type[Any]) -> list[Any]:
        with self.changed:
            return [report.body for _, report in sorted(self.reports.items()) if isinstance(report.body, kind)]

    def states(self, ref: BundleRef) -> list[str]:
        return [str(body.state) for body in self.bodies(WorkloadReport) if body.digest == ref.digest]

    def history(self) -> list[HistoryEntry]:
        return [body.entry for body in self.bodies(HistoryReport)]

    def results(self) -> list[ResultReport]:
        return self.bodies(ResultReport)

    def figures(self) -> list[FiguresReport]:
        return self.bodies(FiguresReport)


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that was killed in the middle of a request is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    mini: MiniHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.removeprefix("/device/v1/")
        if self.mini.refuse:
            self._error(self.mini.refuse, "SKY-5011", reference="mini")
        elif path == "assignment":
            self._assignment()
        elif path.startswith("blobs/"):
            self._blob(path)
        elif path.startswith("catalogue/") and path.removeprefix("catalogue/") in self.mini.owner.repository.files:
            self._reply(200, self.mini.owner.repository.files[path.removeprefix("catalogue/")])
        else:
            self._error(404, "SKY-5004", kind="file", name=path)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        path = urlsplit(self.path).path.removeprefix("/device/v1/")
        if self.mini.refuse:
            self._error(self.mini.refuse, "SKY-5011", reference="mini")
        elif path == "enroll":
            self._enrol(msgspec.json.decode(body, type=EnrolRequest))
        elif path == "token":
            form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            check_assertion(form["client_assertion"], public_key=self.mini.public_key, audience="mini", now=time.time())
            reply = TokenReply(access_token="mini-token", token_type="Bearer", expires_in=900)
            self._reply(200, msgspec.json.encode(reply))
        elif path == "reports":
            self._reports(msgspec.json.decode(body, type=ReportBatch))

    def _enrol(self, request: EnrolRequest) -> None:
        if request.token != "one-time":
            self._error(403, "SKY-5006", problem="no such token")
            return
        self.mini.public_key = request.public_key
        reply = EnrolReply(
            device_id=DEVICE, factory_root=self.mini.owner.repository.first_root, audience="mini", poll_seconds=5
        )
        self._reply(201, msgspec.json.encode(reply))

    def _assignment(self) -> None:
        if self.headers.get("authorization") != "Bearer mini-token":
            self._error(401, "SKY-5002", problem="no token")
            return
        mini = self.mini
        wait = float(parse_qs(urlsplit(self.path).query).get("wait", ["0"])[0])
        asked = self.headers.get("if-none-match", "")
        with mini.changed:
            server = mini._server
            mini.changed.wait_for(lambda: f'"{mini.sequence}"' != asked or mini._server is not server, min(wait, 5))
            envelope, etag = mini.envelope, f'"{mini.sequence}"'
        if etag == asked or not envelope:
            self._reply(304, b"", etag=etag)
        else:
            self._reply(200, envelope, etag=etag)

    def _blob(self, path: str) -> None:
        data = self.mini.owner.repository.files[path]
        etag = f'"{path.removeprefix("blobs/")}"'
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        status, extra = 200, {}
        if match and self.headers.get("if-range") == etag:
            self.mini.ranges.append(self.headers["range"])
            start = int(match[1])
            status, extra = 206, {"content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            data = data[start:]
        cut = self.mini.cut_blobs_after
        self.send_response(status)
        for key, value in {**extra, "content-length": str(len(data)), "etag": etag}.items():
            self.send_header(key, value)
        self.end_headers()
        if cut is not None and cut < len(data):
            self.wfile.write(data[:cut])
            self.close_connection = True
        else:
            self.wfile.write(data)

    def _reports(self, batch: ReportBatch) -> None:
        with self.mini.changed:
            for report in batch.reports:
                self.mini.received_twice += report.seq in self.mini.reports
                self.mini.reports.setdefault(report.seq, report)
            self.mini.changed.notify_all()
        self._reply(200, msgspec.json.encode(ReportAck(through=batch.reports[-1].seq)))

    def _error(self, status: int, code: str, **fields: Any) -> None:
        self._reply(status, msgspec.json.encode(ErrorBody(code=code, message="no", fields=fields)))

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
