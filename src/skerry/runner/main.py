# SPDX-License-Identifier: Apache-2.0
"""Life of a runner process: Start -> load -> self-test -> Serve -> drain. Exit codes: 0 told to end, 1 failed, 2 bad
command line or control channel, 5 self-test not passed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path

from skerry.effects.system import SystemClock, SystemEntropy
from skerry.errors import RunnerFailed, SkerryError
from skerry.runner import sandbox
from skerry.runner.app import ServingRunner
from skerry.runner.control import BadCommand, BlockingControl
from skerry.runtime import memory, variant
from skerry.runtime.selftest import SelfTestOutcome
from skerry.runtime.variant import LoadedVariant
from skerry.wire.v1.runner import Command, Drain, Drained, Failed, Loaded, Routes, SelfTested, Serve, Start

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # 15-20 % more CPU under load, the same answers
    from asyncio import new_event_loop

_logger = logging.getLogger(__name__)


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    SELF_TEST = 5


def main(argv: Sequence[str] | None = None) -> int:
    memory.settle()
    parser = argparse.ArgumentParser(
        prog="skerry-runner", description="Serves one model variant; started by the agent."
    )
    parser.add_argument("--control-fd", type=int, required=True, help="inherited unix stream socket to the agent")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        control = BlockingControl(arguments.control_fd)
    except OSError as error:
        parser.error(f"--control-fd {arguments.control_fd}: {error.strerror}")
    return _guarded(control)


def _guarded(control: BlockingControl) -> Exit:
    """Whatever goes wrong reaches the agent as an event with a code."""
    workload = "?"
    try:
        start = _first(control)
        if start is None:
            return Exit.DONE
        workload = start.workload
        return _run(control, start)
    except BadCommand as error:
        return _failed(control, RunnerFailed(workload=workload, problem=f"bad command: {error}"), Exit.USAGE)
    except SkerryError as error:
        return _failed(control, error, Exit.FAILED)
    except MemoryError:
        return _failed(control, RunnerFailed(workload=workload, problem="not enough memory"), Exit.FAILED)
    except Exception as error:  # the outermost loop: the agent must hear of a defect as of anything else
        _logger.exception("runner failed")
        return _failed(control, RunnerFailed(workload=workload, problem=repr(error)), Exit.FAILED)


def _first(control: BlockingControl) -> Start | None:
    command = control.receive()
    if command is not None and not isinstance(command, Start):
        raise BadCommand(f"{type(command).__name__} before Start")
    return command


def _failed(control: BlockingControl, error: SkerryError, code: Exit) -> Exit:
    _logger.error("%s %s", error.code, error)
    control.send(Failed(code=error.code, message=str(error)))
    return code


def _run(control: BlockingControl, start: Start) -> Exit:
    memory.limit(start.memory_limit_mib)
    report = _enter_sandbox(start)
    loaded = variant.load(Path(start.bundle_dir), start.variant, config_digest=start.config_digest, cache=_cache(start))
    control.send(
        Loaded(
            load_ms=loaded.load_ms,
            rss_mib=memory.resident_mib(),
            engine=loaded.engine.description,
            sandbox=report.layers,
        )
    )
    outcome = variant.self_test(loaded)
    control.send(
        SelfTested(
            passed=outcome.passed,
            samples=outcome.samples,
            problem=outcome.problem,
            latency_p50_ms=outcome.latency_p50_ms,
        )
    )
    if not outcome.passed:
        return Exit.SELF_TEST
    return _wait(control, start, loaded, outcome)


def _cache(start: Start) -> Path | None:
    return Path(start.cache_dir) if start.cache_dir else None


def _enter_sandbox(start: Start) -> sandbox.Report:
    """Before the first byte of the model is looked at."""
    if not start.sandbox:
        report = sandbox.OFF
    else:
        report = sandbox.enter(
            bundle=Path(start.bundle_dir),
            cache=_cache(start),
            shared_memory=start.shared_memory,
        )
    _logger.info("sandbox of %s: %s", start.workload, report)
    return report


def _wait(control: BlockingControl, start: Start, loaded: LoadedVariant, outcome: SelfTestOutcome) -> Exit:
    """Serve when told. An agent that ends or drains before has decided not to use this runner."""
    command = control.receive()
    early: list[Command] = []
    while isinstance(command, Routes):  # for when it serves
        early.append(command)
        command = control.receive()
    match command:
        case None:
            return Exit.DONE
        case Drain():
            control.send(Drained())
            return Exit.DONE
        case Serve():
            control.early[:0] = [*early, command]
            memory.settle_objects()
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(_serve(control, start, loaded, outcome))
            return Exit.DONE
        case _:
            raise BadCommand(f"{type(command).__name__} before Serve")


async def _serve(control: BlockingControl, start: Start, loaded: LoadedVariant, outcome: SelfTestOutcome) -> None:
    runner = ServingRunner(start, loaded, outcome, clock=SystemClock(), entropy=SystemEntropy())
    await runner.run(control)
