# SPDX-License-Identifier: Apache-2.0
"""Memory two processes share: what a client may do to its half, and to everybody else's."""

import array
import json
import mmap
import os
import secrets
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from contracts.engine.models import affine, affine_answer, build
from skerry import errors
from skerry.client import Client
from skerry.oip import slot
from skerry.oip.slot import Area, Layout
from skerry.serve.shm.regions import Allowance, Place, Regions, Registration
from skerry.serve.shm.slots import SlotLimits
from support.slot_server import SlotServer

X = np.arange(8, dtype=np.float32).reshape(2, 4)
HEAD: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": 32}}],
    "parameters": {"binary_data_output": True},
}


def gather():
    """`at` says which of 4 rows to give: what an index that changes after it was checked would read beyond."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4, 2], list(range(8)))
    return build(
        [helper.make_node("Gather", ["table", "at"], ["rows"])],
        [("at", TensorProto.INT64, ["N"])],
        [("rows", TensorProto.FLOAT, ["N", 2])],
        [table],
    )


@pytest.fixture
def server(tmp_path):
    with SlotServer(tmp_path / "s", {"m": affine(), "gather": gather()}, limits=SlotLimits(slots=4)) as server:
        yield server


def asked(document, path="/v2/models/m/slot"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: skerry-slot/1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connect(server):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(server.path))
    return connection


def opened(server, document=HEAD, path="/v2/models/m/slot"):
    """(connection, layout, memory, descriptor) of a slot made by hand."""
    connection = connect(server)
    connection.sendall(asked(document, path))
    data, fds, _, _ = socket.recv_fds(connection, 65536, 1)
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), data
    layout = json.loads(rest[4:])
    return connection, layout, mmap.mmap(fds[0], layout["size"]), fds[0]


def refused(server, data):
    connection = connect(server)
    connection.sendall(data)
    answer = connection.recv(65536)
    connection.close()
    return int(answer.split()[1])


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def still_answers(server):
    with Client(server.http) as client:
        assert np.array_equal(client.infer("m", {"x": X})["scores"], affine_answer(X))
    return True


def wait_for_slots(server, count):
    for _ in range(2000):
        if server.call(lambda: server.slots.count) == count:
            return True
    raise AssertionError(server.slots.count)


# --- slots: the client attacks -------------------------------------------------------------------------------------------


def test_a_slot_by_hand_works_as_it_should(server):
    connection, layout, memory, fd = opened(server)
    memory[layout["inputs"][0]["offset"] :][:0]
    memory[:32] = X.tobytes()
    connection.sendall(slot.RUN)
    assert connection.recv(10) == slot.DONE
    at = layout["outputs"][0]["offset"]
    assert memory[at : at + 24] == affine_answer(X).tobytes()
    connection.close()
    os.close(fd)


def test_slot_memory_cannot_be_cut_off_or_grown(server):
    connection, layout, _, fd = opened(server)
    for size in (0, layout["size"] - 1, layout["size"] + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    connection.close()
    os.close(fd)


def test_slot_memory_with_a_hole_punched_into_it_reads_as_zeros(server):
    connection, layout, memory, fd = opened(server)
    memory[:32] = X.tobytes()
    assert libc_fallocate(fd, 0x03, 0, layout["size"]) == 0  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    connection.sendall(slot.RUN)
    assert connection.recv(10) == slot.DONE
    connection.close()
    os.close(fd)


def libc_fallocate(fd, mode, offset, length):
    import ctypes

    fallocate = ctypes.CDLL(None).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    return fallocate(fd, mode, offset, length)


def test_indices_changed_while_the_model_runs_never_read_beyond(server):
    """Checked and used must be the same value: the server works on a copy. Rows 0-3 exist, all others must be refused."""
    size = 4096
    document = {
        "inputs": [{"name": "at", "shape": [size], "datatype": "INT64", "parameters": {"binary_data_size": 8 * size}}],
        "parameters": {"binary_data_output": True},
    }
    connection, layout, memory, fd = opened(server, document, "/v2/models/gather/slot")
    indices = np.ndarray(size, np.int64, memory)
    rows = np.ndarray((size, 2), np.float32, memory, layout["outputs"][0]["offset"])
    indices[:] = 0
    stop = threading.Event()

    def flip():
        while not stop.is_set():
            indices[:] = 1 << 40
            indices[:] = 3

    thread = threading.Thread(target=flip)
    thread.start()
    answered = 0
    for _ in range(300):
        connection.sendall(slot.RUN)
        said = connection.recv(65536)
        if said == slot.DONE:
            answered += 1
            assert set(np.unique(rows)) <= set(range(8))
        else:
            assert said[:1] == slot.REFUSED
    stop.set()
    thread.join()
    connection.close()
    os.close(fd)
    assert still_answers(server)


@pytest.mark.parametrize("data", [slot.RUN * 2, b"\x07", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 70_000])
def test_noise_on_a_slot_ends_it_and_nothing_else(server, data):
    connection, _, _, fd = opened(server)
    connection.sendall(data)
    heard = b""
    try:
        while more := connection.recv(65536):
            heard += more
    except ConnectionResetError:
        pass
    assert len(heard) <= 2
    connection.close()
    os.close(fd)
    assert wait_for_slots(server, 0)
    assert still_answers(server)


def test_bytes_sent_ahead_of_the_switch_are_of_no_protocol(server):
    assert refused(server, asked(HEAD) + slot.RUN) in {400, 503}
    assert refused(server, asked(HEAD) + b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n") == 503
    assert wait_for_slots(server, 0)


def test_a_slot_over_tcp_is_refused(server):
    host, port = server.tcp.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(asked(HEAD))
        answer = connection.recv(65536)
    assert b"400 " in answer.split(b"\r\n")[0]
    assert b"unix socket" in answer


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        {},
        {"inputs": []},
        {"inputs": HEAD["inputs"] * 2},
        {"inputs": HEAD["inputs"]},  # outputs as JSON
        {**HEAD, "inputs": [{**HEAD["inputs"][0], "shape": [1 << 40, 4]}]},
        {**HEAD, "inputs": [{**HEAD["inputs"][0], "shape": [-2, 4]}]},
        {**HEAD, "inputs": [{**HEAD["inputs"][0], "parameters": {"binary_data_size": 31}}]},
        {**HEAD, "inputs": [{**HEAD["inputs"][0], "parameters": {"binary_data_size": 1 << 62}}]},
        {**HEAD, "inputs": [{**HEAD["inputs"][0], "parameters": {"binary_data_size": -32}}]},
        {**HEAD, "inputs": [{**HEAD["inputs"][0], "parameters": {}, "data": [0] * 8}]},
        {**HEAD, "outputs": [{"name": "nothing"}]},
        {**HEAD, "outputs": [{"name": "scores", "parameters": {"binary_data": False}}]},
        {**HEAD, "parameters": {"timeout": -1}},
    ],
    ids=lambda document: str(document)[:60],
)
def test_a_slot_of_impossible_shapes_is_refused(server, document):
    assert refused(server, asked(document)) == 400
    assert server.call(lambda: (server.slots.count, server.slots.bytes)) == (0, 0)


def test_a_slot_larger_than_the_limit_is_refused_before_its_memory_exists(server):
    rows = 8 << 20  # 128 MiB of inputs
    document = {
        **HEAD,
        "inputs": [{**HEAD["inputs"][0], "shape": [rows, 4], "parameters": {"binary_data_size": rows * 16}}],
    }
    assert refused(server, asked(document)) == 413
    assert still_answers(server)


def test_slots_are_counted_and_come_back_when_their_clients_die(server):
    held = [opened(server) for _ in range(4)]
    assert refused(server, asked(HEAD)) == 503
    for connection, _, _, fd in held:
        os.close(fd)
        connection.close()
    assert wait_for_slots(server, 0)
    assert server.call(lambda: server.slots.bytes) == 0
    connection, _, _, fd = opened(server)
    connection.close()
    os.close(fd)


def test_a_client_that_dies_in_the_middle_of_a_run_harms_nobody(server):
    for _ in range(20):
        connection, _, _, fd = opened(server)
        connection.sendall(slot.RUN)
        connection.close()
        os.close(fd)
    assert wait_for_slots(server, 0)
    assert still_answers(server)


def test_a_client_that_never_reads_is_cut_off(server):
    connection, _, _, fd = opened(server)
    connection.setblocking(False)
    sent = 0
    try:
        while sent < 20_000:
            sent += connection.send(slot.RUN)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass
    assert still_answers(server)
    connection.close()
    os.close(fd)
    assert wait_for_slots(server, 0)


def test_a_slot_shows_nothing_of_another(server):
    one, _, memory, fd = opened(server)
    memory[:32] = b"\xaa" * 32
    two, _, other, fd2 = opened(server)
    assert other[:] == bytes(len(other))
    for connection, number in ((one, fd), (two, fd2)):
        connection.close()
        os.close(number)


# --- slots: the server attacks -------------------------------------------------------------------------------------------


def memfd(size, *, sealed=True):
    import fcntl

    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


GOOD = Layout(
    model_name="m",
    model_version="1",
    size=128,
    inputs=(Area(name="x", datatype="FP32", shape=(2, 4), offset=0),),
    outputs=(Area(name="scores", datatype="FP32", shape=(2, 3), offset=64),),
)


def changed(**changes):
    return Layout(**{**{name: getattr(GOOD, name) for name in Layout.__struct_fields__}, **changes})


def lying(path, layout, fd, *, said=slot.DONE, head=b"HTTP/1.1 101 Switching Protocols\r\n\r\n"):
    """A server that sends this and answers every RUN with `said`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve():
        connection, _ = listener.accept()
        connection.recv(65536)
        message = head + (layout if isinstance(layout, bytes) else slot.with_length(layout))
        if fd is None:
            connection.sendall(message)
        else:
            socket.send_fds(connection, [message], [fd])
        if connection.recv(1):
            connection.sendall(said)
        connection.close()
        listener.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("layout", "size", "sealed"),
    [
        (GOOD, 127, True),
        (GOOD, 128, False),
        (changed(size=1 << 40), 128, True),
        (changed(size=0), 128, True),
        (changed(outputs=(Area(name="scores", datatype="FP32", shape=(2, 30), offset=64),)), 128, True),
        (changed(outputs=(Area(name="scores", datatype="FP32", shape=(2, 3), offset=120),)), 128, True),
        (changed(outputs=(Area(name="scores", datatype="FP32", shape=(2, 3), offset=-64),)), 128, True),
        (changed(outputs=(Area(name="scores", datatype="FP32", shape=(1 << 40, 1 << 40), offset=0),)), 128, True),
        (changed(outputs=(Area(name="scores", datatype="FP32", shape=(-1, 3), offset=0),)), 128, True),
        (changed(outputs=(Area(name="scores", datatype="BYTES", shape=(1,), offset=0),)), 128, True),
        (changed(outputs=(Area(name="scores", datatype="FP8", shape=(1,), offset=0),)), 128, True),
        (changed(inputs=(Area(name="x", datatype="FP32", shape=(1, 4), offset=0),)), 128, True),
        (changed(inputs=()), 128, True),
        (b"\xff\xff\xff\xff" + b"x" * 70_000, 128, True),
        (slot.LENGTH.pack(3) + b"{}\n", 128, True),
        (slot.LENGTH.pack(1) + b"{}", 128, True),
    ],
    ids=range(16),
)
def test_a_server_that_lies_about_its_memory_is_not_believed(tmp_path, layout, size, sealed):
    fd = memfd(size, sealed=sealed)
    thread = lying(tmp_path / "s", layout, fd)
    with Client(f"shm://{tmp_path / 's'}", timeout=5) as client, pytest.raises(errors.AnswerNotUnderstood):
        client.infer("m", {"x": X})
    thread.join(5)
    os.close(fd)


