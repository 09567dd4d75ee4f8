# SPDX-License-Identifier: Apache-2.0
"""Landlock: a process gives up what it does not need of the file system and the network, for good and without being root.

Source: the kernel's Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h. The rules bind the calling
thread and those it starts, so call `restrict` while there is only one.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REG, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 5, 1 << 8, 1 << 13, 1 << 14, 1 << 15
_ALL_OF_ABI: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""ABI -> every right over files it knows; execution is among them and is never given back."""

_OF_A_FILE: Final = _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # a rule for a file may hold no others
_READ: Final = _READ_FILE | _READ_DIR
_REPLACE: Final = _READ | _WRITE_FILE | _TRUNCATE | _MAKE_REG | _REMOVE_FILE
_TCP_ABI, _TCP = 4, 0b11  # bind, connect
_SCOPE_ABI, _SCOPES = 6, 0b11  # abstract unix sockets, signals

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Access:
    """What stays allowed. Folders with everything below them; what is not there is left out."""

    read: tuple[Path, ...]
    write: tuple[Path, ...] = ()  # files and devices that may be opened for writing; nothing is made or removed
    replace: tuple[Path, ...] = ()  # folders in which files may be made, written and removed


def abi() -> int:
    """The version this kernel offers; 0 = none, or not enabled."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)))


def restrict(access: Access, version: int) -> str:
    """What is denied now, in words. `version` as `abi` gave it, at least 1. Raises OSError; then nothing has changed."""
    handled = max(rights for first, rights in _ALL_OF_ABI.items() if first <= version)
    ruleset = _create(handled, version)
    try:
        for path, rights in _rules(access):
            _allow(ruleset, path, rights & handled)
        if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            raise _last_error("landlock_restrict_self")
    finally:
        os.close(ruleset)
    denied = ["files"]
    denied += ["tcp"] if version >= _TCP_ABI else []
    denied += ["signals", "abstract sockets"] if version >= _SCOPE_ABI else []
    return f"{', '.join(denied)} (abi {version})"


def _create(handled: int, version: int) -> int:
    words = [handled]
    words += [_TCP] if version >= _TCP_ABI else []
    words += [_SCOPES] if version >= _SCOPE_ABI else []
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = int(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        raise _last_error("landlock_create_ruleset")
    return ruleset


def _rules(access: Access) -> Iterator[tuple[Path, int]]:
    for paths, rights in (
        (access.read, _READ),
        (access.write, _READ | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV),
        (access.replace, _REPLACE),
    ):
        for path in _unique(paths):
            yield path, rights


def _unique(paths: Iterable[Path]) -> Iterator[Path]:
    return iter(dict.fromkeys(paths))


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this system, or not for this user: nothing to give back
        return
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= _OF_A_FILE
        rule = struct.pack("=Qi", rights, beneath)
        if _libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise _last_error(f"landlock_add_rule {path}")
    finally:
        os.close(beneath)


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
