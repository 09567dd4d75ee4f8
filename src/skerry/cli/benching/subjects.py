# SPDX-License-Identifier: Apache-2.0
"""What can be measured: a bundle or model file behind a runner of its own, the same in process, or a server that runs already."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Final, Self, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec

from skerry.bundle import unpacked
from skerry.bundle.archive import SUFFIX, open_archive
from skerry.bundle.digest import digest_of
from skerry.bundle.manifest import BundleConfig, File, SelfTest, Variant
from skerry.bundle.rules import CONFIG_PATH
from skerry.cli.benching import inputs, load, processes
from skerry.cli.benching.inputs import Inputs
from skerry.cli.benching.load import Dial, Load, Order, Reply, Run, Share, Timing
from skerry.cli.benching.private import PrivateRunner, Setting
from skerry.cli.samples import make_up_inputs
from skerry.client import Client
from skerry.client import address as addresses
from skerry.client.address import Address, Scheme
from skerry.client.request import Options, Requests
from skerry.errors import BenchFailed, InputMissing, UsageError
from skerry.runtime import bundle_dir, engines
from skerry.runtime.model import chosen_here
from skerry.runtime.selftest import encode_samples, record

_PATIENCE_SECONDS: Final = 2.0
_METRICS_LIMIT: Final = 4 << 20
_WORKLOAD: Final = re.compile(rb'workload="([^"]*)"')


class Via(StrEnum):
    TCP = "tcp"
    UNIX = "unix"
    SHM = "shm"  # memory shared over the unix socket, through skerry.client
    IN_PROCESS = "in-process"


class Form(StrEnum):
    BINARY = "binary"
    JSON = "json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one subject is run; what `--set` and `--versus` change."""

    variant: str = ""
    via: Via = Via.TCP
    form: Form = Form.BINARY
    environment: dict[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """As short as it says everything: `int8, unix, json`."""
        parts = [self.variant, self.via.value, "" if self.form is Form.BINARY else self.form.value]
        parts += [f"{name}={value}" for name, value in self.environment.items()]
        return ", ".join(part for part in parts if part)


class Worker:
    """The child that asks. Closing it ends it."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", load.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_inherited(), **(environment or {})},
        )
        self._orders = cast("IO[bytes]", self.process.stdin)
        self._replies = cast("IO[bytes]", self.process.stdout)

    def ask(self, order: Order) -> Timing:
        """Raises BenchFailed."""
        line = b""
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(msgspec.json.encode(order) + b"\n")
            self._orders.flush()
            line = self._replies.readline()
        if not line:
            raise BenchFailed(problem="the process that asks has ended")
        reply: Reply = msgspec.json.decode(line, type=Reply)
        if isinstance(reply, load.Trouble):
            raise BenchFailed(problem=reply.problem)
        return reply

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def _inherited() -> dict[str, str]:
    return {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}


@dataclass(kw_only=True)
class Subject:
    """Something up and answering. `pids` of what serves, empty when that cannot be seen from here (`unseen` says why)."""

    name: str
    worker: Worker
    root: int | None
    unseen: str = ""
    cold_start: float | None = None
    runner: PrivateRunner | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        return processes.tree(self.root) if self.root else ()

    @property
    def in_process(self) -> bool:
        """Then the process that asks is the one that is measured."""
        return self.root == self.worker.process.pid

    def run(self, seconds: float, connections: int) -> Timing:
        return self.worker.ask(Run(seconds=seconds, connections=connections))

    def close(self) -> None:
        self.worker.close()
        if self.runner is not None:
            self.runner.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_url(text: str) -> bool:
    return "://" in text


def open_subject(target: str, settings: Settings, folder: Path, *, model: str = "", random: bool = False) -> Subject:
    """Raises ArtefactError, UsageError, RunnerFailed, SelfTestFailed, CallError."""
    if is_url(target):
        return _running(target, settings, model)
    bundle, config = _bundle(Path(target), folder)
    there = [variant.name for variant in config.variants]
    if settings.variant and settings.variant not in there:
        raise UsageError(detail=f"{config.name} has no variant {settings.variant}; it has {', '.join(there)}")
    chosen = bundle_dir.find_variant(config, settings.variant or chosen_here(config))
    settings = replace(settings, variant=chosen.name)
    name = f"{config.name}:{config.version} {settings.words()}"
    if settings.via is Via.IN_PROCESS:
        return _in_process(name, Load(folder=str(bundle), variant=chosen.name, random=random), settings)
    setting = Setting(variant=settings.variant, environment=settings.environment)
    runner = PrivateRunner(bundle.resolve(), setting, folder=folder)
    return _private(name, runner, _Asked(bundle=bundle.resolve(), config=config, settings=settings, random=random))


# --- a bundle or a model file --------------------------------------------------------------------------------------------


def _bundle(target: Path, folder: Path) -> tuple[Path, BundleConfig]:
    """As a folder with its config; archives are unpacked and bare models wrapped into `folder`."""
    if not target.exists():
        raise InputMissing(path=str(target))
    if target.is_file():
        inside = Path(tempfile.mkdtemp(dir=folder)) / "bundle"
        if target.suffix == SUFFIX:
            unpacked.unpack(open_archive(target), inside)
        else:
            _wrap(target, inside)
        target = inside
    return target, bundle_dir.read_config(target)


def _wrap(model: Path, folder: Path) -> None:
    """The least bundle a runner takes: one variant, golden outputs recorded here, unsigned, for this measurement only."""
    content = engines.read_model(model)
    runtime = engines.runtime_of(content)
    engine = engines.load(runtime, content, name=model.stem, path=str(model))
    asked = make_up_inputs(engine.io, inputs.COUNT)
    files = {model.name: content, "self-test.npz": encode_samples(asked, record(engine, asked))}
    config = BundleConfig(
        schema="skerry/bundle/v1",
        name=_plain(model.stem),
        version="0",
        line="bench",
        release_seq=1,
        io=engine.io,
        variants=(
            Variant(
                name="file", runtime=runtime, precision="fp32", model=model.name, files=(model.name,), size=len(content)
            ),
        ),
        self_test=SelfTest(file="self-test.npz", samples=inputs.COUNT),
        files=tuple(
            File(
                path=path, digest=digest_of(data), size=len(data), kind="weight" if path == model.name else "self-test"
            )
            for path, data in files.items()
        ),
    )
    engine.close()
    folder.mkdir()
    for path, data in files.items():
        (folder / path).write_bytes(data)
    (folder / CONFIG_PATH).write_bytes(msgspec.json.encode(config))


def _plain(name: str) -> str:
    return (
        "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()).strip("-")
        or "model"
    )


def _in_process(name: str, order: Load, settings: Settings) -> Subject:
    begun = time.monotonic()
    worker = Worker(settings.environment)
    subject = Subject(name=name, worker=worker, root=worker.process.pid)
    return _first_answer(subject, order, begun)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    bundle: Path
    config: BundleConfig
    settings: Settings
    random: bool


def _private(name: str, runner: PrivateRunner, asked: _Asked) -> Subject:
    """The worker starts while the runner loads: the kernel keeps its first request until the runner takes it."""
    subject = Subject(name=name, worker=Worker(), root=runner.pid, runner=runner)
    try:
        runner.serve()
    except BaseException:
        subject.close()
        raise
    return _first_answer(subject, _order(runner, asked), runner.begun)


def _order(runner: PrivateRunner, asked: _Asked) -> Dial | Share:
    model = asked.config.name
    if asked.settings.via is Via.SHM:
        return Share(url=f"shm://{runner.path}", model=model, folder=str(asked.bundle), random=asked.random)
    url = f"unix://{runner.path}" if asked.settings.via is Via.UNIX else f"http://127.0.0.1:{runner.port}"
    feeds = inputs.of_bundle(asked.bundle, asked.config, random=asked.random)
    return Dial(url=url, requests=_requests(url, model, feeds, asked.settings.form))


def _first_answer(subject: Subject, order: Dial | Load | Share, begun: float) -> Subject:
    try:
        subject.worker.ask(order)
    except BaseException:
        subject.close()
        raise
    subject.cold_start = time.monotonic() - begun
    return subject


def _requests(url: str, model: str, asked: Inputs, form: Form) -> list[bytes]:
    maker = Requests(address=addresses.parse(url))
    options = Options(model=model, binary=form is Form.BINARY)
    return [b"".join(bytes(part) for part in maker.infer(each, options).parts) for each in asked]


# --- a server that runs --------------------------------------------------------------------------------------------------


def _running(url: str, settings: Settings, model: str) -> Subject:
    """`URL[/MODEL]` for TCP. Inputs are made up from what the model says of itself."""
    base, named = _split(url)
    with Client(base) as client:
        model = model or named or _only(client.models())
        document = client.metadata(model)
    root, unseen = _whose(base)
    name = f"{model} at {base}" + ("" if settings.form is Form.BINARY else ", json")
    subject = Subject(name=name, worker=Worker(), root=root, unseen=unseen)
    order: Dial | Share = Share(url=base, model=model)
    if addresses.parse(base).scheme is not Scheme.SHM:
        requests = _requests(base, model, inputs.made_up(inputs.io_of(document)), settings.form)
        order = Dial(url=base, requests=requests)
    _first_answer(subject, order, time.monotonic())
    subject.cold_start = None
    return subject


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if parts.scheme != "http":
        return url, ""
    return urlunsplit(parts._replace(path="")), parts.path.strip("/")


def _only(models: list[str]) -> str:
    if len(models) == 1:
        return models[0]
    if not models:
        raise BenchFailed(problem="the server has no model")
    raise UsageError(detail=f"the server has the models {', '.join(models)}; choose one with --model")


def _of_many(address: Address) -> bool:
    """Whether this is the address of a box: then the process that listens need not be the one that answers."""
    if address.scheme is not Scheme.HTTP:
        return False
    connection = HTTPConnection(address.host, address.port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return len(set(_WORKLOAD.findall(connection.getresponse().read(_METRICS_LIMIT)))) > 1
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _whose(url: str) -> tuple[int | None, str]:
    """The process behind an address of this machine."""
    address = addresses.parse(url)
    if address.scheme is not Scheme.HTTP:
        found = processes.unix_listener(address.path)
    elif address.host in {"127.0.0.1", "localhost", "::1"}:
        found = processes.listener_of(address.port)
    else:
        return None, "the server is on another machine"
    if found and _of_many(address):
        return None, "several processes share this address; a workload's own address tells"
    return found, "" if found else "no process of yours was seen to listen there"
