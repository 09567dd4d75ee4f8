# SPDX-License-Identifier: Apache-2.0
"""Real agents with real runners against a hub in a thief's hands: its disk, its online keys, the wire to it, the clock."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable

import msgspec
import pytest

from skerry.bundle import oci
from skerry.cli.push import blobs_of
from skerry.errors import NotFound
from skerry.trust import keyfile, metadata, publish
from skerry.trust.decision import CatalogueEntry
from skerry.trust.publish import DAY
from skerry.wire.v1.device import BundleRef, target_path
from skerry.wire.v1.operator import RolloutStatus
from support.stack import LINE, SKERRY, WORKLOAD, AgentChild, Stack, start_stack, tiny_bundle, wait_until
from support.thief import Thief, workload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def stack(tmp_path):
    stack = start_stack(tmp_path / "stack")
    yield stack
    stack.close()


@pytest.fixture
def thief(stack):
    with Thief(stack.url, stack.folder / "keys") as thief:
        yield thief


def ref_of(bundle: oci.Bundle) -> BundleRef:
    config = bundle.config
    return BundleRef(
        line=config.line,
        model=config.name,
        version=config.version,
        digest=bundle.digest,
        release_seq=config.release_seq,
        target=target_path(config.line, config.name, config.version),
    )


def serves(agent: AgentChild, bundle: str) -> bool:
    found = agent.workload()
    return found.get("bundle") == bundle and bool(found.get("url"))


def update(stack: Stack, agent: AgentChild) -> str:
    """Release the next version and roll it out to the end."""
    bundle = stack.publish()
    stack.await_rollout(stack.deploy(bundle), RolloutStatus.DONE)
    wait_until(f"{bundle} in use", lambda: serves(agent, bundle))
    return bundle


def refusals(stack: Stack, agent: AgentChild) -> set[str]:
    """Reasons in the device's history, as the hub has them."""
    try:
        entries = stack.client().history(agent.id).entries
    except NotFound:
        return set()
    return {str(entry.fields["reason"]) for entry in entries if "reason" in entry.fields}


def on_disk(agent: AgentChild, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in agent.state.rglob("*") if path.is_file())


def skerry(stack: Stack, *arguments: str) -> None:
    subprocess.run(
        [*SKERRY, *arguments], cwd=stack.folder, env=stack.environment, check=True, capture_output=True, timeout=60
    )


def test_stack_swapped_blob_on_the_hubs_disk(stack):
    """The hub itself serves it, with the right length and name."""
    agent = stack.add_agent("agent")
    good = update(stack, agent)
    bundle = stack.publish()
    model = next(file for file in tiny_bundle("2.0.0", 2).manifest.files if file.path == "m.onnx")
    (stored,) = (path for path in (stack.folder / "hub").rglob(model.digest.removeprefix("sha256:")) if path.is_file())
    evil = b"evil weights".ljust(stored.stat().st_size, b"!")
    stored.chmod(0o644)
    stored.write_bytes(evil)
    stack.deploy(bundle)
    wait_until("the refusal", lambda: "digest-mismatch" in refusals(stack, agent))
    assert serves(agent, good)
    assert not on_disk(agent, b"evil weights")


def test_stack_stolen_online_keys_run_nothing_that_was_not_released(stack, thief):
    agent = stack.add_agent("agent", hub=thief.url)
    update(stack, agent)
    update(stack, agent)
    good = update(stack, agent)
    sequence = itertools.count(int(time.time()) + 3)  # above what the hub issued: a sequence follows the time

    def forge(ref: BundleRef, reason: str, *, device: str = "") -> None:
        thief.assign(device or agent.id, workload(ref, WORKLOAD), sequence=next(sequence))
        wait_until(f"refusal: {reason}", lambda: reason in refusals(stack, agent), 60)
        assert serves(agent, good)

    forge(ref_of(tiny_bundle("1.0.0", 1)), "rollback")
    evil = tiny_bundle("9.0.0", 9)
    for digest, blob in blobs_of(evil):
        stack.client().put_blob(digest, blob.chunks(), size=blob.size)
    forge(ref_of(evil), "not-in-catalogue")
    forge(ref_of(evil), "other-device", device="another-device")
    forge(msgspec.structs.replace(ref_of(evil), digest="sha256:.."), "malformed")
    assert (agent.state / "device.json").exists()

    thief.instead.clear()  # the hub is taken back: it hears of the number the thief left behind, and time soon passes it
    good = update(stack, agent)

    _forge_catalogue(stack, thief, evil)
    thief.assign(agent.id, workload(ref_of(evil), WORKLOAD), sequence=next(sequence) + 1_000_000)
    wait_until("refusal of a forged release role", lambda: "unsigned" in agent.workload().get("problem", ""), 55)
    assert serves(agent, good)
    assert not (agent.state / "bundles" / evil.digest.removeprefix("sha256:")).exists()


def _forge_catalogue(stack: Stack, thief: Thief, evil: oci.Bundle) -> None:
    """All that online keys can do: fresh snapshot and timestamp over a release role with a signature of the thief's own."""
    client, own = stack.client(), keyfile.generate()
    role = f"line-{LINE}"
    current, targets = client.role_metadata(role), client.role_metadata("targets")
    assert current is not None
    assert targets is not None
    ref = ref_of(evil)
    entry = CatalogueEntry(
        target=ref.target,
        digest=ref.digest,
        size=len(evil.manifest.data),
        line=ref.line,
        model=ref.model,
        version=ref.version,
        release_seq=ref.release_seq,
    )
    forged = publish.add_release(current, entry, keys=[own], expires=time.time() + DAY)
    version = metadata.version_of(forged)
    name = publish.target_file_name(ref.target, ref.digest)
    thief.catalogue(
        {"targets": targets, role: forged},
        version=int(time.time()) + 1_000_000,  # above the hub's own, which follow the time
        served={f"catalogue/{version}.{role}.json": forged, f"targets/{name}": evil.manifest.data},
    )


