# SPDX-License-Identifier: Apache-2.0
"""What must hold for every input: floors never fall, no altered byte passes, Allowed means every fact agrees."""

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from skerry.errors import SignatureInvalid
from skerry.trust import chain, dsse, floors
from skerry.trust.decision import Allowed, CatalogueEntry, ConfigFacts, decide_install
from skerry.trust.floors import CatalogueFloor, Floors
from skerry.wire.v1.device import BundleRef, WorkloadSpec, target_path
from skerry.wire.v1.report import HistoryEntry

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NAME = dsse.key_id(PUBLIC)
SEQ = st.integers(min_value=1, max_value=9)


@given(st.lists(st.tuples(SEQ, st.integers(0, 9), st.sampled_from(["a", "b"])), max_size=12))
def test_floors_never_fall_and_one_step_back_stays_open(commits):
    now = Floors()
    running: dict[str, int] = {}
    for number, floor_seq, model in commits:
        before = now.release("line", model)
        if number < before:
            continue  # refused: see decision
        replaced = running.get(model)
        now = floors.raise_release(
            now, line="line", model=model, committed=number, replaced=replaced, floor_seq=floor_seq
        )
        after = now.release("line", model)
        assert after >= before
        assert after <= number or after == before
        if replaced is not None and replaced >= before and floor_seq <= replaced:
            assert after <= replaced
        running[model] = number


@given(
    st.lists(st.floats(0, 4e9), max_size=8), st.lists(st.tuples(st.integers(0, 5), st.sampled_from("xy")), max_size=8)
)
def test_time_and_assignment_floors_never_fall(times, assignments):
    now = Floors()
    for time in times:
        after = floors.raise_time(now, time)
        assert after.time >= now.time
        assert floors.effective_now(time, after) >= time
        now = after
    for sequence, digest in assignments:
        after = floors.raise_assignment(now, sequence=sequence, digest=digest, keys=["k"])
        assert after.assignment_sequence >= now.assignment_sequence
        now = after


@given(st.lists(st.builds(CatalogueFloor, root=SEQ, timestamp=SEQ, snapshot=SEQ, online_keys=st.sampled_from("kq"))))
def test_catalogue_floor_never_falls_under_the_same_keys(seen):
    now = Floors()
    for versions in seen:
        after = floors.raise_catalogue(now, versions)
        assert after.catalogue.root >= now.catalogue.root
        if after.catalogue.online_keys == now.catalogue.online_keys:
            assert after.catalogue.timestamp >= now.catalogue.timestamp
        now = after


@given(st.binary(max_size=200), st.data())
def test_no_changed_byte_of_an_envelope_passes_as_something_else(payload, data):
    envelope = bytearray(dsse.sign(payload, "type", keyid=NAME, private_key=KEY))
    position = data.draw(st.integers(0, len(envelope) - 1))
    envelope[position] = data.draw(st.integers(0, 255))
    try:
        assert dsse.verify(bytes(envelope), {NAME: PUBLIC}, payload_type="type") == payload
    except SignatureInvalid:
        return


@given(st.binary(max_size=300))
def test_junk_is_refused_and_never_crashes(junk):
    try:
        dsse.verify(junk, {NAME: PUBLIC}, payload_type="type")
    except SignatureInvalid:
        return
    raise AssertionError(junk)


VALUES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
RECORDS = st.lists(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), VALUES, max_size=3), min_size=1, max_size=5
)


def recorded(records):
    entries: list[HistoryEntry] = []
    for number, fields in enumerate(records):
        previous = entries[-1] if entries else None
        made = chain.next_entry(previous, device_id="d", at=float(number), kind="k", fields=fields, private_key=KEY)
        entries.append(msgspec.json.decode(msgspec.json.encode(made), type=type(made)))
    return entries


def verdict(entries):
    return chain.verify_chain(entries, device_id="d", public_key=PUBLIC)


@given(RECORDS)
def test_recorded_history_is_intact_after_the_wire(records):
    assert verdict(recorded(records)) == chain.Intact(head=recorded(records)[-1].hash, count=len(records))


@given(RECORDS, st.data())
def test_every_cut_and_swap_is_found_where_it_is(records, data):
    entries = recorded([*records, {}])
    victim = data.draw(st.integers(0, len(entries) - 2))
    cut = entries[:victim] + entries[victim + 1 :]
    assert verdict(cut) == chain.Broken(n=victim + 1, problem=chain.ChainProblem.GAP)
    changed = list(entries)
    changed[victim] = msgspec.structs.replace(entries[victim], kind="other")
    assert verdict(changed) == chain.Broken(n=victim + 1, problem=chain.ChainProblem.ALTERED)


NAMES = st.sampled_from(["a", "b"])
FACTS = st.fixed_dictionaries(
    {"line": NAMES, "model": NAMES, "version": NAMES, "digest": NAMES, "release_seq": st.integers(1, 3)}
)


@given(FACTS, FACTS, FACTS, st.integers(0, 3), st.sets(NAMES), st.floats(0, 2))
def test_allowed_means_catalogue_assignment_and_bytes_agree(assigned, signed, made, floor, failed, now):
    target = target_path(assigned["line"], assigned["model"], assigned["version"])
    spec = WorkloadSpec(name="w", bundle=BundleRef(**assigned, target=target))
    entry = CatalogueEntry(
        **signed,
        target=target_path(signed["line"], signed["model"], signed["version"]),
        size=1,
        floor_seq=0,
        fresh_until=1.0,
    )
    facts = ConfigFacts(
        name=made["model"],
        version=made["version"],
        line=made["line"],
        release_seq=made["release_seq"],
        floor_seq=0,
        manifest_digest=made["digest"],
    )
    limits = Floors(releases={f"{signed['line']}/{signed['model']}": floor})
    decision = decide_install(spec=spec, entry=entry, facts=facts, floors=limits, failed_digests=failed, now=now)
    agree = assigned == signed == made
    fine = signed["release_seq"] >= floor and signed["digest"] not in failed and now < 1.0
    assert isinstance(decision, Allowed) == (agree and fine)
