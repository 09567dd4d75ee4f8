# SPDX-License-Identifier: Apache-2.0
"""A scripted hub behind the Http seam, and a way to run one command line against it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import msgspec

from skerry.cli.program import run
from skerry.cli.world import World
from skerry.effects.disk import DiskFiles
from skerry.errors import SkerryError
from skerry.testing.clock import VirtualClock
from skerry.wire.v1.device import BundleRef, Capabilities, ErrorBody
from skerry.wire.v1.operator import (
    DeviceView,
    DeviceWorkload,
    ModelView,
    RolloutSpec,
    RolloutStatus,
    RolloutView,
    StageStatus,
    StageView,
)
from skerry.wire.v1.report import WorkloadState

HUB = "http://hub.test:8000"
NOW = 1_800_000_000.0


@dataclass
class Reply:
    status: int = 200
    raw: bytes = b""
    headers: dict = field(default_factory=dict)

    def chunks(self, size=65536):
        yield self.raw

    def body(self, *, limit):
        return self.raw

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


@dataclass
class Call:
    method: str
    path: str
    query: dict
    headers: dict
    body: bytes


class ScriptedHub:
    """Replies by method and path; a list of replies is used up one by one, the last one stays."""

    def __init__(self):
        self.replies = {}
        self.calls = []

    def on(self, method, path, *replies, status=200):
        self.replies[method, path] = [self._reply(reply, status) for reply in replies or (b"",)]
        return self

    @staticmethod
    def _reply(reply, status):
        if isinstance(reply, Reply | SkerryError):
            return reply
        return Reply(status=status, raw=reply if isinstance(reply, bytes) else msgspec.json.encode(reply))

    def request(self, method, url, *, headers=None, body=None, timeout=30.0):
        parts = urlsplit(url)
        sent = body if isinstance(body, bytes | None) else b"".join(body)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.calls.append(Call(method, parts.path, query, dict(headers or {}), sent or b""))
        waiting = self.replies.get((method, parts.path))
        if waiting is None:
            return Reply(404, msgspec.json.encode(refusal("SKY-5004", kind="thing", name=parts.path)))
        reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(reply, SkerryError):
            raise reply
        return reply

    def sent(self, method, path):
        return [call for call in self.calls if (call.method, call.path) == (method, path)]


def refusal(code, message="no", **fields):
    return ErrorBody(code=code, message=message, fields=fields)


@dataclass
class Ran:
    code: int
    out: str
    err: str


class Shell:
    """Runs command lines in this process. `waits` counts the pauses; `on_wait` may advance the script or raise."""

    def __init__(self, tmp_path, capsys, hub=None, **environ):
        self.hub = hub or ScriptedHub()
        self.clock = VirtualClock(NOW)
        self.waits = []
        self.on_wait = lambda: None
        self._capsys = capsys
        self.environ = {"HOME": str(tmp_path), "SKERRY_HUB": HUB, "SKERRY_TOKEN": "secret", **environ}
        self.world = World(
            open_http=lambda ca: self.hub,
            clock=self.clock,
            files=DiskFiles(),
            environ=self.environ,
            wait=self._wait,
        )

    def _wait(self, seconds):
        self.waits.append(seconds)
        self.clock.advance(seconds)
        self.on_wait()

    def __call__(self, line, **kwargs):
        self._capsys.readouterr()
        code = run(shlex.split(line), obj=self.world, **kwargs)
        out, err = self._capsys.readouterr()
        return Ran(code, out, err)


def page(*items, after=""):
    return {"items": items, "after": after}


def device(name="press-1", **changes):
    workload = DeviceWorkload(
        workload="weld",
        bundle="weld-defect:1.5.1",
        digest="sha256:" + "a" * 64,
        state=WorkloadState.COMMITTED,
        variant="int8",
        latency_p95_ms=3.25,
        latency_p50_ms=1.5,
        error_rate=0.0,
        at=NOW - 60,
    )
    view = DeviceView(
        id=f"dev-{name}",
        name=name,
        labels={"line": "body-shop"},
        capabilities=Capabilities(arch="x86_64", cpus=4, memory_mib=4096, agent_version="0.1.0"),
        enrolled=NOW - 86400,
        last_seen=NOW - 30,
        revoked=False,
        workloads=(workload,),
    )
    return msgspec.structs.replace(view, **changes)


def bundle_ref(version="1.5.1", line="body-shop", model="weld-defect"):
    return BundleRef(
        line=line,
        model=model,
        version=version,
        digest="sha256:" + "b" * 64,
        release_seq=7,
        target=f"{line}/{model}/{version}.json",
    )


def model(version="1.5.1", **changes):
    view = ModelView(bundle=bundle_ref(version), published=NOW - 7200, size=1_234_567, variants=("fp32", "int8"))
    return msgspec.structs.replace(view, **changes)


def stage(name="canary", status=StageStatus.RUNNING, *, total=2, committed=0, failed=0, gates=()):
    pending = total - committed - failed
    return StageView(
        name=name, status=status, total=total, committed=committed, failed=failed, pending=pending, gates=gates
    )


def rollout(status=RolloutStatus.RUNNING, *stages, reason="", **changes):
    view = RolloutView(
        id="r1",
        spec=RolloutSpec(workload="weld", bundle="weld-defect:1.5.1", fleet="body-shop"),
        bundle=bundle_ref(),
        status=status,
        reason=reason,
        created=NOW - 90,
        created_by="anna",
        finished=None,
        stages=stages or (stage(),),
    )
    return msgspec.structs.replace(view, **changes)
