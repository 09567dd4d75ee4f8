# SPDX-License-Identifier: Apache-2.0
"""A seccomp filter: system calls that a model's code has no business with fail with EPERM, for good.

Source: the kernel's Documentation/userspace-api/seccomp_filter.rst; numbers from arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h. Denied are: sockets that are not unix ones, other programs and processes, other processes'
memory, namespaces and mounts, the kernel's own interfaces, and io_uring, whose operations no filter sees.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from typing import Final

_LOAD_WORD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = (
    0,
    4,
    16,
)  # in struct seccomp_data; the low half, both machines are little-endian
_ALLOW: Final = 0x7FFF0000
_FAIL: Final = 0x00050000
_SET_MODE_FILTER: Final = 1
_ALL_THREADS, _NO_SPECULATION_COST = 1 << 0, 1 << 2
_AF_UNIX: Final = 1
_CLONE_THREAD: Final = 0x00010000
_X32_BIT: Final = 0x40000000  # the other system calls an x86_64 kernel may offer under the same architecture

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What of a filter differs between architectures: numbers of system calls."""

    audit_arch: int
    seccomp: int
    socket: int
    clone: int
    clone3: int
    denied: tuple[int, ...]
    x32: bool = False


_NEW_EVERYWHERE: Final = (*range(425, 434), 438, 442)
"""io_uring_*, open_tree, move_mount, fs*, pidfd_getfd, mount_setattr: numbered alike on every architecture."""

MACHINES: Final = {
    "x86_64": Machine(
        audit_arch=0xC000003E,
        seccomp=317,
        socket=41,
        clone=56,
        clone3=435,
        x32=True,
        denied=(
            *(57, 58, 59, 322),  # fork, vfork, execve, execveat
            *(101, 310, 311, 312),  # ptrace, process_vm_readv, process_vm_writev, kcmp
            *(
                155,
                161,
                165,
                166,
                167,
                168,
                272,
                308,
            ),  # pivot_root, chroot, mount, umount2, swapon, swapoff, unshare, setns
            *(103, 163, 169, 179, 304),  # syslog, acct, reboot, quotactl, open_by_handle_at
            *(
                159,
                164,
                227,
                305,
                170,
                171,
            ),  # adjtimex, settimeofday, clock_settime, clock_adjtime, sethostname, setdomainname
            *(172, 173, 175, 176, 313, 246, 320),  # iopl, ioperm, init_module, delete_module, finit_module, kexec_*
            *(248, 249, 250, 298, 321, 323),  # add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd
            *_NEW_EVERYWHERE,
        ),
    ),
    "aarch64": Machine(
        audit_arch=0xC00000B7,
        seccomp=277,
        socket=198,
        clone=220,
        clone3=435,
        denied=(
            *(221, 281),  # execve, execveat
            *(117, 270, 271, 272),  # ptrace, process_vm_readv, process_vm_writev, kcmp
            *(41, 51, 40, 39, 224, 225, 97, 268),  # pivot_root, chroot, mount, umount2, swapon, swapoff, unshare, setns
            *(116, 89, 142, 60, 265),  # syslog, acct, reboot, quotactl, open_by_handle_at
            *(
                171,
                170,
                112,
                266,
                161,
                162,
            ),  # adjtimex, settimeofday, clock_settime, clock_adjtime, sethostname, setdomainname
            *(105, 106, 273, 104, 294),  # init_module, delete_module, finit_module, kexec_load, kexec_file_load
            *(217, 218, 219, 241, 280, 282),  # add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd
            *_NEW_EVERYWHERE,
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One instruction. Jumps count the instructions to leave out."""

    code: int
    value: int
    then: int = 0
    otherwise: int = 0

    def pack(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.then, self.otherwise, self.value)


def _fail(number: int) -> _Step:
    return _Step(code=_RETURN, value=_FAIL | number)


def program(machine: Machine) -> bytes:
    """The filter in the kernel's form: an array of struct sock_filter.

    A thread may be started, a process may not: so `clone` needs CLONE_THREAD. What `clone3` asks for lies in memory a filter
    cannot read; with ENOSYS the C library falls back to `clone`.
    """
    deny, allow = _fail(errno.EPERM), _Step(code=_RETURN, value=_ALLOW)
    steps = [
        _Step(code=_LOAD_WORD, value=_ARCH_AT),
        _Step(code=_JUMP_EQUAL, value=machine.audit_arch, then=1),
        deny,
        _Step(code=_LOAD_WORD, value=_NUMBER_AT),
    ]
    if machine.x32:
        steps += [_Step(code=_JUMP_AT_LEAST, value=_X32_BIT, otherwise=1), deny]
    steps += [_Step(code=_JUMP_EQUAL, value=machine.clone3, otherwise=1), _fail(errno.ENOSYS)]
    for number in machine.denied:
        steps += [_Step(code=_JUMP_EQUAL, value=number, otherwise=1), deny]
    argument = _Step(code=_LOAD_WORD, value=_FIRST_ARGUMENT_AT)
    steps += [_Step(code=_JUMP_EQUAL, value=machine.socket, otherwise=4), argument]
    steps += [_Step(code=_JUMP_EQUAL, value=_AF_UNIX, otherwise=1), allow, deny]
    steps += [_Step(code=_JUMP_EQUAL, value=machine.clone, otherwise=3), argument]
    steps += [_Step(code=_JUMP_SET, value=_CLONE_THREAD, then=1), deny, allow]
    return b"".join(step.pack() for step in steps)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install() -> None:
    """For every thread of this process. PR_SET_NO_NEW_PRIVS must be set. Raises OSError; then nothing has changed."""
    machine = MACHINES.get(os.uname().machine)
    if machine is None:
        raise OSError(errno.ENOSYS, f"no filter for {os.uname().machine}")
    code = program(machine)
    filled = _Program(len(code) // 8, code)
    flags = _ALL_THREADS | _NO_SPECULATION_COST
    if _libc.syscall(machine.seccomp, _SET_MODE_FILTER, flags, ctypes.byref(filled)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
