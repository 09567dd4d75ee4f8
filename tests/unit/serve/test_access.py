# SPDX-License-Identifier: Apache-2.0
import pytest

from contracts.engine.models import affine
from skerry.serve.access import AccessLog, Entry
from unit.serve.rig import Rig

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
X = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [31337, 2, 3, 4]}], "id": "secret-id"}


@pytest.fixture
def lines():
    return []


class Logged(Rig):
    def __init__(self, lines):
        super().__init__({"m": affine()})
        self.log = AccessLog(self.endpoints.handle, now=self.now, write=lines.append)

    def handle(self, request, reply):
        self.log(request, reply)


@pytest.fixture
def rig(lines):
    return Logged(lines)


def test_a_line_tells_what_was_asked_and_how_it_ended(rig, lines):
    answer = rig.infer(X)
    [line] = lines
    assert line.startswith("protocol=http method=POST path=/v2/models/m/infer status=200 in=")
    assert f" out={len(answer.body)} ms=" in line


def test_no_payload_query_or_header_is_ever_in_it(rig, lines):
    rig.infer(X, path="/v2/models/m/infer?token=hush", Authorization="Bearer hush")
    rig.infer({**X, "inputs": "hush"})
    rig.get("/v2/models/m?token=hush")
    text = "\n".join(lines)
    assert len(lines) == 3
    for secret in ("hush", "31337", "secret-id"):
        assert secret not in text


@pytest.mark.parametrize("path", ["/a b", "/a\tstatus=200", "/ä", "/" + "x" * 900, '/"'])
def test_a_path_cannot_pretend_to_be_more_than_a_path(path):
    entry = Entry(protocol="http", method="GET", path=path, status=404, received=0, sent=0, seconds=0.001)
    line = str(entry)
    assert len(line.split()) == 7
    assert line.count("=") == 7
    assert line.isascii()
    assert len(line) < 400


def test_a_trace_is_passed_through(rig, lines):
    rig.send(b"GET /v2 HTTP/1.1\r\nHost: h\r\ntraceparent: " + TRACE.encode() + b"\r\n\r\n")
    assert lines[0].endswith("trace=4bf92f3577b34da6a3ce929d0e0e4736 parent=00f067aa0ba902b7")


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "ff" + TRACE[2:],
        TRACE.upper(),
        "00-" + "0" * 32 + TRACE[35:],
        TRACE[:36] + "0" * 16 + "-01",
        TRACE[:-1],
        "x" * 5000,
    ],
)
def test_what_is_no_trace_is_left_out(trace):
    entry = Entry(
        protocol="grpc", method="POST", path="/x", status=0, received=0, sent=-1, seconds=0.0, traceparent=trace
    )
    assert "trace=" not in str(entry)


def test_a_trace_of_a_later_version_is_read_as_far_as_it_is_known():
    entry = Entry(
        protocol="http", method="GET", path="/", status=200, received=0, sent=0, seconds=0.0,
        traceparent="01" + TRACE[2:] + "-what-comes-later",
    )  # fmt: skip
    assert "trace=4bf92f3577b34da6a3ce929d0e0e4736" in str(entry)
