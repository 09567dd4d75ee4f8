# SPDX-License-Identifier: Apache-2.0
"""Command line of the agent: join, run, status, --self-test. Also used by `skerry agent ...`."""

from __future__ import annotations

import argparse
import logging
import platform
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from skerry import __version__
from skerry.agent import capabilities as capability
from skerry.agent import memory, selfcheck
from skerry.agent.app import Agent
from skerry.agent.config import AgentConfig
from skerry.agent.join import JoinRequest
from skerry.agent.join import join as join_hub
from skerry.agent.lock import StateLock
from skerry.agent.state import Device, Layout
from skerry.agent.status import Status, read_status
from skerry.effects.disk import DiskFiles
from skerry.effects.http import UrllibHttp
from skerry.effects.system import SystemClock
from skerry.errors import SkerryError, UsageError
from skerry.trust.decision import InstallPolicy

_log = logging.getLogger(__name__)

_FAILED, _USAGE = 1, 2


def join(state: Path, request: JoinRequest) -> Device:
    """Enrol this machine in the folder `state`. Raises AlreadyEnrolled, EnrolmentRefused, RoadError, DeviceError."""
    http = UrllibHttp(ca_file=request.ca_file or None, user_agent=f"skerry-agent/{__version__}")
    with StateLock(Layout(state).lock):  # two at once would make two keys
        return join_hub(
            state,
            request,
            files=DiskFiles(),
            http=http,
            clock=SystemClock(),
            capabilities=capability.measure(version=__version__),
        )


