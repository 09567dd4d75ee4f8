# SPDX-License-Identifier: Apache-2.0
"""The agent's real update code over files in memory, a scripted road and runners that are only names: a device that can
lose power at any write, a thousand times a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from skerry.agent.act import Actor, Means
from skerry.agent.opening import sweep
from skerry.agent.reconcile import Soak, TrialSeen
from skerry.agent.state import Layout, Records, WorkloadRecord
from skerry.agent.store import Store
from skerry.agent.transport import Backoff
from skerry.agent.update.contract import Launch
from skerry.agent.updating import Updater
from skerry.bundle import oci
from skerry.bundle.blob import content
from skerry.bundle.digest import digest_of
from skerry.errors import RunnerFailed, SelfTestFailed, StorageError
from skerry.testing.clock import VirtualClock
from skerry.testing.files import Fate, MemoryFiles
from skerry.testing.network import Answer, Request, ScriptedReply
from skerry.trust.decision import Allowed, CatalogueEntry, ConfigFacts, Refused, decide_fetch, decide_install
from skerry.trust.floors import Floors, raise_release
from skerry.wire.v1.device import Assignment, BundleRef, Capabilities, KeepWarm, Trial, WorkloadSpec, target_path
from support import bundles

LAYOUT = Layout(Path("/device"))
CAPABILITIES = Capabilities(arch="x86_64", cpus=2, memory_mib=1024, runtimes={"onnxruntime": "1"})


class Dice:
    def token(self, size: int) -> bytes:
        return b"\x80" * size


class Publisher:
    """Bundles, their blobs, and what the catalogue says of them."""

    def __init__(self, versions: int) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.entries: dict[str, CatalogueEntry] = {}
        numbers = range(1, versions + 1)
        self.refs = [self.publish(bundles.bundle(version=f"{number}.0.0", release_seq=number)) for number in numbers]

    def publish(self, bundle: oci.Bundle) -> BundleRef:
        self.manifests[bundle.digest] = bundle.manifest.data
        self.blobs |= {digest: content(blob) for digest, blob in bundle.blobs.items()}
        return self._name(bundle)

    def _name(self, bundle: oci.Bundle) -> BundleRef:
        config = bundle.config
        target = target_path(config.line, config.name, config.version)
        self.entries[target] = CatalogueEntry(
            target=target,
            digest=bundle.digest,
            size=len(bundle.manifest.data),
            line=config.line,
            model=config.name,
            version=config.version,
            release_seq=config.release_seq,
            floor_seq=config.floor_seq,
            fresh_until=9e9,
        )
        return BundleRef(
            line=config.line,
            model=config.name,
            version=config.version,
            digest=bundle.digest,
            release_seq=config.release_seq,
            target=target,
        )


class Gate:
    """Real decisions over a catalogue that is a dictionary. Survives power cuts, as floors do."""

    def __init__(self, publisher: Publisher, clock: VirtualClock) -> None:
        self.publisher = publisher
        self.clock = clock
        self.floors = Floors()
        self.allowed: set[str] = set()  # every digest that was ever allowed to be installed
        self.raised: set[int] = set()  # every release whose commit raised the floor

    def refresh(self) -> None:
        return

    def entry(self, target: str) -> CatalogueEntry | None:
        return self.publisher.entries.get(target)

    def manifest(self, entry: CatalogueEntry) -> bytes:
        return self.publisher.manifests[entry.digest]

    def for_fetch(self, spec: WorkloadSpec, failed: frozenset[str]) -> Allowed | Refused:
        return decide_fetch(
            spec=spec,
            entry=self.entry(spec.bundle.target),
            floors=self.floors,
            failed_digests=failed,
            now=self.clock.now(),
        )

    def for_install(self, spec: WorkloadSpec, facts: ConfigFacts, failed: frozenset[str]) -> Allowed | Refused:
        decision = decide_install(
            spec=spec,
            entry=self.entry(spec.bundle.target),
            facts=facts,
            floors=self.floors,
            failed_digests=failed,
            now=self.clock.now(),
        )
        if isinstance(decision, Allowed):
            self.allowed.add(decision.digest)
        return decision

    def committed(self, *, line: str, model: str, release_seq: int, replaced: int | None, floor_seq: int) -> None:
        self.raised.add(release_seq)
        self.floors = raise_release(
            self.floors, line=line, model=model, committed=release_seq, replaced=replaced, floor_seq=floor_seq
        )


class Road:
    """Blobs over a road that breaks after `patience` bytes, when that is set."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.breaks_after: int | None = None
        self.asked: list[tuple[str, int]] = []
        self.before: Callable[[], None] = lambda: None  # what happens as a blob is asked for

    def blob(self, digest: str, *, offset: int = 0, etag: str = "") -> ScriptedReply:
        self.before()
        self.asked.append((digest, offset))
        data = self.publisher.blobs[digest][offset:]
        headers = {"content-range": f"bytes {offset}-"} if offset else {}
        cut = self.breaks_after if self.breaks_after is not None and self.breaks_after < len(data) else None
        answer = Answer(status=206 if offset else 200, headers=headers, body=data, breaks_after=cut)
        return ScriptedReply(Request(method="GET", url=digest, headers={}, body=b"").url, answer)