def test_a_slot_without_memory_is_none(tmp_path):
    thread = lying(tmp_path / "s", GOOD, None)
    with Client(f"shm://{tmp_path / 's'}", timeout=5) as client, pytest.raises(errors.AnswerNotUnderstood):
        client.infer("m", {"x": X})
    thread.join(5)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", errors.ConnectionBroken),  # somebody spoke for a dead runner
        (b"\x09", errors.ConnectionBroken),
        (slot.REFUSED, errors.ConnectionBroken),
        (slot.REFUSED + b"\xff\xff\xff\xff", errors.ConnectionBroken),
        (slot.REFUSED + slot.LENGTH.pack(2) + b"{}", errors.AnswerNotUnderstood),
        (slot.REFUSED + slot.LENGTH.pack(2) + b"{}x", errors.AnswerNotUnderstood),
        (slot.DONE * 2, errors.ConnectionBroken),
        (slot.REFUSED + slot.with_length(slot.Refusal(error="no", code="SKY-6001", status=400)), errors.CallRefused),
    ],
    ids=range(8),
)
def test_a_servers_word_that_is_none_is_an_error_and_no_answer(tmp_path, said, error):
    fd = memfd(128)
    thread = lying(tmp_path / "s", GOOD, fd, said=said)
    with Client(f"shm://{tmp_path / 's'}", timeout=5) as client, pytest.raises(error):
        client.infer("m", {"x": X})
    thread.join(5)
    os.close(fd)


