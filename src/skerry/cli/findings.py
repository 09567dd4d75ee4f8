# SPDX-License-Identifier: Apache-2.0
"""The checks of `skerry doctor`. Each looks at one thing and says what it found and what to do; none changes anything."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from msgspec import Struct

from skerry.agent.state import Layout, Records, load_device
from skerry.cli.progress import size_text
from skerry.cli.settings import settings_path
from skerry.cli.times import brief, iso
from skerry.cli.world import World
from skerry.effects.disk import DiskFiles
from skerry.errors import HubNotChosen, SkerryError, StateDamaged
from skerry.trust import floors
from skerry.wire.v1.operator import Summary

_BUILT = 1_750_000_000.0  # June 2025: no clock can be right that says less than this
_CLOCK_STEP_SECONDS = 2.0  # a Date header has whole seconds, and the answer took its time
_CLOCK_WARNING_SECONDS = 30.0
_CLOCK_FAILURE_SECONDS = 300.0
_DISK_FAILURE = 200_000_000
_DISK_WARNING = 2_000_000_000
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PYTHON = (3, 11)

_BASE = ("cryptography", "msgspec", "securesystemslib", "tuf", "urllib3")
_EXTRAS = {
    "ort": ("numpy", "onnxruntime"),
    "litert": ("numpy", "ai-edge-litert"),
    "hub": ("litestar", "sqlalchemy", "alembic", "uvicorn"),
    "cli": ("click", "rich", "ruamel.yaml", "cyclonedx-python-lib"),
}


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(Struct, frozen=True, kw_only=True):
    check: str
    verdict: Verdict
    detail: str
    hint: str = ""


def machine(world: World) -> Iterator[Finding]:
    """Python, packages, clock."""
    yield python()
    yield from packages()
    yield clock(world.clock.now())


def python() -> Finding:
    text = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _PYTHON:
        return Finding(check="python", verdict=Verdict.FAILED, detail=text, hint="Skerry needs Python 3.11 or later")
    return Finding(check="python", verdict=Verdict.OK, detail=f"{text} at {sys.executable}")


def packages() -> Iterator[Finding]:
    missing = [name for name in _BASE if not _version(name)]
    if missing:
        yield Finding(
            check="packages", verdict=Verdict.FAILED, detail=f"missing: {', '.join(missing)}", hint="pip install skerry"
        )
    else:
        yield Finding(check="packages", verdict=Verdict.OK, detail=", ".join(f"{n} {_version(n)}" for n in _BASE))
    for extra, names in _EXTRAS.items():
        absent = [name for name in names if not _version(name)]
        if absent:
            detail = f"not installed ({', '.join(absent)} missing)"
            hint = f'if this machine needs it: pip install "skerry[{extra}]"'
            yield Finding(check=f"extra {extra}", verdict=Verdict.WARNING, detail=detail, hint=hint)
        else:
            detail = ", ".join(f"{name} {_version(name)}" for name in names)
            yield Finding(check=f"extra {extra}", verdict=Verdict.OK, detail=detail)
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        yield Finding(
            check="engines",
            verdict=Verdict.FAILED,
            detail="onnxruntime and onnxruntime-gpu overwrite each other",
            hint="uninstall both, then install exactly one",
        )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def clock(now: float) -> Finding:
    if now < _BUILT:
        hint = "set the clock, or start a time service; nothing signed today can be valid for it"
        return Finding(check="clock", verdict=Verdict.FAILED, detail=f"{iso(now)} cannot be right", hint=hint)
    return Finding(check="clock", verdict=Verdict.OK, detail=iso(now))


def disk(folder: Path) -> Finding:
    """Free space where `folder` is, or will be."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    detail = f"{size_text(free)} free at {place}"
    if free < _DISK_FAILURE:
        return Finding(check="disk", verdict=Verdict.FAILED, detail=detail, hint="free space; updates need room")
    if free < _DISK_WARNING:
        hint = "an update needs about twice the size of its bundle"
        return Finding(check="disk", verdict=Verdict.WARNING, detail=detail, hint=hint)
    return Finding(check="disk", verdict=Verdict.OK, detail=detail)


def settings(world: World) -> Finding:
    path = settings_path(world.environ)
    try:
        found = world.settings()
    except SkerryError as error:
        return _failed("settings", error)
    if not path.exists():
        return Finding(check="settings", verdict=Verdict.OK, detail=f"none at {path}")
    if path.stat().st_mode & _OTHERS:
        hint = f"chmod 600 {path}; it holds a token"
        return Finding(check="settings", verdict=Verdict.WARNING, detail=f"{path} is open to others", hint=hint)
    return Finding(check="settings", verdict=Verdict.OK, detail=f"{path}: hub {found.hub or 'not set'}")


