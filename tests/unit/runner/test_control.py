# SPDX-License-Identifier: Apache-2.0
import socket

import msgspec
import pytest

from skerry.runner.control import BadCommand, BlockingControl, Lines
from skerry.wire.v1.runner import Acked, Drain, Serve, Serving

LINE = msgspec.json.encode(Serve()) + b"\n"


def test_lines_in_any_pieces():
    lines = Lines()
    assert [command for at in range(len(LINE)) for command in lines.feed(LINE[at : at + 1])] == [Serve()]
    assert lines.feed(LINE + b"\n" + msgspec.json.encode(Acked(through=3)) + b"\n") == [Serve(), Acked(through=3)]


@pytest.mark.parametrize("data", [b"{}\n", b"rubbish\n", b'{"type":"reboot"}\n', b"\xff\n", b"x" * 1024 * 1024 + b"x"])
def test_what_is_no_command(data):
    with pytest.raises(BadCommand):
        Lines().feed(data)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    control = BlockingControl(theirs.detach())
    yield ours, control
    ours.close()
    control.socket.close()


def test_commands_sent_together_are_taken_one_by_one(pair):
    agent, control = pair
    agent.sendall(LINE + msgspec.json.encode(Drain()) + b"\n")
    assert (control.receive(), control.receive()) == (Serve(), Drain())


def test_an_agent_that_has_gone_is_an_end_not_an_error(pair):
    agent, control = pair
    agent.close()
    control.send(Serving(pid=1))
    control.send(Serving(pid=1))
    assert control.receive() is None
