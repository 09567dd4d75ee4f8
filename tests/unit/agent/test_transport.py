# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from skerry.agent.identity import Identity
from skerry.agent.transport import Backoff, HubRoad
from skerry.effects.system import SystemEntropy
from skerry.errors import HubError, NotFound, Unauthenticated, UnexpectedReply
from skerry.hub.services.tokens import check_assertion
from skerry.testing.clock import VirtualClock
from skerry.testing.network import Answer, ScriptedHttp
from skerry.wire.v1.device import ErrorBody, TokenReply
from skerry.wire.v1.report import ReportAck, ReportBatch

BASE = "/device/v1"


class Hub:
    """Issues token-1, token-2 ...; `valid` is the one it takes."""

    def __init__(self) -> None:
        self.clock = VirtualClock(1_000.0)
        self.key = Ed25519PrivateKey.generate()
        self.issued = 0
        self.valid = ""
        self.hub_time = 1_000.0
        self.http = ScriptedHttp({("POST", f"{BASE}/token"): self.token})
        self.road = HubRoad(
            self.http,
            self.clock,
            SystemEntropy(),
            hub="http://127.0.0.1:1",
            identity=Identity(self.key),
            device_id="d",
            audience="hub",
        )

    def token(self, request) -> Answer:
        date = {"Date": "Thu, 01 Jan 1970 00:16:40 GMT"} if self.hub_time == 1_000.0 else {"Date": _date(self.hub_time)}
        form = dict(pair.split("=", 1) for pair in request.body.decode().split("&"))
        try:
            check_assertion(
                form["client_assertion"],
                public_key=self.key.public_key().public_bytes_raw(),
                audience="hub",
                now=self.hub_time,
            )
        except Unauthenticated:
            return Answer(status=401, headers=date)
        self.issued += 1
        self.valid = f"token-{self.issued}"
        reply = TokenReply(access_token=self.valid, token_type="Bearer", expires_in=900)
        return Answer(body=msgspec.json.encode(reply), headers=date)

    def serve(self, method: str, path: str, answer: Answer) -> None:
        def checked(request) -> Answer:
            if request.headers.get("authorization") != f"Bearer {self.valid}":
                return Answer(status=401, body=b"{}")
            return answer

        self.http.routes[method, f"{BASE}{path}"] = checked


def _date(at: float) -> str:
    from email.utils import formatdate

    return formatdate(at, usegmt=True)


def test_one_token_serves_until_a_minute_before_its_end():
    hub = Hub()
    hub.serve("GET", "/assignment", Answer(body=b"envelope", headers={"ETag": '"7"'}))
    fetched = hub.road.assignment()
    assert fetched is not None
    assert fetched.envelope == b"envelope"
    hub.clock.advance(839)
    hub.road.assignment()
    assert hub.issued == 1
    hub.clock.advance(2)
    hub.road.assignment()
    assert hub.issued == 2


def test_token_the_hub_no_longer_takes_is_replaced_once():
    hub = Hub()
    hub.serve("GET", "/assignment", Answer(body=b"e"))
    hub.road.assignment()
    hub.valid = "another replica's"
    assert hub.road.assignment() is not None
    assert hub.issued == 2


def test_wrong_clock_is_corrected_by_the_hubs_date():
    hub = Hub()
    hub.hub_time = 500_000.0
    hub.serve("GET", "/assignment", Answer(body=b"e"))
    assert hub.road.assignment() is not None


def test_revoked_device_is_told_so():
    hub = Hub()
    hub.key = Ed25519PrivateKey.generate()
    with pytest.raises(Unauthenticated):
        hub.road.assignment()


def test_assignment_is_asked_for_with_its_etag_and_patience():
    hub = Hub()
    hub.serve("GET", "/assignment", Answer(status=304, headers={"ETag": '"7"'}))
    assert hub.road.assignment(etag='"7"', wait=25) is None
    asked = hub.http.requests[-1]
    assert asked.headers["if-none-match"] == '"7"'
    assert asked.query == "wait=25"


def test_blob_is_continued_with_range_and_if_range():
    hub = Hub()
    hub.serve("GET", "/blobs/", Answer(status=206, body=b"rest"))
    with hub.road.blob("sha256:aa", offset=10, etag='"sha256:aa"') as reply:
        assert reply.body(limit=100) == b"rest"
    asked = hub.http.requests[-1]
    assert asked.headers["range"] == "bytes=10-"
    assert asked.headers["if-range"] == '"sha256:aa"'


def test_refusals_keep_their_code():
    hub = Hub()
    body = ErrorBody(code="SKY-5004", message="no", fields={"kind": "blob", "name": "x"})
    hub.serve("GET", "/blobs/", Answer(status=404, body=msgspec.json.encode(body)))
    with pytest.raises(NotFound):
        hub.road.blob("sha256:aa")
    odd = ErrorBody(code="SKY-5099", message="from the future", fields={"detail": 1})
    hub.serve("GET", "/blobs/", Answer(status=400, body=msgspec.json.encode(odd)))
    with pytest.raises(HubError, match="SKY-5099: from the future"):
        hub.road.blob("sha256:aa")
    hub.serve("GET", "/blobs/", Answer(status=502, body=b"<html>proxy</html>"))
    with pytest.raises(UnexpectedReply):
        hub.road.blob("sha256:aa")


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "body",
    [
        b'{"code":"\xff","message":"m"}',
        b'{"code":"SKY-5004","message":"m","fields":{"self":1,"kind":"x","name":"y"}}',
        b'{"code":"SKY-5099","message":"m","fields":{"self":1}}',
        b'{"code":"a","message":"m","fields":' + b'{"a":' * 100_000,
        b'{"through":' + b"[" * 100_000,
        b'{"through":"\xff"}',
    ],
)
def test_nothing_a_hub_says_is_more_than_a_bad_answer(status, body):
    """Anything else would end the agent, again after every start."""
    hub = Hub()
    hub.serve("POST", "/reports", Answer(status=status, body=body))
    with pytest.raises((HubError, UnexpectedReply)):
        hub.road.report(ReportBatch(reports=()))


@pytest.mark.parametrize(
    "date", ["", "x", "Thu, 01 Jan 0001 00:00:00 +9999", "Thu, 32 Jan 9999 99:99:99 GMT", "1 2 3 4 5"]
)
def test_date_that_is_none_does_not_matter(date):
    hub = Hub()
    honest = hub.http.routes["POST", f"{BASE}/token"]
    hub.http.routes["POST", f"{BASE}/token"] = lambda request: replace(honest(request), headers={"Date": date})
    hub.serve("POST", "/reports", Answer(body=msgspec.json.encode(ReportAck(through=9))))
    assert hub.road.report(ReportBatch(reports=())).through == 9


def test_report_returns_the_acknowledgement():
    hub = Hub()
    hub.serve("POST", "/reports", Answer(body=msgspec.json.encode(ReportAck(through=9))))
    assert hub.road.report(ReportBatch(reports=())).through == 9
    hub.serve("POST", "/reports", Answer(body=b"[]"))
    with pytest.raises(UnexpectedReply):
        hub.road.report(ReportBatch(reports=()))


class Dice:
    def __init__(self, value: bytes) -> None:
        self.value = value

    def token(self, size: int) -> bytes:
        return self.value * size


def test_backoff_doubles_up_to_its_ceiling_and_starts_anew():
    most = Backoff(Dice(b"\xff"), base=1.0, ceiling=60.0)
    assert [most.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    most.succeeded()
    assert most.failed() == 1
    assert Backoff(Dice(b"\x00")).failed() == 0
