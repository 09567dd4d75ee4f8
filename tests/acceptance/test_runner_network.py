# SPDX-License-Identifier: Apache-2.0
"""A runner opens no socket of its own: what its engine would tell its maker stays untold. The engine's first attempt comes
after more than 8 s, so the trace is long.
"""

import http.client
import json
import re
import shlex
import shutil
import sys
import threading
import time

import numpy as np
import pytest

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import classifier
from skerry.wire.v1.runner import Drain, Drained

SECONDS = 48.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt install strace)"),
]


@pytest.fixture
def traced(tmp_path):
    """An executable that runs Python under strace, and the file it writes the trace to."""
    log = tmp_path / "trace"
    script = tmp_path / "python"
    words = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(log), sys.executable]
    script.write_text(f'#!/bin/sh\nunset ORT_DISABLE_TELEMETRY\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    return script, log


@pytest.mark.timeout(150)
def test_a_runner_opens_no_socket_and_leaves_no_file_in_48_seconds_of_serving(tmp_path, traced):
    python, log = traced
    home = tmp_path / "home"
    home.mkdir()
    bundle = write_bundle(tmp_path / "bundle", classifier(), {"x": np.ones((2, 4), np.float32)})
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
    with listen() as listener, RunnerProcess(bundle, listener, python=python, env={"HOME": str(home)}) as runner:
        runner.serve()
        pause, end = threading.Event(), time.monotonic() + SECONDS
        while time.monotonic() < end:
            connection = http.client.HTTPConnection(runner.url, timeout=10)
            connection.request("POST", "/v2/models/digits/infer", body)
            assert connection.getresponse().status == 200
            connection.close()
            pause.wait(1.0)
        runner.send(Drain())
        runner.expect(Drained)
        assert runner.wait() == 0
    calls = re.findall(r"^\d+ +(\w+)\((.*)$", log.read_text(), re.MULTILINE)
    assert sum(name.startswith("accept") for name, _ in calls) >= 40  # the trace does see what goes on
    assert [call for call in calls if call[0] in {"socket", "connect", "bind"}] == []
    assert list(home.rglob("*")) == []