# --- registered regions --------------------------------------------------------------------------------------------------


@pytest.fixture
def key():
    """A shared memory object of 4096 bytes, all 0x3f."""
    name = f"skerry-test-{secrets.token_hex(6)}"
    path = Path("/dev/shm") / name
    path.write_bytes(b"\x3f" * 4096)
    yield name
    path.unlink(missing_ok=True)


@pytest.fixture
def regions(key):
    regions = Regions()
    regions.register("mine", Registration(key=key, byte_size=1024, offset=512))
    return regions


def place(offset, size, region="mine"):
    return Place(region=region, offset=offset, size=size)


def test_what_was_registered_is_read_and_written(regions, key):
    assert regions.read("input x", place(0, 1024), Allowance(4096)) == b"\x3f" * 1024
    regions.write("output y", place(8, 4), b"abcd")
    assert Path("/dev/shm", key).read_bytes()[520:524] == b"abcd"
    assert regions.status("mine") == [{"name": "mine", "key": key, "offset": 512, "byte_size": 1024}]


PAST = [
    place(0, 1025),
    place(1024, 1),
    place(1 << 62, 1 << 62),
    place(2**64 - 1, 2),
    place(-1, 4),
    place(0, -1),
    place(0, 4, "other"),
]


@pytest.mark.parametrize("wrong", PAST, ids=str)
def test_a_range_past_the_end_or_of_nobody_looks_all_the_same(regions, wrong):
    """Also sums that would overflow: Triton had a CVE for them, and one for texts that told of others' regions."""
    texts = set()
    for attempt in (
        lambda: regions.read("input x", wrong, Allowance(4096)),
        lambda: regions.write("input x", wrong, b""),
    ):
        with pytest.raises(errors.InferenceRequestInvalid) as caught:
            attempt()
        texts.add(str(caught.value))
    assert texts == {"input x does not lie in shared memory that is registered"}


