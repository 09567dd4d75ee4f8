# SPDX-License-Identifier: Apache-2.0
"""The sandbox of a runner: the filter judged by a small interpreter of its language, the whole in a real process."""

import errno
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from skerry.runner import landlock, sandbox, seccomp

ALLOW, FAIL = 0x7FFF0000, 0x00050000
X86, ARM = seccomp.MACHINES["x86_64"], seccomp.MACHINES["aarch64"]
THREAD, FORK = 0x003D0F00, 0x01200011  # what glibc's pthread_create and fork pass to clone


def judge(machine, number, argument=0, *, arch=None):
    """What the kernel would answer: classic BPF over struct seccomp_data."""
    data = struct.pack("=iIQ6Q", number, arch or machine.audit_arch, 0, argument, 0, 0, 0, 0, 0)
    steps = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    at, accumulator = 0, 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x15:
                at += then if accumulator == value else otherwise
            case 0x35:
                at += then if accumulator >= value else otherwise
            case 0x45:
                at += then if accumulator & value else otherwise
            case 0x06:
                return value
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


@pytest.mark.parametrize("machine", [X86, ARM], ids=["x86_64", "aarch64"])
class TestFilter:
    def test_ordinary_calls_pass(self, machine):
        assert {judge(machine, number) for number in (0, 1, 3, 9, 20, 202, 281)} - {FAIL | errno.EPERM} == {ALLOW}

    def test_only_unix_sockets(self, machine):
        assert judge(machine, machine.socket, 1) == ALLOW
        for family in (0, 2, 10, 16, 17, 40):  # unspecified, inet, inet6, netlink, packet, vsock
            assert judge(machine, machine.socket, family) == FAIL | errno.EPERM

    def test_threads_and_no_processes(self, machine):
        assert judge(machine, machine.clone, THREAD | 0x00010000) == ALLOW
        assert judge(machine, machine.clone, FORK) == FAIL | errno.EPERM
        assert judge(machine, machine.clone3) == FAIL | errno.ENOSYS

    def test_every_call_on_the_list_fails(self, machine):
        assert {judge(machine, number) for number in machine.denied} == {FAIL | errno.EPERM}
        assert len(set(machine.denied)) == len(machine.denied)

    def test_calls_of_another_architecture_fail(self, machine):
        other = {X86.audit_arch: ARM.audit_arch, ARM.audit_arch: X86.audit_arch}[machine.audit_arch]
        assert judge(machine, 0, arch=other) == FAIL | errno.EPERM


def test_the_second_set_of_calls_of_x86_64_fails():
    assert judge(X86, 0x40000000 | 41, 1) == FAIL | errno.EPERM


# --- in a real process ---------------------------------------------------------------------------------------------------

