# SPDX-License-Identifier: Apache-2.0
"""A runner whose model's code has taken it over says what it likes to the agent: that ends no agent, and nobody else's runner."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

import msgspec
import pytest

from skerry.agent.reconcile import Reason, TrialSeen, judge_trial
from skerry.agent.supervise.copies import Copies
from skerry.agent.supervise.verdict import Verdict
from skerry.agent.supervise.watch import FiguresWindow
from skerry.observe.comparison import heard
from skerry.observe.latency import LatencySketch
from skerry.runner.exchange import _spilled
from skerry.wire.v1 import keeper as wire
from skerry.wire.v1.device import Trial
from skerry.wire.v1.runner import Event, Figures, Loaded, TrialCounts

FIGURES = {
    "type": "figures",
    "window_seconds": 1.0,
    "requests": 1,
    "errors": 0,
    "latency_p50_ms": 1.0,
    "latency_p95_ms": 1.0,
    "latency_p99_ms": 1.0,
    "probes": 0,
    "rss_mib": 50.0,
}
COUNTS = {"type": "trial-counts", "path": "p", "asked": 10, "dropped": 0, "compared": 10, "agreed": 10}
HUGE = 10**400


def said(document: dict[str, object], **lies: object) -> bytes:
    return json.dumps({**document, **lies}).encode()


@pytest.mark.parametrize(
    "line",
    [
        said(FIGURES, requests=-1),
        said(FIGURES, errors=HUGE),
        said(FIGURES, probes=-5),
        said(FIGURES, window_seconds=-1),
        said(FIGURES, latency_p95_ms=1e308),
        said(FIGURES, rss_mib=-(10**9)),
        said(FIGURES).replace(b"50.0", b"1e999"),
        said(FIGURES, latency={"1000000": 5}),
        said(FIGURES, latency={"3": -5}),
        said(FIGURES, latency={"3": HUGE}),
        said(COUNTS, agreed=-1),
        said(COUNTS, asked=HUGE),
        said(COUNTS, problems={"timeout": -3}),
        said(COUNTS, shifts={"1000000": 3}),
        said(COUNTS, shifts={"3": HUGE}),
        said(COUNTS, shift_total=-(10**307)),
        b'{"type":"loaded","load_ms":1,"rss_mib":1e999,"engine":"e"}',
    ],
)
def test_figures_nobody_can_measure_are_not_understood(line):
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(line, type=Event)


def test_the_most_it_can_say_is_calculated_with():
    most = 2**53
    figures = msgspec.json.decode(
        said(FIGURES, requests=most, errors=most, rss_mib=1e12, latency={"5000": most, "-5000": most}), type=Event
    )
    assert isinstance(figures, Figures)
    sketch = LatencySketch(figures.latency)
    sketch.merge(sketch)
    assert sketch.quantile(0.95) > 0
    window = FiguresWindow(seconds=0.0)
    assert window.add(figures, workload="w", digest="d", variant="", rollout="") is not None
    counts = msgspec.json.decode(
        said(
            COUNTS,
            shifts={"500": most, "-500": most},
            shift_total=1e300,
            flips={"a" * 9000 + str(n): 1 for n in range(99)},
        ),
        type=Event,
    )
    assert isinstance(counts, TrialCounts)
    comparison = heard(counts)
    comparison.merge(heard(counts))
    assert comparison.shifts.quantile(0.95) is not None
    assert len(comparison.flips) <= 33
    assert max(map(len, comparison.flips)) <= 160
    assert isinstance(
        msgspec.json.decode(b'{"type":"loaded","load_ms":1,"rss_mib":1,"engine":"e"}', type=Event), Loaded
    )


@pytest.mark.parametrize("lie", [{"agreed": 99}, {"problems": {"timeout": 99, "gone": 99}}])
@pytest.mark.parametrize("elapsed", [1.0, 1000.0])
def test_a_part_larger_than_its_whole_is_no_more_than_the_whole(lie, elapsed):
    counts = msgspec.json.decode(said(COUNTS, **lie), type=TrialCounts)
    found = heard(counts)
    seen = TrialSeen(
        elapsed=elapsed, asked=found.asked, errors=found.errors, compared=found.compared, agreed=found.agreed
    )
    judged = judge_trial(Trial(min_samples=10), seen)
    assert judged.reason in {"", Reason.TRIAL_ERROR_RATE}


# --- the keeper


def told(channel: socket.socket, kind: int, number: int, *descriptors: int) -> None:
    socket.send_fds(channel, [wire.MESSAGE.pack(kind, number)], descriptors)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def copies():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Copies("w", ours)
    yield made, theirs
    made.close()
    theirs.close()


@pytest.mark.parametrize("kind", [wire.OPENED, wire.OPENED_BOX, wire.TABLE, wire.CLOSED, 99])
def test_descriptors_that_are_no_connections_end_no_keeper_and_stay_with_nobody(copies, kind, tmp_path):
    made, theirs = copies
    readable = os.open(tmp_path, os.O_RDONLY)
    memory = os.memfd_create("t", os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, 4096)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    write_only = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY)
    before = descriptors()
    for descriptor in (readable, write_only):
        told(theirs, kind, 1, descriptor)
        assert made.take(room=10)
    assert descriptors() == before
    assert len(made) == 0
    for descriptor in (readable, memory, write_only):
        os.close(descriptor)


def test_one_number_for_many_connections_holds_one_copy(copies):
    made, theirs = copies
    one, other = socket.socketpair()
    before = descriptors()
    for _ in range(50):
        told(theirs, wire.OPENED, 7, one.fileno())
    assert made.take(room=10)
    assert (len(made), descriptors()) == (1, before + 1)
    theirs.shutdown(socket.SHUT_RDWR)
    for copy in made.judged():
        copy.connection.close()
    one.close()
    other.close()


def test_connections_of_every_kind_are_judged(copies):
    made, theirs = copies
    kinds = [
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        socket.create_server(("127.0.0.1", 0)),
    ]
    for number, each in enumerate(kinds):
        told(theirs, wire.OPENED, 2**31 + number, each.fileno())
        each.close()
    assert made.take(room=10)
    for copy in made.judged():
        assert copy.verdict in set(Verdict)
        copy.connection.close()


# --- the exchange


def test_a_body_that_is_a_pipe_or_has_no_end_is_not_waited_for():
    reading, writing = os.pipe()
    holes = os.memfd_create("holes")
    os.ftruncate(holes, 1 << 40)
    for descriptor in (reading, holes):
        with pytest.raises(OSError, match="not the body of a request"):
            _spilled(descriptor)
    for descriptor in (reading, writing, holes):
        os.close(descriptor)


@pytest.mark.parametrize("count", [-1, 2**63])
def test_byte_counts_nobody_can_note_are_refused(count):
    with pytest.raises(msgspec.MsgspecError):
        wire.decode(msgspec.msgpack.encode([False, count, 0, 0, None, False]))
