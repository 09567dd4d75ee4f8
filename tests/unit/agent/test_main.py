# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from skerry.agent import selfcheck
from skerry.agent.lock import StateLock, held
from skerry.agent.main import main
from skerry.agent.notify import Notifier, watchdog_seconds
from skerry.agent.supervise import process
from skerry.errors import StateLocked
from support.mini_hub import MiniHub
from support.victim import Owner


@pytest.fixture
def hub():
    made = MiniHub(Owner(now=time.time()))
    yield made
    made.stop()


def joined(hub, state) -> list[str]:
    return ["join", "--hub", hub.url, "--token", "one-time", "--state", str(state), "--name", "n", "--label", "a=b"]


def test_join_says_who_the_device_is_and_refuses_to_do_it_twice(hub, tmp_path, capsys):
    assert main(joined(hub, tmp_path)) == 0
    assert capsys.readouterr().out == f"enrolled as device-1 (n) at {hub.url}\n"
    assert main(joined(hub, tmp_path)) == 1
    assert "SKY-4006" in capsys.readouterr().err


def test_errors_have_code_message_and_hint_also_as_json(tmp_path, capsys):
    assert main(["status", "--state", str(tmp_path)]) == 1
    text = capsys.readouterr().err
    assert text.startswith("SKY-4005 ")
    assert "skerry agent join" in text
    assert main(["--json-logs", "run", "--state", str(tmp_path)]) == 1
    told = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert told["code"] == "SKY-4005"
    assert told["fields"] == {"state": str(tmp_path)}


def test_wrong_usage_is_exit_code_2(tmp_path, capsys):
    assert main([]) == 2
    arguments = ["join", "--hub", "http://127.0.0.1:1", "--token", "t", "--state", str(tmp_path), "--label", "x"]
    assert main(arguments) == 2
    assert "KEY=VALUE" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["dance"])
    assert caught.value.code == 2


def test_plain_http_off_this_machine_is_refused(tmp_path, capsys):
    assert main(["join", "--hub", "http://192.0.2.1", "--token", "t", "--state", str(tmp_path)]) == 1
    assert "SKY-3005" in capsys.readouterr().err


def test_status_in_words_and_as_json(bench, capsys):
    ref = bench.owner.release("1.0.0", 1)
    bench.join()
    bench.hub.assign(bench.spec(ref))
    bench.start()
    bench.committed(ref)
    bench.until(
        "status", lambda: main(["status", "--state", str(bench.state)]) == 0 and "serving" in capsys.readouterr().out
    )
    main(["status", "--state", str(bench.state)])
    text = capsys.readouterr().out
    assert "bench (device-1) running" in text
    assert "eye  serving  digits:1.0.0  int8  http://127.0.0.1:" in text
    main(["status", "--state", str(bench.state), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["pid"] == os.getpid()
    assert told["workloads"][0]["committed"] == "digits:1.0.0"
    bench.stop()
    main(["status", "--state", str(bench.state)])
    assert "stopped" in capsys.readouterr().out


def test_second_agent_on_a_folder_does_not_start(bench, capsys):
    bench.join()
    bench.start()
    assert main(["run", "--state", str(bench.state)]) == 1
    assert "SKY-4007" in capsys.readouterr().err


def test_lock_is_let_go_of(tmp_path):
    path = tmp_path / "lock"
    assert not held(path)
    with StateLock(path):
        assert held(path)
        with pytest.raises(StateLocked):
            StateLock(path)
    assert not held(path)


def test_self_test_passes_here_and_says_what_is_missing(capsys, monkeypatch):
    assert main(["--self-test"]) == 0
    assert capsys.readouterr().out.count("\nok   ") == 2
    monkeypatch.setattr(selfcheck, "COMMAND", (sys.executable, "-c", "import sys; sys.exit('no engine')"))
    assert main(["--self-test"]) == 1
    assert "FAIL runner program: SKY-4003 runner of self-test failed: no engine" in capsys.readouterr().out
    assert process.COMMAND[1:] == ("-m", "skerry.runner")


def test_systemd_is_told_in_its_words(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        Notifier().tell(READY=1, STATUS="serving")
        assert ear.recv(100) == b"READY=1\nSTATUS=serving"
    Notifier().tell(READY=1)  # whoever listened is gone: no error
    monkeypatch.delenv("NOTIFY_SOCKET")
    Notifier().tell(READY=1)
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert watchdog_seconds() == 30.0
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    assert watchdog_seconds() == 0.0


def test_agent_stays_light():
    code = (
        "import sys, skerry.agent.main\n"
        "bad = {'numpy', 'onnxruntime', 'asyncio', 'httptools', 'uvloop', 'click', 'rich', 'litestar'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(bad)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


def test_two_joins_at_once_make_one_device(hub, tmp_path, capsys):
    with StateLock(tmp_path / "lock"):
        assert main(joined(hub, tmp_path)) == 1
    assert "SKY-4007" in capsys.readouterr().err
    assert not (tmp_path / "identity").exists()
    assert main(joined(hub, tmp_path)) == 0
