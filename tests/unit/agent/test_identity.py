# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import pytest

from skerry.agent.identity import ensure_identity, load_identity
from skerry.agent.join import JoinRequest, join
from skerry.agent.state import Layout, load_device
from skerry.effects.disk import DiskFiles
from skerry.effects.system import SystemEntropy
from skerry.errors import (
    AlreadyEnrolled,
    CatalogueRefused,
    EnrolmentRefused,
    HubUnreachable,
    NotEnrolled,
    StateDamaged,
    Unauthenticated,
)
from skerry.hub.services.tokens import check_assertion
from skerry.testing.clock import VirtualClock
from skerry.testing.files import MemoryFiles, PowerCut
from skerry.testing.network import Answer, ScriptedHttp
from skerry.testing.repository import Repository, signed_bytes
from skerry.trust import floors
from skerry.wire.v1.device import Capabilities, EnrolReply, EnrolRequest, ErrorBody

KEY = Path("/state/identity/key.pem")
STATE = Path("/state")
CAPABILITIES = Capabilities(arch="x86_64", cpus=1, memory_mib=1)


def test_key_is_made_once_and_for_its_owner_only(tmp_path):
    path = tmp_path / "identity" / "key.pem"
    before = os.umask(0o022)
    made = ensure_identity(DiskFiles(), path)
    os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_identity(DiskFiles(), path).public_key == made.public_key


def test_damaged_key_is_not_replaced():
    files = MemoryFiles()
    files.write(KEY, b"-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(StateDamaged):
        ensure_identity(files, KEY)
    assert files.read(KEY) == b"-----BEGIN PRIVATE KEY-----\n"


def test_no_key_is_no_identity():
    assert load_identity(MemoryFiles(), KEY) is None


def test_assertion_is_what_a_hub_accepts():
    identity = ensure_identity(MemoryFiles(), KEY)
    text = identity.client_assertion(device_id="d", audience="hub", now=1_000.0, entropy=SystemEntropy())
    proven = check_assertion(text, public_key=identity.public_key, audience="hub", now=1_010.0)
    assert proven.device_id == "d"
    with pytest.raises(Unauthenticated):
        check_assertion(text, public_key=identity.public_key, audience="other", now=1_010.0)
    with pytest.raises(Unauthenticated):
        check_assertion(text, public_key=identity.public_key, audience="hub", now=2_000.0)


# --- join ---


REPOSITORY = Repository(now=5.0)


class Office:
    """Takes one token once, unless the same key comes again: what a hub has to do for a retry."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.root = REPOSITORY.first_root
        self.http = ScriptedHttp({("POST", "/device/v1/enroll"): self.enrol})

    def enrol(self, request) -> Answer:
        asked = msgspec.json.decode(request.body, type=EnrolRequest)
        if asked.token != "t" or (self.keys and asked.public_key not in self.keys):
            body = ErrorBody(code="SKY-5006", message="no", fields={"problem": "token is used up"})
            return Answer(status=403, body=msgspec.json.encode(body))
        self.keys.append(asked.public_key)
        reply = EnrolReply(device_id="d-1", factory_root=self.root, audience="hub")
        return Answer(status=201, body=msgspec.json.encode(reply))


def enrol(files: MemoryFiles, office: Office, token: str = "t"):
    request = JoinRequest(hub="http://127.0.0.1:1/", token=token, name="n", labels={"a": "b"})
    return join(STATE, request, files=files, http=office.http, clock=VirtualClock(5.0), capabilities=CAPABILITIES)


def test_join_leaves_a_device():
    files, office = MemoryFiles(), Office()
    device = enrol(files, office)
    assert load_device(files, Layout(STATE)) == device
    assert (device.hub, device.device_id, device.joined) == ("http://127.0.0.1:1", "d-1", 5.0)
    assert floors.load(files, Layout(STATE).floors) == floors.Floors()
    assert files.modes[KEY] == 0o600


@pytest.mark.parametrize("root", [b"{}", b"", b"\xff", signed_bytes(REPOSITORY.root, REPOSITORY.keys["root"][:1])])
def test_hub_without_a_real_root_leaves_no_device(root):
    """It would be the one thing this folder ever believes without proof."""
    files, office = MemoryFiles(), Office()
    good, office.root = office.root, root
    with pytest.raises(CatalogueRefused):
        enrol(files, office)
    with pytest.raises(NotEnrolled):
        load_device(files, Layout(STATE))
    office.root = good
    assert enrol(files, office).device_id == "d-1"


def test_join_over_a_damaged_device_says_so():
    files, office = MemoryFiles(), Office()
    files.write(Layout(STATE).device, b"{")
    with pytest.raises(StateDamaged):
        enrol(files, office)


def test_join_never_overwrites():
    files, office = MemoryFiles(), Office()
    enrol(files, office)
    with pytest.raises(AlreadyEnrolled):
        enrol(files, office)


def test_refused_token_leaves_no_device():
    files = MemoryFiles()
    with pytest.raises(EnrolmentRefused) as caught:
        enrol(files, Office(), token="wrong")
    assert caught.value.fields == {"problem": "token is used up"}
    with pytest.raises(NotEnrolled):
        load_device(files, Layout(STATE))


def test_hub_out_of_reach_leaves_no_device():
    files, office = MemoryFiles(), Office()
    office.http.down = True
    with pytest.raises(HubUnreachable):
        enrol(files, office)
    office.http.down = False
    assert enrol(files, office).device_id == "d-1"


@pytest.mark.parametrize("torn_new", [False, True])
@pytest.mark.parametrize("operations", range(5))
def test_power_cut_anywhere_in_join_can_be_tried_again_with_the_same_key(operations, torn_new):
    files, office = MemoryFiles(), Office()
    files.cut_after(operations, torn_new=torn_new)
    with contextlib.suppress(PowerCut):
        enrol(files, office)
    files.power_on()
    with contextlib.suppress(AlreadyEnrolled):
        enrol(files, office)
    assert load_device(files, Layout(STATE)).device_id == "d-1"
    assert len(set(office.keys)) == 1
    assert floors.load(files, Layout(STATE).floors) == floors.Floors()
