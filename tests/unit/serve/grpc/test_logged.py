# SPDX-License-Identifier: Apache-2.0
from typing import Any

from skerry.serve.grpc.exchange import Failure, Incoming
from skerry.serve.grpc.logged import LoggedService
from skerry.serve.grpc.status import GrpcStatus


class Echo:
    """Answers with what came, or fails."""

    def find(self, path):
        if path.endswith("/Nothing"):
            return Failure(status=GrpcStatus.UNIMPLEMENTED, text="no")
        if path.endswith("/Fail"):
            return lambda _, reply: reply(Failure(status=GrpcStatus.NOT_FOUND, text="no"))
        return lambda incoming, reply: reply([incoming.message, b"!"])


def test_every_call_is_one_line_without_its_payload():
    lines: list[str] = []
    answers: list[Any] = []
    service = LoggedService(Echo(), now=lambda: 2.5, write=lines.append)
    assert isinstance(service.find("/s.S/Nothing"), Failure)
    for name in ("Infer", "Fail"):
        method = service.find(f"/s.S/{name}")
        assert not isinstance(method, Failure)
        method(Incoming(message=b"secret", received=2.0), answers.append)
    assert lines == [
        "protocol=grpc method=POST path=/s.S/Infer status=0 in=6 out=7 ms=500.000",
        "protocol=grpc method=POST path=/s.S/Fail status=5 in=6 out=0 ms=500.000",
    ]
    assert answers[0] == [b"secret", b"!"]