def test_a_region_cut_short_after_it_was_registered_kills_nobody(regions, key):
    """A mapping of it would end this process with SIGBUS."""
    os.truncate(f"/dev/shm/{key}", 600)
    with pytest.raises(errors.InferenceRequestInvalid):
        regions.read("input x", place(0, 1024), Allowance(4096))
    with pytest.raises(errors.InferenceRequestInvalid):
        regions.write("output y", place(0, 1024), b"x" * 1024)
    assert Path("/dev/shm", key).stat().st_size == 600
    assert regions.read("input x", place(0, 88), Allowance(4096)) == b"\x3f" * 88


def test_a_region_cut_and_grown_without_end_while_it_is_read(regions, key):
    stop = threading.Event()

    def shake():
        while not stop.is_set():
            os.truncate(f"/dev/shm/{key}", 0)
            os.truncate(f"/dev/shm/{key}", 4096)

    thread = threading.Thread(target=shake)
    thread.start()
    for _ in range(2000):
        try:
            assert len(regions.read("input x", place(0, 1024), Allowance(4096))) == 1024
            regions.write("output y", place(0, 4), b"abcd")
        except errors.InferenceRequestInvalid:
            pass
    stop.set()
    thread.join()


@pytest.mark.parametrize(
    "wrong",
    ["", "/", ".", "..", "../etc/passwd", "/../etc/passwd", "a/b", "//a", "a\0b", "x" * 300, "nothing-of-this-name"],
)
def test_a_key_is_a_name_and_no_path(regions, wrong):
    with pytest.raises(errors.InferenceRequestInvalid) as caught:
        regions.register("new", Registration(key=wrong, byte_size=1))
    assert "/dev/shm" not in str(caught.value)


