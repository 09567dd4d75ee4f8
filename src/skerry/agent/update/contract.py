# SPDX-License-Identifier: Apache-2.0
"""What an update step is, and the check that it keeps its word.

A step declares the facts it requires and the facts it ensures. `run` checks the first before `apply`, and the second after
`apply` and `verify`; `revert` checks after `undo` that the facts it takes back no longer hold. Facts are looked up in the
world (store, runners, records), never remembered. A broken promise is StepContractBroken: our defect, not the bundle's.

How a step says no:
- StepRefused: trust or fit refuses; nothing was activated, the digest is not held against the bundle;
- StepFailed: the bundle was tried and failed; it is undone and remembered;
- a RoadError or StorageError passes through: try again later;
- Superseded: the hub wants something else by now; stop where you are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

from msgspec import Struct

from skerry.agent.state import Phase, Records, WorkloadRecord
from skerry.agent.store import Marker, Store
from skerry.bundle.manifest import Variant
from skerry.effects import Clock, Reply
from skerry.errors import StepContractBroken
from skerry.trust.decision import Allowed, CatalogueEntry, ConfigFacts, Refused
from skerry.wire.v1.device import Capabilities, Limits, Trial, WorkloadSpec


class StepRefused(Exception):
    """Not an error of Skerry: an answer."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StepFailed(StepRefused):
    """The bundle was tried on this device and failed."""


class Superseded(Exception):
    """The assignment changed while a step was at work."""


class Launch(Struct, frozen=True, kw_only=True):
    """What to run for a workload."""

    workload: str
    digest: str
    bundle_dir: str
    variant: str
    bundle: str = ""  # name:version, for people
    rollout: str = ""
    memory_limit_mib: int = 0
    config_digest: str = ""  # of skerry.json, whose digests cover the rest
    limits: Limits = Limits()


class Runners(Protocol):
    """The supervisor, as update steps see it. Every call but `start` blocks until it is done."""

    def listen(self, workload: str, port: int) -> int:
        """Own the workload's listening socket from now on; the port it has. `port` 0 = any. Raises AddressTaken."""

    def start(self, launch: Launch) -> None:
        """Start what is committed, aside; a start that fails is tried again. Raises AddressTaken without a port to serve on."""

    def stage(self, launch: Launch) -> None:
        """A fresh process loads and self-tests; it does not serve yet. Raises RunnerFailed, SelfTestFailed."""

    def staged(self, workload: str) -> str:
        """Digest of the staged runner that passed its self-test; empty when there is none."""

    def begin_trial(self, workload: str, trial: Trial) -> None:
        """The staged runner is shown what the one that serves is asked. Raises RunnerFailed; it is gone then."""

    def end_trial(self, workload: str, *, reason: str = "", detail: str = "") -> None:
        """No request is shown to it any more, and what was measured is reported. `reason` = it did not pass."""

    def promote(self, workload: str, *, keep_warm: bool = False) -> None:
        """The staged runner serves; then the one before it drains. Raises RunnerFailed, with the one before still serving.

        With `keep_warm` the one before stays loaded until the soak ends, if there is room for both.
        """

    def bring_back(self, workload: str, digest: str) -> bool:
        """The one kept warm serves again, and what serves now drains. False when `digest` is not kept warm, or no longer."""

    def warmth(self, workload: str) -> str:
        """In words: what is kept warm, or why nothing is; empty when nothing was to be."""

    def warm(self) -> Mapping[str, float]:
        """Workload -> MiB of its version before, where that is kept warm."""

    def let_go(self, workload: str, why: str) -> None:
        """End what is kept warm. Its memory is free when this returns. `why` is its warmth from now on."""

    def discard(self, workload: str) -> None:
        """End the staged runner, if any."""

    def stop(self, workload: str) -> None:
        """Drain what serves, and stop listening."""

    def end_orphans(self, workload: str, digest: str) -> None:
        """End what an agent that was killed left running of this bundle."""

    def serving(self, workload: str) -> str:
        """Digest that serves; empty when none."""

    def begin_soak(self, workload: str) -> None:
        """Count requests, errors, crashes and probes anew from now on."""


class Road(Protocol):
    def blob(self, digest: str, *, offset: int = 0, etag: str = "") -> Reply: ...


