# SPDX-License-Identifier: Apache-2.0
"""The command line or a configuration is wrong: SKY-7xxx."""

from __future__ import annotations

from skerry.errors.root import SkerryError


class UsageError(SkerryError):
    code = "SKY-7000"
    advice = "See --help."


class MissingExtra(UsageError):
    code = "SKY-7001"
    template = "{feature} needs packages that are not installed"
    advice = 'Install them: pip install "skerry[{extra}]"'


class ConfigError(UsageError):
    code = "SKY-7002"
    template = "configuration {where}: {problem}"


class GateFailed(UsageError):
    code = "SKY-7003"
    template = "{what} did not pass its gate: {detail}"
    advice = ""


class WaitTimedOut(UsageError):
    code = "SKY-7004"
    template = "{what} was not done within {seconds} s"
    advice = "It goes on in the background; ask again with `skerry rollout status`."


class PartialResult(UsageError):
    code = "SKY-7005"
    template = "{what}: {done} of {total} done"


class FileExists(UsageError):
    code = "SKY-7006"
    template = "{path} already exists"
    advice = "Choose another name; `init` and `pack` replace a file with --force."


class InputMissing(UsageError):
    code = "SKY-7007"
    template = "{path}: no such file or folder"
    advice = "Check the path."


class HubNotChosen(UsageError):
    code = "SKY-7008"
    template = "no hub chosen"
    advice = "Name one with --hub or SKERRY_HUB, remember one with `skerry login URL`, or start one with `skerry up`."


class NotConfirmed(UsageError):
    code = "SKY-7009"
    template = "{what} was not confirmed"
    advice = "Nothing was changed; without a terminal, confirm with --yes."


class CommandFailed(UsageError):
    code = "SKY-7010"
    template = "`{command}` ended with {exit_code}, expected {expected}:\n{output}"
    advice = ""


class BenchFailed(UsageError):
    code = "SKY-7011"
    template = "not measured: {problem}"
    advice = "A figure is given only for a server that answers every request; ask it with curl to see what it says."