def test_a_key_that_is_a_link_a_folder_or_a_pipe_is_refused(regions, tmp_path):
    token = secrets.token_hex(6)
    target = tmp_path / "secret"
    target.write_bytes(b"s" * 4096)
    link, folder, pipe = (Path("/dev/shm") / f"skerry-{kind}-{token}" for kind in ("link", "folder", "pipe"))
    link.symlink_to(target)
    folder.mkdir()
    os.mkfifo(pipe)
    try:
        for path in (link, folder, pipe):
            with pytest.raises(errors.InferenceRequestInvalid):
                regions.register("new", Registration(key=path.name, byte_size=1))
    finally:
        link.unlink()
        folder.rmdir()
        pipe.unlink()


@pytest.mark.parametrize(("offset", "size"), [(0, 4097), (4096, 1), (-1, 4), (0, 0), (0, -1), (1 << 62, 1 << 62)])
def test_a_region_larger_than_its_object_is_not_registered(regions, key, offset, size):
    with pytest.raises(errors.InferenceRequestInvalid):
        regions.register("new", Registration(key=key, byte_size=size, offset=offset))
    assert len(regions.status()) == 1


def test_a_name_cannot_be_taken_over(regions, key):
    with pytest.raises(errors.InferenceRequestInvalid):
        regions.register("mine", Registration(key=key, byte_size=16))
    assert regions.status("mine")[0]["byte_size"] == 1024


def test_regions_and_descriptors_are_bounded(key):
    before = descriptors()
    regions = Regions()
    for number in range(256):
        regions.register(str(number), Registration(key=key, byte_size=1))
    with pytest.raises(errors.InferenceRequestInvalid):
        regions.register("one more", Registration(key=key, byte_size=1))
    regions.unregister("")
    assert descriptors() <= before
    assert regions.status() == []


def test_unregistered_while_it_is_used_it_is_closed_with_its_last_use(regions, key):
    """A descriptor closed too early could by then be somebody else's file."""
    held, _ = regions._find("x", place(0, 4))
    regions.unregister("mine")
    assert os.pread(held.fd, 4, 0) == b"\x3f" * 4
    number = held.fd
    del held
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_slots_have_no_name_that_could_be_registered(server):
    connection, _, _, fd = opened(server)
    assert not [path for path in Path("/dev/shm").iterdir() if "slot" in path.name]
    connection.close()
    os.close(fd)


def test_an_output_that_does_not_fit_writes_nothing(regions, key):
    before = Path("/dev/shm", key).read_bytes()
    with pytest.raises(errors.InferenceRequestInvalid):
        regions.write("output y", place(0, 8), b"x" * 9)
    assert Path("/dev/shm", key).read_bytes() == before


def in_region(region, size=16, offset=0):
    return {"shared_memory_region": region, "shared_memory_byte_size": size, "shared_memory_offset": offset}