class Runners:
    """Processes of one boot. Checks that whatever is started is whole on disk; obeys `bad` and `breaking`."""

    def __init__(self, files: MemoryFiles, clock: VirtualClock) -> None:
        self.files = files
        self.clock = clock
        self.bad: set[str] = set()  # fail their self-test
        self.unloadable: set[str] = set()
        self._serving: dict[str, str] = {}
        self._staged: dict[str, str] = {}
        self._soak: dict[str, float] = {}
        self._trial: dict[str, float] = {}
        self._warm: dict[str, str] = {}
        self.asked = 1000  # requests a version that is tried has seen, at once
        self.trial_seen: dict[str, object] = {}  # what else is seen of it
        self.trials_ended: list[str] = []  # with which reasons
        self.brought_back = 0
        self.warm_mib = 10.0
        self.let_go_for: list[str] = []
        self.crashes: dict[str, int] = {}
        self.looping: set[str] = set()
        self.served: list[str] = []
        self.not_whole: list[str] = []

    def power_off(self) -> None:
        self._serving.clear()
        self._staged.clear()
        self._soak.clear()
        self._trial.clear()
        self._warm.clear()
        self.crashes.clear()
        self.looping.clear()

    def listen(self, workload: str, port: int) -> int:
        return port or 4000 + sum(map(ord, workload))

    def start(self, launch: Launch) -> None:
        self.stage(launch)
        self.promote(launch.workload)

    def stage(self, launch: Launch) -> None:
        self.discard(launch.workload)
        store = Store(self.files, LAYOUT)
        flaw = store.flaw(launch.digest, launch.variant)
        config = self.files.read(Path(launch.bundle_dir) / "skerry.json") or b""
        if flaw or digest_of(config) != launch.config_digest:
            self.not_whole.append(f"{launch.digest}: {flaw}")
        if launch.digest in self.unloadable:
            raise RunnerFailed(workload=launch.workload, problem="it does not load")
        if launch.digest in self.bad:
            raise SelfTestFailed(variant=launch.variant, problem="wrong")
        self._staged[launch.workload] = launch.digest

    def staged(self, workload: str) -> str:
        return self._staged.get(workload, "")

    def begin_trial(self, workload: str, trial: Trial) -> None:
        self._trial[workload] = self.clock.monotonic()

    def end_trial(self, workload: str, *, reason: str = "", detail: str = "") -> None:
        if self._trial.pop(workload, None) is not None:
            self.trials_ended.append(reason)

    def trial(self, workload: str) -> TrialSeen | None:
        started = self._trial.get(workload)
        if started is None:
            return None
        elapsed = self.clock.monotonic() - started
        seen = {"elapsed": elapsed, "asked": self.asked, "compared": self.asked, "agreed": self.asked}
        return TrialSeen(**{**seen, **self.trial_seen})  # type: ignore[arg-type]  # as a test wants it

    def bring_back(self, workload: str, digest: str) -> bool:
        if self._warm.get(workload) != digest:
            return False
        self._serving[workload] = self._warm.pop(workload)
        self._soak.pop(workload, None)
        self.crashes.pop(workload, None)
        self.served.append(digest)
        self.brought_back += 1
        return True

    def warmth(self, workload: str) -> str:
        return "kept warm" if workload in self._warm else ""

    def warm(self) -> dict[str, float]:
        return dict.fromkeys(self._warm, self.warm_mib)

    def let_go(self, workload: str, why: str) -> None:
        del self._warm[workload]
        self.let_go_for.append(why)

    def promote(self, workload: str, *, keep_warm: bool = False) -> None:
        if keep_warm and self._serving.get(workload):
            self._warm[workload] = self._serving[workload]
        self._serving[workload] = self._staged.pop(workload)
        self._soak.pop(workload, None)
        self.crashes.pop(workload, None)
        self.looping.discard(workload)
        self.served.append(self._serving[workload])

    def discard(self, workload: str) -> None:
        self._staged.pop(workload, None)

    def stop(self, workload: str) -> None:
        self.discard(workload)
        self._trial.pop(workload, None)
        self._warm.pop(workload, None)
        self._serving.pop(workload, None)
        self._soak.pop(workload, None)

    def end_orphans(self, workload: str, digest: str) -> None:
        """A power cut leaves none."""

    def serving(self, workload: str) -> str:
        return self._serving.get(workload, "")

    def begin_soak(self, workload: str) -> None:
        self._soak[workload] = self.clock.monotonic()

    def end_soak(self, workload: str) -> None:
        self._soak.pop(workload, None)
        self._warm.pop(workload, None)

    def crash(self, workload: str) -> None:
        if self._serving.pop(workload, None):
            self.crashes[workload] = self.crashes.get(workload, 0) + 1

    def soak(self, workload: str) -> Soak | None:
        started = self._soak.get(workload)
        if started is None:
            return None
        return Soak(elapsed=self.clock.monotonic() - started, crashes=self.crashes.get(workload, 0))

    def crash_loop(self, workload: str, digest: str) -> bool:
        return workload in self.looping

    def restarting(self, workload: str) -> bool:
        return False