def run(config: AgentConfig) -> int:
    """Until SIGTERM or SIGINT; everything is drained when it returns. The exit code."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    memory.settle()
    agent = Agent(config, stopping)
    defect = agent.run()
    if defect:
        sys.stderr.write(f"the agent ended by a defect: {defect}\n")
    return _FAILED if defect else 0


def status(state: Path) -> Status:
    """What the agent of that folder last said, and whether it lives."""
    return read_status(DiskFiles(), Layout(state.resolve()))


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    _configure_logging(json_lines=arguments.json_logs, verbose=arguments.verbose)
    try:
        if arguments.self_test:
            return selfcheck.main()
        if arguments.command is None:
            _parser().print_help()
            return _USAGE
        return int(arguments.call(arguments))
    except SkerryError as error:
        _tell(error, as_json=arguments.json_logs)
        return _USAGE if isinstance(error, UsageError) else _FAILED


def _join(arguments: argparse.Namespace) -> int:
    labels = dict(_label(text) for text in arguments.label)
    request = JoinRequest(
        hub=arguments.hub,
        token=arguments.token,
        name=arguments.name or platform.node() or "device",
        labels=labels,
        ca_file=str(arguments.ca_file.resolve()) if arguments.ca_file else "",
    )
    device = join(arguments.state, request)
    sys.stdout.write(f"enrolled as {device.device_id} ({device.name}) at {device.hub}\n")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    return run(
        AgentConfig(
            state=arguments.state,
            listen_host=arguments.listen,
            port_base=arguments.port_base,
            sandbox=not arguments.no_sandbox,
            shared_memory=arguments.shared_memory,
            access_log=arguments.access_log,
            address=arguments.address,
            poll=arguments.poll,
            once=arguments.once,
            capability_file=arguments.capability_file,
            memory_limit_mib=arguments.memory_limit,
            policy=InstallPolicy(lines=tuple(arguments.line), allow_unsafe=tuple(arguments.allow_unsafe)),
        )
    )


def _status(arguments: argparse.Namespace) -> int:
    found = status(arguments.state)
    if arguments.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
        return 0
    reach = {True: "reachable", False: "not reachable", None: "not asked yet"}[found.hub_reachable]
    sys.stdout.write(
        f"{found.name} ({found.device_id}) {f'running, pid {found.pid}' if found.running else 'stopped'}\n"
        f"hub {found.hub} {reach}; assignment {found.assignment_sequence}; outbox {found.outbox}\n"
    )
    if found.address:
        sys.stdout.write(f"all models at http://{found.address}\n")
    if found.shared_memory:
        sys.stdout.write("clients may name regions of the system's shared memory\n")
    for work in found.workloads:
        words = (
            work.name,
            work.state,
            work.bundle or work.committed,
            work.variant,
            work.url,
            work.unix and f"unix:{work.unix}",
            work.limits and f"({work.limits})",
            work.attempt,
            work.problem,
        )
        sys.stdout.write("  " + "  ".join(word for word in words if word) + "\n")
    for issue in found.issues:
        sys.stdout.write(f"issue {issue}\n")
    return 0


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(detail=f"label {text!r} is not KEY=VALUE")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="skerry-agent", description="Runs, updates and answers for the models on this device."
    )
    parser.add_argument("--version", action="version", version=f"skerry-agent {__version__}")
    parser.add_argument(
        "--self-test", action="store_true", help="check that this installation can work, and print its size"
    )
    parser.add_argument("--json-logs", action="store_true", help="one JSON object a line on stderr")
    parser.add_argument("--verbose", action="store_true")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    joining = _command(commands, "join", "enrol this device with a one-time token")
    joining.add_argument("--hub", required=True, metavar="URL")
    joining.add_argument("--token", required=True)
    joining.add_argument("--name", default="", help="default: the host's name")
    joining.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    joining.add_argument("--ca-file", type=Path, help="authority of the hub's certificate, when it is a private one")
    joining.set_defaults(call=_join)
    running = _command(commands, "run", "follow the hub and serve")
    running.add_argument("--listen", default="127.0.0.1", metavar="HOST", help="address runners serve on")
    running.add_argument("--port-base", type=int, default=0, metavar="PORT", help="first port to use; default: any")
    running.add_argument(
        "--address",
        default="",
        metavar="HOST:PORT",
        help="one address where every model answers by its name; default: none",
    )
    running.add_argument(
        "--no-sandbox", action="store_true", help="let runners reach files, network and programs; for finding faults"
    )
    running.add_argument(
        "--shared-memory", action="store_true", help="clients on this machine may name regions of its shared memory"
    )
    running.add_argument("--access-log", action="store_true", help="a line for every request, in the runners' logs")
    running.add_argument("--poll", type=float, metavar="SECONDS", help="how long one question to the hub waits")
    running.add_argument("--once", action="store_true", help="ask, reconcile, report, then stop")
    running.add_argument("--memory-limit", type=int, default=0, metavar="MIB", help="address space of a runner")
    running.add_argument(
        "--capability-file", type=Path, help="JSON stated over what was measured, for hardware that cannot be measured"
    )
    running.add_argument(
        "--allow-unsafe",
        action="append",
        default=[],
        metavar="CHECK",
        help="take bundles packed without this check, e.g. self-test:int8; repeatable; default: refuse them all",
    )
    running.add_argument(
        "--line", action="append", default=[], metavar="NAME", help="take bundles of this product line only; repeatable"
    )
    running.set_defaults(call=_run)
    telling = _command(commands, "status", "what the agent of a state folder is doing")
    telling.add_argument("--json", action="store_true")
    telling.set_defaults(call=_status)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],  # argparse has no public name for it
    name: str,
    description: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description)
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="the device's state folder")
    return parser


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"at": record.created, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def _configure_logging(*, json_lines: bool, verbose: bool) -> None:
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(_JsonLines() if json_lines else plain)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    for chatty in ("urllib3", "tuf"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _tell(error: SkerryError, *, as_json: bool) -> None:
    if as_json:
        body = {"code": error.code, "message": str(error), "hint": error.hint(), "fields": error.fields}
        sys.stderr.write(msgspec.json.encode(body, enc_hook=str).decode() + "\n")
        return
    hint = error.hint()
    sys.stderr.write(f"{error.code} {error}\n" + (f"  {hint}\n" if hint else ""))


if __name__ == "__main__":
    sys.exit(main())
