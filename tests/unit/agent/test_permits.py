# SPDX-License-Identifier: Apache-2.0
"""Everything the pure decisions need reaches them: floors, failures, policy, the clock, the catalogue in hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.agent.permits import Permits
from skerry.agent.state import Layout
from skerry.errors import CatalogueRefused, HubUnreachable
from skerry.trust import floors
from skerry.trust.decision import Allowed, ConfigFacts, InstallPolicy, Refused
from skerry.wire.v1.device import BundleRef, WorkloadSpec
from support.victim import DEVICE, Owner, Victim

DAY = 86_400.0


class Gate:
    def __init__(self, folder: Path, policy: InstallPolicy | None = None) -> None:
        self.owner = Owner()
        self.ref = self.owner.release("1.0.0", 1)
        self.victim = Victim(folder / "victim", self.owner)
        self.layout = Layout(folder / "state")
        floors.save(self.victim.files, self.layout.floors, floors.Floors())
        self.boot(policy)

    def boot(self, policy: InstallPolicy | None = None) -> None:
        self.permits = Permits(
            self.victim.catalogue(),
            self.victim.files,
            self.layout,
            self.victim.clock,
            device_id=DEVICE,
            policy=policy,
        )

    def answers(self, *failed: str, ref: BundleRef | None = None, **facts: object) -> list[str]:
        """Of both questions: the reason, or "allowed"."""
        ref = ref or self.ref
        spec = WorkloadSpec(name="w", bundle=ref)
        told = {
            "name": ref.model,
            "version": ref.version,
            "line": ref.line,
            "release_seq": ref.release_seq,
            "floor_seq": 0,
            "manifest_digest": ref.digest,
            **facts,
        }
        both = (
            self.permits.for_fetch(spec, frozenset(failed)),
            self.permits.for_install(spec, ConfigFacts(**told), frozenset(failed)),  # type: ignore[arg-type] # as told
        )
        return [str(answer.reason) if isinstance(answer, Refused) else "allowed" for answer in both]


@pytest.fixture
def gate(tmp_path):
    made = Gate(tmp_path)
    made.permits.refresh()
    return made


def test_what_was_released_and_assigned_is_allowed(gate):
    assert gate.answers() == ["allowed", "allowed"]
    assert gate.permits.refreshed == gate.victim.clock.now()


def test_what_failed_here_is_refused_by_both(gate):
    assert gate.answers(gate.ref.digest) == ["failed-before", "failed-before"]


def test_what_is_below_the_floor_is_refused_by_both_also_after_a_restart(gate):
    gate.permits.committed(line="vision", model="digits", release_seq=3, replaced=2, floor_seq=0)
    assert gate.answers() == ["rollback", "rollback"]
    gate.boot()
    assert gate.answers() == ["rollback", "rollback"]


def test_policy_of_the_device_counts_for_both(tmp_path):
    gate = Gate(tmp_path, InstallPolicy(lines=("audio",)))
    gate.permits.refresh()
    assert gate.answers() == ["wrong-line", "wrong-line"]


def test_bytes_are_looked_at_before_installation(gate):
    assert gate.answers(manifest_digest="sha256:" + "0" * 64) == ["allowed", "digest-mismatch"]
    assert gate.answers(unsafe=("self-test:int8",)) == ["allowed", "unsafe-bundle"]


def test_stale_catalogue_permits_nothing_and_a_clock_set_back_does_not_help(gate):
    gate.victim.clock.advance(DAY + 1)
    assert gate.answers() == ["freeze", "freeze"]
    gate.owner.repository.now += DAY
    gate.owner.repository.publish_timestamp()
    gate.permits.refresh()
    assert gate.answers() == ["allowed", "allowed"]
    gate.victim.clock.advance(-3 * DAY)
    assert gate.permits.now() == gate.permits.floors.time
    assert gate.answers() == ["allowed", "allowed"]


def test_without_a_hub_the_metadata_of_the_last_run_answers(gate):
    assert gate.answers() == ["allowed", "allowed"]
    gate.victim.memory.files = {}
    gate.boot()
    assert gate.permits.entry(gate.ref.target).digest == gate.ref.digest
    assert gate.answers() == ["allowed", "allowed"]


def test_refused_refresh_leaves_what_was_verified(gate):
    gate.permits.refresh()
    assert gate.answers() == ["allowed", "allowed"]
    before = gate.layout.floors.read_bytes()
    gate.owner.repository.files["timestamp.json"] = b"{}"
    with pytest.raises(CatalogueRefused):
        gate.permits.refresh()
    assert gate.answers() == ["allowed", "allowed"]
    assert gate.layout.floors.read_bytes() == before


def test_nothing_in_hand_permits_nothing(tmp_path):
    gate = Gate(tmp_path)
    gate.victim.memory.files = {}
    with pytest.raises(HubUnreachable, match="has not kept that file"):
        gate.answers()


def test_allowed_names_the_digest(gate):
    answer = gate.permits.for_fetch(WorkloadSpec(name="w", bundle=gate.ref), frozenset())
    assert answer == Allowed(digest=gate.ref.digest)
