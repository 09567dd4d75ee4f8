# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets of gRPC on what hypothesis thinks of, and on conversations that are right but for a byte."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from support.fuzz_grpc import fuzz_frames, fuzz_split
from unit.serve.grpc import h2

FRAMES = st.builds(
    h2.frame,
    st.integers(0, 11),
    st.integers(0, 255) | st.sampled_from([0, 1, 4, 5]),
    st.sampled_from([0, 1, 1, 3, 5, 7, 2, 2**31 - 1, 2**32 - 1]),
    st.binary(max_size=40),
)


def conversation():
    peer = h2.Peer()
    calls = [peer.call(bytes((number,)) * number * 50)[1] for number in range(4)]
    tail = h2.window_update(0, 100_000) + h2.settings(window=100_000, frame=20_000) + h2.frame(h2.PING, 0, 0, bytes(8))
    return b"\x40" + b"".join(calls) + tail + peer.call(bytes(20_000))[1] + h2.rst(3)


def message():
    asked = pb.ModelInferRequest(model_name="m", model_version="1", id="7")
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    asked.inputs.add(name="y", datatype="FP32", shape=[300, 4]).parameters["a"].int64_param = 1 << 40
    asked.outputs.add(name="z")
    asked.raw_input_contents.extend([bytes(16), bytes(300)])
    return asked.SerializeToString()


RIGHT = {fuzz_frames: conversation(), fuzz_split: message()}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 255), st.lists(FRAMES, max_size=30))
def test_any_frames(step, frames):
    fuzz_frames(bytes((step,)) + b"".join(frames))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data):
    fuzz_frames(data)
    fuzz_split(data)


@pytest.mark.parametrize("target", RIGHT)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_right_but_for_a_few_bytes(target, data):
    right = bytearray(RIGHT[target])
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, min(len(right) - 1, 1500)))
        match data.draw(st.integers(0, 2)):
            case 0:
                right[at] = data.draw(st.integers(0, 255))
            case 1:
                del right[at : at + data.draw(st.integers(1, 20))]
            case _:
                right[at:at] = data.draw(st.binary(max_size=10))
    target(bytes(right))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"\x0a\x01m", b"\x12\x011", b"\x1a\x02id", b"\x3a\x03abc", b"\x3a\x00", b"\x2a\x03\x0a\x01x"])
        | st.sampled_from(
            [b"\x38\x05", b"\x08\x01", b"\xa2\x06\x01a", b"\x32\x03\x0a\x01z", b"\x3d\0\0\0\0", b"\x0a\x00"]
        )
    )
)
def test_fields_in_any_order(fields):
    fuzz_split(b"".join(fields))