PROGRAM = """
import ctypes, errno, json, os, socket, subprocess, sys, threading, traceback
from pathlib import Path
from skerry.runner import landlock, sandbox
bundle, cache, outside, port = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
inherited = socket.socket(fileno=int(sys.argv[5]))
{enter}
said = {{}}
def attempt(name, action):
    try:
        action()
    except OSError as error:
        said[name] = errno.errorcode[error.errno]
    else:
        said[name] = "done"
def connect():
    with socket.socket() as made:
        made.connect(("127.0.0.1", port))
def connect_inherited():
    inherited.connect(("127.0.0.1", port))
def fork():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
def thread():
    worker = threading.Thread(target=list)
    worker.start()
    worker.join()
attempt("read the bundle", lambda: (bundle / "model.onnx").read_bytes())
attempt("write into the bundle", lambda: (bundle / "model.onnx").write_bytes(b""))
attempt("add to the bundle", lambda: (bundle / "new").write_bytes(b""))
attempt("remove from the bundle", lambda: (bundle / "model.onnx").unlink())
attempt("read outside", lambda: outside.read_bytes())
attempt("read passwd", lambda: Path("/etc/passwd").read_bytes())
attempt("list root", lambda: os.listdir("/"))
attempt("write the cache", lambda: (cache / "new").write_bytes(b"x"))
attempt("replace in the cache", lambda: (cache / "new").rename(cache / "newer"))
attempt("read the parent", lambda: Path(f"/proc/{{os.getppid()}}/environ").read_bytes())
attempt("signal the parent", lambda: os.kill(os.getppid(), 0))
attempt("connect", connect)
attempt("connect what was inherited", connect_inherited)
attempt("unix socket", lambda: [end.close() for end in socket.socketpair()])
attempt("memory file", lambda: os.memfd_create("m"))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("start a program", lambda: subprocess.run(["/bin/true"]))
attempt("fork", fork)
attempt("thread", thread)
attempt("own figures", lambda: Path("/proc/self/statm").read_bytes())
attempt("processor", lambda: Path("/proc/cpuinfo").read_bytes())
attempt("module", lambda: __import__("wave"))
said["core"] = __import__("resource").getrlimit(4)[0]
print(json.dumps([report, said]))
"""
WHOLE = "report = sandbox.enter(bundle=bundle, cache=cache).layers"
OLD_KERNEL = (
    "report = landlock.restrict(landlock.Access(read=(bundle, Path('/usr'), Path(sys.prefix)), replace=(cache,)), 1)"
)


def confined(tmp_path, enter):
    """Report and what came of every attempt, of a process that has called `enter`."""
    bundle, cache, outside = tmp_path / "bundle", tmp_path / "cache", tmp_path / "secret"
    for folder in (bundle, cache):
        folder.mkdir()
    (bundle / "model.onnx").write_bytes(b"model")
    outside.write_bytes(b"secret")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as inherited:
        program = PROGRAM.format(enter=enter)
        words = [bundle, cache, outside, server.getsockname()[1], inherited.fileno()]
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, words)],
            pass_fds=(inherited.fileno(),),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert (bundle / "model.onnx").read_bytes() == b"model"
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine not in seccomp.MACHINES, reason="no filter for this architecture")
def test_what_a_confined_process_can_still_do(tmp_path):
    report, said = confined(tmp_path, WHOLE)
    assert report["no_new_privs"] == "on"
    assert report["seccomp"] == "on"
    denied = {name for name, result in said.items() if result in {"EPERM", "EACCES"}}
    assert denied >= {"connect", "exec", "start a program", "fork"}
    allowed = {"read the bundle", "unix socket", "memory file", "thread", "own figures", "processor", "module"}
    assert {name: said[name] for name in allowed} == dict.fromkeys(allowed, "done")
    assert said["core"] == 0
    if not landlock.abi():
        assert report["landlock"] == "off: this kernel does not offer it"
        pytest.skip("no Landlock in this kernel: the file rules are not tested")
    assert {"write the cache", "replace in the cache"} & denied == set()
    assert denied >= {
        "write into the bundle",
        "add to the bundle",
        "remove from the bundle",
        "read outside",
        "read passwd",
        "list root",
        "read the parent",
    }
    if landlock.abi() >= 4:
        assert "connect what was inherited" in denied
    if landlock.abi() >= 6:
        assert "signal the parent" in denied


@pytest.mark.slow
@pytest.mark.skipif(not landlock.abi(), reason="no Landlock in this kernel")
def test_an_older_kernel_denies_less_and_says_so(tmp_path):
    report, said = confined(
        tmp_path, "ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); " + OLD_KERNEL.replace("/usr", sys.base_prefix)
    )
    assert report == "files (abi 1)"
    assert said["read outside"] == "EACCES"
    assert said["exec"] == "EACCES"
    assert said["connect"] == "done"


def test_no_sandbox_is_reported_too():
    assert str(sandbox.OFF) == "sandbox off: not asked for"


def test_the_working_folder_is_not_taken_for_a_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tmp_path not in set(sandbox._installation())
    assert Path(os.__file__).parent in set(sandbox._installation())
