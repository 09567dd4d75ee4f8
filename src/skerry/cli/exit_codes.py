# SPDX-License-Identifier: Apache-2.0
"""What each error means to the shell. One table, by class; the nearest class in an error's ancestry counts."""

from __future__ import annotations

from enum import IntEnum

from skerry import errors


class ExitCode(IntEnum):
    OK = 0
    ERROR = 1
    USAGE = 2  # the command line is wrong; nothing was tried
    GATE_FAILED = 3  # it ran, and a gate said no: a rollout was undone, a self-test failed
    TIMEOUT = 4  # not done within --timeout; it goes on without us
    PARTIAL = 5  # some were done, some were not
    INTERRUPTED = 130  # Ctrl-C
    BROKEN_PIPE = 141  # whoever read our output went away


TABLE: dict[type[errors.SkerryError], ExitCode] = {
    errors.SkerryError: ExitCode.ERROR,
    errors.SelfTestFailed: ExitCode.GATE_FAILED,
    errors.UsageError: ExitCode.USAGE,
    errors.MissingExtra: ExitCode.ERROR,
    errors.FileExists: ExitCode.ERROR,
    errors.BenchFailed: ExitCode.ERROR,
    errors.GateFailed: ExitCode.GATE_FAILED,
    errors.WaitTimedOut: ExitCode.TIMEOUT,
    errors.PartialResult: ExitCode.PARTIAL,
}


def exit_code(error: errors.SkerryError) -> ExitCode:
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    raise AssertionError(error)  # SkerryError itself is in the table