def hub(world: World, *, url: str | None, token: str | None, ca: str | None) -> Iterator[Finding]:
    """Reachable, in time with us, and our token accepted."""
    try:
        client = world.hub(hub=url, token=token, ca=ca)
        date = client.date()
    except HubNotChosen as error:
        yield Finding(check="hub", verdict=Verdict.WARNING, detail=str(error), hint=error.hint())
        return
    except SkerryError as error:
        yield _failed("hub", error)
        return
    yield Finding(check="hub", verdict=Verdict.OK, detail=f"{client.url} answers")
    if date:
        yield clock_against(world.clock.now(), date)
    yield _attempt("token", lambda: _summary_text(client.summary()))


def _summary_text(summary: Summary) -> str:
    return f"accepted; version {summary.version}, {summary.devices} device(s)"


def clock_against(now: float, date: str) -> Finding:
    """Our clock against an HTTP Date header (whole seconds)."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return Finding(check="hub clock", verdict=Verdict.WARNING, detail=f"unreadable: {date}")
    gap = now - theirs
    apart = f"this machine is {brief(abs(gap))} {'ahead of' if gap > 0 else 'behind'} the hub"
    detail = "in step with the hub" if abs(gap) < _CLOCK_STEP_SECONDS else apart
    if abs(gap) > _CLOCK_FAILURE_SECONDS:
        hint = "correct one of them: tokens and freshness dates will be refused"
        return Finding(check="hub clock", verdict=Verdict.FAILED, detail=detail, hint=hint)
    if abs(gap) > _CLOCK_WARNING_SECONDS:
        return Finding(check="hub clock", verdict=Verdict.WARNING, detail=detail, hint="run a time service on both")
    return Finding(check="hub clock", verdict=Verdict.OK, detail=detail)


def state(folder: Path, now: float) -> Iterator[Finding]:
    """An agent's state folder: is everything in it readable, private and unharmed?"""
    layout, files = Layout(folder), DiskFiles()
    yield _attempt("identity", lambda: _identity(layout, files))
    yield _attempt("workloads", lambda: _workloads(layout, files))
    yield _attempt("floors", lambda: _floors(layout, files, now))
    yield outbox(layout.outbox)


def _identity(layout: Layout, files: DiskFiles) -> str:
    device = load_device(files, layout)
    mode = layout.key.stat().st_mode if layout.key.exists() else None
    if mode is None:
        raise _finding_error(f"{layout.key} is missing; the device must join anew")
    if mode & _OTHERS:
        raise _finding_error(f"{layout.key} is open to others; chmod 600 {layout.key}")
    return f"{device.name} ({device.device_id}) of {device.hub}"


def _finding_error(detail: str) -> SkerryError:
    return SkerryError(detail=detail)


def _workloads(layout: Layout, files: DiskFiles) -> str:
    known = Records(files, layout)
    records = known.all()
    for name, problem in known.damaged.items():
        raise StateDamaged(path=str(layout.workloads / f"{name}.json"), problem=problem)
    for aside in sorted(layout.workloads.glob("*.damaged")):
        raise StateDamaged(path=str(aside), problem="this record could not be read and was set aside")
    running = [f"{record.name} runs {record.committed.ref.name}" for record in records if record.committed]
    return ", ".join(running) or "none committed yet"


def _floors(layout: Layout, files: DiskFiles, now: float) -> str:
    known = floors.load(files, layout.floors, missing_ok=True)
    if floors.effective_now(now, known) > now + _CLOCK_FAILURE_SECONDS:
        raise _finding_error(f"the clock ({iso(now)}) is behind what this device has already seen; it was set back")
    return "readable, clock not behind them"


def outbox(path: Path) -> Finding:
    if not path.exists():
        return Finding(check="outbox", verdict=Verdict.OK, detail="none yet")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)) as database:
            result = str(database.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.Error as error:
        result = str(error)
    if result != "ok":
        hint = "keep the folder as it is and report it; the device goes on serving"
        return Finding(check="outbox", verdict=Verdict.FAILED, detail=f"{path}: {result}", hint=hint)
    return Finding(check="outbox", verdict=Verdict.OK, detail=f"{size_text(path.stat().st_size)}, sound")


def _attempt(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check=check, verdict=Verdict.OK, detail=look())
    except SkerryError as error:
        return _failed(check, error)


def _failed(check: str, error: SkerryError) -> Finding:
    return Finding(check=check, verdict=Verdict.FAILED, detail=f"{error} ({error.code})", hint=error.hint())