class TrustGate(Protocol):
    """Trust's answers. Those that reach for the catalogue may raise RoadError, CatalogueRefused or StorageError."""

    def refresh(self) -> None: ...

    def entry(self, target: str) -> CatalogueEntry | None: ...

    def manifest(self, entry: CatalogueEntry) -> bytes: ...

    def for_fetch(self, spec: WorkloadSpec, failed: frozenset[str]) -> Allowed | Refused: ...

    def for_install(self, spec: WorkloadSpec, facts: ConfigFacts, failed: frozenset[str]) -> Allowed | Refused: ...

    def committed(self, *, line: str, model: str, release_seq: int, replaced: int | None, floor_seq: int) -> None:
        """Raise the release floor, durably."""


@dataclass(kw_only=True)
class Context:
    """One update of one workload."""

    spec: WorkloadSpec
    records: Records
    store: Store
    runners: Runners
    road: Road
    permits: TrustGate
    capabilities: Capabilities
    clock: Clock
    memory_limit_mib: int = 0
    check_cancelled: Callable[[], None] = field(default=lambda: None)  # raises Superseded
    taken: Callable[[], Mapping[str, float]] = field(default=dict)  # workload -> MiB its runners hold

    @property
    def digest(self) -> str:
        return self.spec.bundle.digest

    @property
    def record(self) -> WorkloadRecord:
        return self.records.get(self.spec.name)

    @property
    def failed(self) -> frozenset[str]:
        return frozenset(failure.digest for record in self.records.all() for failure in record.failed)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `fetch` settled: which variant, and which files it takes."""

    variant: Variant
    marker: Marker
    floor_seq: int
    others: tuple[Variant, ...] = ()  # that would run here as well


class Fact(StrEnum):
    PERMITTED = "permitted"  # trust allows this bundle here and now
    STORED = "stored"  # every blob the variant needs is here, proven
    UNPACKED = "unpacked"
    STAGED = "staged"  # a fresh runner loaded it and passed its self-test
    SERVING = "serving"
    COMMITTED = "committed"


PERISHABLE = frozenset({Fact.STAGED, Fact.SERVING})
"""A process may die between any two lines: that these no longer hold is the bundle's failure, not a broken promise."""


class Step(ABC):
    phase: ClassVar[Phase | None]
    requires: ClassVar[frozenset[Fact]]
    ensures: ClassVar[frozenset[Fact]]
    takes_back: ClassVar[frozenset[Fact]] = frozenset()

    @abstractmethod
    def apply(self, context: Context) -> None: ...

    @abstractmethod
    def verify(self, context: Context) -> None:
        """Look again at what `apply` did, from outside. Raises StepRefused or StepFailed."""

    @abstractmethod
    def undo(self, context: Context) -> None:
        """Take back what `apply` may have done, however far it got. May be called any number of times."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def run(self, context: Context, holds: Callable[[Fact, Context], bool]) -> None:
        self._check(self.requires, context, holds, "before")
        self.apply(context)
        self.verify(context)
        self._check(self.ensures, context, holds, "after")

    def revert(self, context: Context, holds: Callable[[Fact, Context], bool]) -> None:
        self.undo(context)
        for fact in sorted(self.takes_back):
            if holds(fact, context):
                raise StepContractBroken(step=self.name, problem=f"{fact} still holds after undo")

    def _check(
        self, facts: frozenset[Fact], context: Context, holds: Callable[[Fact, Context], bool], when: str
    ) -> None:
        for fact in sorted(facts):
            if not holds(fact, context):
                if fact in PERISHABLE:
                    raise StepFailed("runner-failed", f"the runner ended {when} {self.name}")
                raise StepContractBroken(step=self.name, problem=f"{fact} does not hold {when} it")


def check_order(steps: Iterator[Step] | tuple[Step, ...]) -> None:
    """Every step finds what it requires in what the steps before it ensure. Raises StepContractBroken."""
    ensured: set[Fact] = set()
    for step in steps:
        missing = step.requires - ensured
        if missing:
            raise StepContractBroken(step=step.name, problem=f"nothing before it ensures {', '.join(sorted(missing))}")
        ensured |= step.ensures
