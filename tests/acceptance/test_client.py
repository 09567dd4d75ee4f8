# SPDX-License-Identifier: Apache-2.0
"""Our clients against a real runner, and beside it what a process that only calls models has to load."""

import asyncio
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

import skerry
from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import classifier
from skerry import errors

pytestmark = pytest.mark.slow
X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("client") / "bundle", classifier(), {"x": X})


@pytest.fixture
def local(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen(64)
    listener.set_inheritable(True)
    yield listener
    listener.close()


@pytest.fixture
def expected(bundle):
    with skerry.Model(bundle) as model:
        return model.infer({"x": X})


def same(result, expected):
    return result.keys() == expected.keys() and all(np.array_equal(result[name], expected[name]) for name in expected)


@pytest.mark.parametrize("scheme", ["http", "unix", "shm"])
def test_every_way_to_a_runner_gives_the_same(bundle, local, expected, scheme):
    with listen() as tcp:
        listener = tcp if scheme == "http" else local
        with RunnerProcess(bundle, listener).serve() as runner:
            url = f"http://{runner.url}" if scheme == "http" else f"{scheme}://{local.getsockname()}"
            with skerry.Client(url) as client:
                assert client.live()
                assert client.ready()
                assert client.ready("digits", "1.0.0")
                assert client.models() == ["digits"]
                assert client.metadata("digits")["inputs"][0]["shape"] == [-1, 4]
                assert client.config("digits")["name"] == "digits"
                for _ in range(3):
                    assert same(client.infer("digits", {"x": X}), expected)
                assert same(client.infer("digits", {"x": X}, binary=False), expected)
                result = client.infer("digits", {"x": X}, outputs=["label"], request_id="q", version="1.0.0")
                assert (list(result), result.id, result.version) == (["label"], "q", "1.0.0")
                stats = client.statistics("digits")["model_stats"][0]
                assert stats["inference_stats"]["success"]["count"] == 5
                with pytest.raises(errors.CallRefused) as caught:
                    client.infer("nothing", {"x": X})
                assert (caught.value.fields["status"], caught.value.fields["server_code"]) == (404, "SKY-6002")


def test_asyncio_calls_at_the_same_time(bundle, expected):
    async def play(url):
        async with skerry.AsyncClient(url) as client:
            answers = await asyncio.gather(*(client.infer("digits", {"x": X}) for _ in range(20)))
            assert await client.ready("digits")
            return answers

    with listen() as listener, RunnerProcess(bundle, listener).serve() as runner:
        answers = asyncio.run(play(f"http://{runner.url}"))
    assert all(same(answer, expected) for answer in answers)


@pytest.mark.parametrize("scheme", ["http", "unix", "shm"])
def test_a_switch_of_runners_loses_no_call(bundle, local, expected, scheme):
    with listen() as tcp:
        listener = tcp if scheme == "http" else local
        first = RunnerProcess(bundle, listener, linger_seconds=0.3).serve()
        url = f"http://{first.url}" if scheme == "http" else f"{scheme}://{local.getsockname()}"
        wrong: list[object] = []
        stop = threading.Event()
        count = 0

        def call():
            nonlocal count
            with skerry.Client(url) as client:
                while not stop.is_set():
                    try:
                        if not same(client.infer("digits", {"x": X}), expected):
                            wrong.append("another answer")
                    except errors.SkerryError as error:
                        wrong.append(error)
                    count += 1

        thread = threading.Thread(target=call)
        thread.start()
        with first, RunnerProcess(bundle, listener, linger_seconds=0.3).serve() as second:
            for old in (first,):
                old.process.terminate()
                assert old.wait() == 0
            reached = count
            while count < reached + 50:
                assert second.process.poll() is None
                assert thread.is_alive()
            stop.set()
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("scheme", ["unix", "shm"])
def test_a_runner_that_is_killed_is_an_error_in_time_and_the_next_one_answers(bundle, local, expected, scheme):
    url = f"{scheme}://{local.getsockname()}"
    with skerry.Client(url, timeout=10) as client:
        with RunnerProcess(bundle, local).serve() as first:
            assert same(client.infer("digits", {"x": X}), expected)
            first.stop()
        with RunnerProcess(bundle, local).serve():
            assert same(client.infer("digits", {"x": X}), expected)  # the kept connection was dead: sent once more


def test_a_caller_loads_neither_a_server_nor_an_engine():
    """What msgspec or numpy load of their own is theirs to say."""
    code = (
        "import sys, skerry.client; print([name for name in sys.modules if name.startswith(('skerry.serve', 'skerry.runner', "
        "'skerry.agent', 'skerry.hub', 'onnxruntime', 'ai_edge_litert', 'httptools', 'uvloop', 'google', 'hpack', 'urllib3'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