class Ledger:
    """History and outbox as one durable list; idempotent as the real ones are (tests/unit/agent/test_history.py)."""

    def __init__(self) -> None:
        self.said: list[tuple[str, WorkloadRecord]] = []
        self._seen: dict[str, int] = {}

    def emit(self, record: WorkloadRecord) -> bool:
        if not record.pending or self._seen.get(record.name) == record.revision:
            return False
        self._seen[record.name] = record.revision
        self.said += [(str(pending.report.state), record) for pending in record.pending]
        return True


class World:
    def __init__(self, *, versions: int = 4) -> None:
        self.clock = VirtualClock()
        self.publisher = Publisher(versions)
        self.files = MemoryFiles()
        self.gate = Gate(self.publisher, self.clock)
        self.road = Road(self.publisher)
        self.runners = Runners(self.files, self.clock)
        self.ledger = Ledger()
        self.assignment: Assignment | None = None
        self.sequence = 0
        self.boots = 0
        self.boot()

    def boot(self, fate: Fate = Fate.LOST) -> None:
        """A fresh agent on what is on disk."""
        self.boots += 1
        self.files.power_on(fate)
        self.runners.power_off()
        sweep(self.files, LAYOUT)
        self.records = Records(self.files, LAYOUT)
        actor = Actor(
            Means(
                records=self.records,
                history=self.ledger,
                store=Store(self.files, LAYOUT),
                runners=self.runners,
                road=self.road,
                permits=self.gate,
                capabilities=CAPABILITIES,
                clock=self.clock,
                boot=f"boot-{self.boots}",
            )
        )
        actor.settle()
        self.updater = Updater(
            actor=actor,
            records=self.records,
            supervisor=self.runners,
            clock=self.clock,
            trusted_now=self.clock.now,
            assignment=lambda: self.assignment,
            new_backoff=lambda: Backoff(Dice()),
        )

    def assign(
        self,
        *refs: BundleRef,
        soak: float = 5.0,
        sequence: int | None = None,
        trial: Trial | None = None,
        keep_warm: KeepWarm = KeepWarm.AUTO,
    ) -> None:
        self.sequence = self.sequence + 1 if sequence is None else sequence
        self.assignment = Assignment(
            device_id="d",
            sequence=self.sequence,
            issued=self.clock.now(),
            expires=self.clock.now() + 1e6,
            workloads=tuple(
                WorkloadSpec(name=f"w{number}", bundle=ref, soak_seconds=soak, trial=trial, keep_warm=keep_warm)
                for number, ref in enumerate(refs)
            ),
        )

    def rounds(self, most: int = 40) -> None:
        """Until there is nothing to do, letting time pass where the agent waits."""
        for _ in range(most):
            pause = self.turn()
            if pause:
                self.clock.advance(pause)
                if self.updater.settled and pause >= 5.0:
                    return

    def turn(self) -> float:
        """As the updater's thread does it."""
        try:
            return self.updater.round()
        except StorageError:
            return 1.0

    def states(self, ref: BundleRef) -> list[str]:
        return [state for state, record in self.ledger.said if record.pending[0].report.digest == ref.digest]

    def serving(self, workload: str = "w0") -> str:
        return self.runners.serving(workload)
