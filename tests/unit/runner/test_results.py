# SPDX-License-Identifier: Apache-2.0
import math

import msgspec
import numpy as np
import pytest

from skerry.bundle.manifest import Egress
from skerry.runner.results import ResultQueue, declared
from skerry.wire.v1.runner import Event, Result

OUTPUTS: dict[str, np.ndarray] = {
    "label": np.array([3], np.int64),
    "scores": np.arange(20, dtype=np.float32).reshape(1, 20),
    "text": np.array([b"ok", b"\xff"], dtype=object),
    "odd": np.array([np.nan, np.inf, -np.inf, 0.5], np.float32),
    "flag": np.array([True]),
}


@pytest.mark.parametrize(
    ("egress", "expected"),
    [
        (Egress(), {}),
        (Egress(results=("label",)), {"label": [3]}),
        (Egress(results=("scores",)), {}),
        (Egress(results=("scores",), max_values=20), {"scores": list(map(float, range(20)))}),
        (Egress(results=("text", "flag")), {"text": ["ok", "\ufffd"], "flag": [True]}),
        (Egress(results=("odd",)), {"odd": ["NaN", "Infinity", "-Infinity", 0.5]}),
        (Egress(results=("unknown", "label")), {"label": [3]}),
    ],
)
def test_only_declared_and_small_outputs_leave(egress, expected):
    assert declared(OUTPUTS, egress) == expected


def test_what_leaves_survives_the_wire():
    outputs = declared(OUTPUTS, Egress(results=tuple(OUTPUTS), max_values=99))
    event = ResultQueue("p").make(outputs, at=1.0, request_id="r")
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event
    assert not any(isinstance(value, float) and math.isnan(value) for values in outputs.values() for value in values)


def made(queue, count):
    return [queue.make({"label": [n]}, at=0.0, request_id="") for n in range(count)]


def test_numbers_grow_by_one_and_ids_differ_between_processes():
    first, second = made(ResultQueue("a"), 2), made(ResultQueue("b"), 2)
    assert [event.n for event in first if isinstance(event, Result)] == [1, 2]
    assert len({event.event_id for event in first + second if event is not None}) == 4


def test_acknowledged_results_make_room():
    queue = ResultQueue("p", limit=2)
    assert made(queue, 3)[2] is None
    assert (queue.unacknowledged, queue.dropped) == (2, 1)
    queue.acknowledge(1)
    assert queue.unacknowledged == 1
    [event] = made(queue, 1)
    assert event is not None
    assert event.n == 3
    queue.acknowledge(99)
    assert queue.unacknowledged == 0


def test_a_result_that_no_message_can_carry_is_dropped_and_takes_no_number():
    queue = ResultQueue("p")
    assert queue.make({"text": ["a" * 2**20]}, at=0.0, request_id="") is None
    assert (queue.unacknowledged, queue.dropped) == (0, 1)
    [event] = made(queue, 1)
    assert event is not None
    assert event.n == 1


def test_a_client_cannot_make_a_result_long_with_its_request_id():
    queue = ResultQueue("p")
    ids = ["i" * 256, "i" * 257, "\N{SNOWMAN}" * 2**20]
    events = [queue.make({"label": [1]}, at=0.0, request_id=each) for each in ids]
    assert [event.request_id for event in events if event is not None] == ["i" * 256, "", ""]
