# SPDX-License-Identifier: Apache-2.0
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.trust.chain import next_entry
from skerry.trust.dsse import key_id
from skerry.wire.v1.operator import History
from skerry.wire.v1.report import HistoryEntry
from unit.cli.scripted import NOW, device

DEVICE = "dev-press-1"


@pytest.fixture
def history():
    key = Ed25519PrivateKey.generate()
    entries: list[HistoryEntry] = []
    for number, kind in enumerate(("joined", "committed", "undone")):
        previous = entries[-1] if entries else None
        entry = next_entry(
            previous, device_id=DEVICE, at=NOW + number + 0.5, kind=kind, fields={"bundle": "weld:1"}, private_key=key
        )
        entries.append(entry)
    public = key.public_key().public_bytes_raw()
    return History(device_id=DEVICE, name="press-1", public_key=public, entries=tuple(entries))


@pytest.fixture
def audit(shell):
    def run(history, line="audit press-1"):
        shell.hub.on("GET", "/api/v1/devices/press-1", device())
        shell.hub.on("GET", f"/api/v1/devices/{DEVICE}/history", history)
        return shell(line)

    return run


def altered(history, index, **changes):
    entries = list(history.entries)
    entries[index] = msgspec.structs.replace(entries[index], **changes)
    return msgspec.structs.replace(history, entries=tuple(entries))


def test_an_intact_chain(audit, history):
    ran = audit(history)
    assert ran.code == 0
    assert [line.split()[2] for line in ran.out.splitlines()[1:]] == ["joined", "committed", "undone"]
    assert "intact: 3 entries" in ran.err
    assert history.entries[-1].hash in ran.err


@pytest.mark.parametrize("changes", [{"kind": "committed"}, {"fields": {}}, {"at": NOW}, {"signature": b"x" * 64}])
def test_an_altered_entry_is_named_and_exit_is_1(audit, history, changes):
    ran = audit(altered(history, 2, **changes))
    assert ran.code == 1
    assert "SKY-2006" in ran.err
    assert "broken at entry 3" in ran.err


def test_a_missing_entry(audit, history):
    entries = (history.entries[0], history.entries[2])
    assert "broken at entry 2: gap" in audit(msgspec.structs.replace(history, entries=entries)).err


def test_a_chain_cut_at_the_end_shows_only_against_a_known_head(audit, history):
    cut = msgspec.structs.replace(history, entries=history.entries[:2])
    assert audit(cut).code == 0
    ran = audit(cut, f"audit press-1 --head {history.entries[-1].hash}")
    assert ran.code == 1
    assert "cut" in ran.err


def test_a_hub_that_swaps_the_key_is_caught_by_the_key_id(audit, history):
    good = key_id(history.public_key)
    assert audit(history, f"audit press-1 --key {good}").code == 0
    ran = audit(history, f"audit press-1 --key {'0' * 64}")
    assert ran.code == 1
    assert "SKY-2007" in ran.err


def test_the_export_verifies_without_a_hub(audit, shell, history, tmp_path):
    path = tmp_path / "press.json"
    assert audit(history, f"audit press-1 --export {path}").code == 0
    shell.hub.replies.clear()
    shell.hub.calls.clear()
    assert shell(f"audit --from {path}").code == 0
    assert shell.hub.calls == []
    path.write_bytes(path.read_bytes().replace(b'"committed"', b'"comitted!"'))
    assert "broken at entry 2: altered" in shell(f"audit --from {path}").err


def test_a_broken_chain_is_exported_too(audit, history, tmp_path):
    path = tmp_path / "press.json"
    assert audit(altered(history, 0, kind="x"), f"audit press-1 --export {path}").code == 1
    assert path.exists()


def test_wrong_files(shell, tmp_path):
    assert "SKY-7007" in shell(f"audit --from {tmp_path / 'none'}").err
    (tmp_path / "bad").write_text("{}")
    assert "SKY-1006" in shell(f"audit --from {tmp_path / 'bad'}").err
    assert shell("audit").code == 2
    assert shell("audit press-1 --from x").code == 2


def test_json_says_the_verdict_with_the_entries(audit, history):
    report = json.loads(audit(history, "audit press-1 -o json").out)
    assert [entry["n"] for entry in report["entries"]] == [1, 2, 3]
    assert (report["verified"], report["problem"]) == (True, "")
    assert (report["head"], report["key"]) == (history.entries[-1].hash, key_id(history.public_key))
    ran = audit(altered(history, 1, kind="x"), "audit press-1 -o json")
    assert ran.code == 1
    assert json.loads(ran.out)["verified"] is False
    assert json.loads(ran.err)["code"] == "SKY-2006"


def test_no_history_yet(audit, history):
    ran = audit(msgspec.structs.replace(history, entries=()))
    assert ran.code == 0
    assert "no history yet" in ran.err