def infer(server, inputs, outputs=(), tail=b""):
    head = json.dumps({"inputs": inputs, "outputs": list(outputs)}).encode()
    lines = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {len(head) + len(tail)}\r\n"
    if tail:
        lines += f"Inference-Header-Content-Length: {len(head)}\r\n"
    connection = connect(server)
    connection.sendall(lines.encode() + b"\r\n" + head + tail)
    answer = connection.recv(65536)
    connection.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def x_in(**parameters):
    return {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": parameters}


def test_without_being_offered_shared_memory_is_refused_everywhere(server, key):
    status, answer = infer(server, [x_in(**in_region("mine"))])
    assert (status, "not offered" in answer["error"]) == (400, True)
    body = json.dumps({"key": key, "byte_size": 1, "offset": 0}).encode()
    path = "/v2/systemsharedmemory/region/mine/register"
    assert refused(server, asked(body, path)) == 404


WRONG = [
    in_region("nobody's"),
    in_region("mine", 17),
    in_region("mine", 16, 4081),
    in_region("mine", 16, 1 << 62),
    in_region("mine", -16),
    in_region("mine", 16, -4),
    in_region("mine", 12),
    in_region("mine", "16"),
    in_region("mine", True),
    {"shared_memory_region": "mine"},
    {"shared_memory_region": 7, "shared_memory_byte_size": 16},
    {"shared_memory_region": "mine", "shared_memory_byte_size": 16, "binary_data_size": 16},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_place_that_is_none_is_refused_for_inputs_and_outputs(tmp_path, key, wrong):
    regions = Regions()
    regions.register("mine", Registration(key=key, byte_size=4096))
    regions.register("somebody-elses", Registration(key=key, byte_size=777))
    with SlotServer(tmp_path / "s", {"m": affine()}, regions=regions) as server:
        texts = []
        status, answer = infer(server, [x_in(**wrong)])
        assert status == 400
        texts.append(answer["error"])
        if "binary_data_size" not in wrong and wrong.get("shared_memory_byte_size") != 17:
            good = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}
            size = wrong.get("shared_memory_byte_size")
            status, answer = infer(server, [good], [{"name": "scores", "parameters": wrong}])
            assert status == (200 if size == 12 else 400)
            texts.append(answer.get("error", ""))
        assert not [text for text in texts if "somebody" in text or "777" in text or key in text]
        assert still_answers(server)


def test_a_region_of_a_terabyte_that_is_mostly_holes_is_not_read(tmp_path, key):
    """What lies in regions counts like a body, all of it together: an object of any size costs its maker nothing."""
    os.truncate(f"/dev/shm/{key}", 1 << 40)
    regions = Regions()
    regions.register("mine", Registration(key=key, byte_size=1 << 40))
    with SlotServer(tmp_path / "s", {"m": affine()}, regions=regions) as server:
        status, answer = infer(server, [x_in(**in_region("mine", 1 << 40))])
        assert (status, "exceeds" in answer["error"]) == (413, True)
        status, _ = infer(server, [x_in(**in_region("mine", 40 << 20)) for _ in range(200)])
        assert status == 413
        assert still_answers(server)


def test_the_same_bytes_as_input_and_output(tmp_path, key):
    regions = Regions()
    regions.register("mine", Registration(key=key, byte_size=4096))
    Path("/dev/shm", key).write_bytes(X.tobytes() + bytes(4064))
    with SlotServer(tmp_path / "s", {"m": affine()}, regions=regions) as server:
        outputs = [{"name": "scores", "parameters": in_region("mine", 24)}]
        status, answer = infer(server, [{**x_in(**in_region("mine", 32)), "shape": [2, 4]}], outputs)
        assert status == 200
        assert answer["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [2, 3]}
        found = np.frombuffer(Path("/dev/shm", key).read_bytes()[:24], np.float32).reshape(2, 3)
        assert np.array_equal(found, affine_answer(X))


def test_descriptors_that_come_with_a_request_are_not_kept(server):
    """A client may send descriptors along with any bytes: those nobody asked for must not pile up here."""
    before = server.call(descriptors)
    connection = connect(server)
    numbers = array.array("i", [0] * 8)
    connection.sendmsg([b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
    assert b"200 OK" in connection.recv(65536)
    after = server.call(descriptors)
    connection.close()
    assert after <= before + 2