def more_than(what: str, count: Callable[[], int], seen: int) -> None:
    wait_until(what, lambda: count() > seen)


def test_stack_endless_data_from_every_side(stack, thief):
    """It hangs up, goes on serving, and goes on asking; nothing of the flood is kept."""
    agent = stack.add_agent("agent", hub=thief.url)
    good = update(stack, agent)
    rollout = None
    sent = 0

    def endless():
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    for part in ("/assignment", "catalogue/timestamp.json", "/blobs/"):
        thief.instead = {part: endless}
        if part == "catalogue/timestamp.json":
            rollout = stack.deploy(stack.publish(), deadline_seconds=600.0)
        more_than(f"an endless {part}", lambda: sent, sent)
        more_than("requests after it", lambda: len(thief.asked), len(thief.asked) + 2)
        assert serves(agent, good)
    wait_until("refusal of the blob", lambda: "digest-mismatch" in refusals(stack, agent))
    assert agent.status()["rss_mib"] < 80
    assert max(path.stat().st_size for path in agent.state.rglob("*") if path.is_file()) < 8 * 2**20
    thief.instead.clear()
    assert rollout is not None
    stack.await_rollout(rollout, RolloutStatus.UNDONE)
    update(stack, agent)


def test_stack_clock_set_years_ahead_and_years_back(stack):
    """Ahead: catalogue and assignment look expired. It serves, installs nothing, and is as before once the clock is right."""
    agent = stack.add_agent("agent")
    good = update(stack, agent)
    shim = stack.folder / "clock" / "sitecustomize.py"  # what a process of this device reads first
    shim.parent.mkdir()
    agent.environment = {**agent.environment, "PYTHONPATH": str(shim.parent)}

    def restart(*, years: int) -> None:
        agent.stop()
        (agent.state / "status.json").unlink()
        shim.write_text(f"import time\nreal = time.time\ntime.time = lambda: real() + {years * 365 * DAY}\n")
        agent.start()

    def issue(name: str) -> None:
        wait_until(name, lambda: any(issue.startswith(name) for issue in agent.status().get("issues", ())))

    stack.hub.stop()
    restart(years=5)
    wait_until("serving without hub and with an expired catalogue", lambda: serves(agent, good))
    stack.hub.start()
    stack.await_ready()
    floors = (agent.state / "floors.json").read_bytes()
    newer = stack.publish()
    rollout = stack.deploy(newer, deadline_seconds=600.0)
    wait_until("refusal of catalogue and assignment", lambda: {"freeze", "expired"} <= refusals(stack, agent))
    issue("clock-off")
    assert serves(agent, good)
    assert (agent.state / "floors.json").read_bytes() == floors

    restart(years=0)
    wait_until("the update once the clock is right", lambda: serves(agent, newer))
    stack.await_rollout(rollout, RolloutStatus.DONE)
    restart(years=-9)
    issue("clock-behind")
    update(stack, agent)


def test_stack_stolen_keys_replaced_while_devices_run(stack, thief):
    """docs/how-to/keys.md: a thief of the online keys ran every number up; new keys, made offline, end it."""
    agent = stack.add_agent("agent", hub=thief.url)
    good = update(stack, agent)
    second = stack.publish()
    ref = ref_of(tiny_bundle("2.0.0", 2))
    targets, line = (stack.client().role_metadata(role) for role in ("targets", f"line-{LINE}"))
    assert targets is not None
    assert line is not None
    thief.catalogue({"targets": targets, f"line-{LINE}": line}, version=2**31, served={})
    thief.assign(agent.id, workload(ref, WORKLOAD), sequence=2**53 - 1)
    wait_until("the thief's choice among the released", lambda: serves(agent, second))
    thief.instead.clear()
    wait_until("the honest hub looking like a rollback", lambda: "rollback" in refusals(stack, agent))

    stack.hub.stop()
    keys = stack.folder / "keys"
    for name in ("snapshot", "timestamp"):
        (keys / f"online/{name}.pem").unlink()
        (keys / f"online/{name}.pub").unlink()
        skerry(stack, "keys", "new", f"keys/online/{name}", "--plain")
    _rotate(stack)
    skerry(stack, "keys", "replace-assignment-key", "--dir", "keys")
    stack.hub.start()
    stack.await_ready()
    third = update(stack, agent)
    assert good != third
    thief.assign(agent.id, workload(ref, WORKLOAD), sequence=2**53 - 1)
    wait_until("refusal of the stolen key", lambda: "unknown-key" in refusals(stack, agent))
    assert serves(agent, third)


def _rotate(stack: Stack) -> None:
    current = "keys/online/metadata/1.root.json"
    online = ("--snapshot-key", "keys/online/snapshot.pub", "--timestamp-key", "keys/online/timestamp.pub")
    skerry(stack, "keys", "root", "rotate", current, "--out", "2.root.json", *online)
    skerry(stack, "keys", "root", "sign", "2.root.json", "--previous", current, "--key", "keys/root-1.pem")
    skerry(stack, "keys", "root", "adopt", "2.root.json", "--dir", "keys")
