# SPDX-License-Identifier: Apache-2.0
"""The second signature: what ONE device shall run, as a DSSE envelope made by the hub's online key."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

import msgspec
from msgspec import Struct

from skerry.bundle.rules import name_problem
from skerry.errors import SignatureInvalid
from skerry.trust import dsse
from skerry.trust.floors import Floors, effective_now
from skerry.wire.v1.device import ASSIGNMENT_TYPE, Assignment, AssignmentKeys, target_path


class AssignmentRefusal(StrEnum):
    MALFORMED = "malformed"
    WRONG_TYPE = "wrong-type"
    UNSIGNED = "unsigned"
    NO_KEYS = "no-keys"
    BAD_KEY = "bad-key"
    UNKNOWN_KEY = "unknown-key"
    DUPLICATE_KEY = "duplicate-key"
    BAD_SIGNATURE = "bad-signature"
    OTHER_DEVICE = "other-device"
    REPLAYED = "replayed"  # an older one than was already accepted
    FORKED = "forked"  # the number of the accepted one, with other content
    EXPIRED = "expired"


class Accepted(Struct, frozen=True, kw_only=True):
    assignment: Assignment
    digest: str  # of the signed payload: give it to floors.raise_assignment
    clock_behind: float = 0.0  # seconds by which the issuing hub's clock was ahead of ours; large = our clock is wrong


class Refused(Struct, frozen=True, kw_only=True):
    reason: AssignmentRefusal
    detail: str


def sign_assignment(assignment: Assignment, private_key: dsse.Signs, keyid: str) -> bytes:
    """Envelope as JSON bytes. The same assignment and key give the same bytes, so it can be named by an ETag."""
    payload = msgspec.json.encode(assignment, order="deterministic")
    return dsse.sign(payload, ASSIGNMENT_TYPE, keyid=keyid, private_key=private_key)


def decide_assignment(
    envelope: bytes, *, keys: AssignmentKeys, device_id: str, floors: Floors, now: float
) -> Accepted | Refused:
    """Whether this device follows the assignment. `keys` come from the catalogue, `now` is the clock's seconds.

    A future `issued` is no reason to refuse: a device without a battery-backed clock would never follow its hub again,
    and the sequence number, not the date, is what stops replay. `clock_behind` tells of it.
    """
    named = {key.keyid: key.public_key for key in keys.keys}
    if len(named) != len(keys.keys):
        return Refused(reason=AssignmentRefusal.DUPLICATE_KEY, detail="the catalogue names one key twice")
    try:
        payload = dsse.verify(envelope, named, payload_type=ASSIGNMENT_TYPE)
    except SignatureInvalid as error:
        return Refused(reason=AssignmentRefusal(str(error.fields["reason"])), detail=str(error))
    try:
        assignment = msgspec.json.decode(payload, type=Assignment)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Refused(reason=AssignmentRefusal.MALFORMED, detail=str(error))
    digest = f"sha256:{sha256(payload).hexdigest()}"
    refused = _flaw(assignment) or _misaddressed(assignment, digest, device_id, floors, now)
    if refused is not None:
        return refused
    return Accepted(assignment=assignment, digest=digest, clock_behind=max(0.0, assignment.issued - now))


def _flaw(assignment: Assignment) -> Refused | None:
    names = [workload.name for workload in assignment.workloads]
    if len(set(names)) != len(names):
        return Refused(reason=AssignmentRefusal.MALFORMED, detail="two workloads have one name")
    if assignment.sequence < 1 or not assignment.issued <= assignment.expires:
        return Refused(reason=AssignmentRefusal.MALFORMED, detail="sequence or dates make no sense")
    for workload in assignment.workloads:
        problem = name_problem(workload.name)  # a device makes paths, URLs and metrics of it
        if problem:
            return Refused(reason=AssignmentRefusal.MALFORMED, detail=f"workload {problem}")
        bundle = workload.bundle
        if bundle.target != target_path(bundle.line, bundle.model, bundle.version):
            detail = f"workload {workload.name} names {bundle.name} but points to {bundle.target}"
            return Refused(reason=AssignmentRefusal.MALFORMED, detail=detail)
    return None


def _misaddressed(assignment: Assignment, digest: str, device_id: str, floors: Floors, now: float) -> Refused | None:
    if assignment.device_id != device_id:
        detail = f"it is for {assignment.device_id}, this is {device_id}"
        return Refused(reason=AssignmentRefusal.OTHER_DEVICE, detail=detail)
    if assignment.sequence < floors.assignment_sequence:
        detail = f"sequence {assignment.sequence}, already at {floors.assignment_sequence}"
        return Refused(reason=AssignmentRefusal.REPLAYED, detail=detail)
    if assignment.sequence == floors.assignment_sequence and digest != floors.assignment_digest:
        detail = f"another assignment {assignment.sequence} was accepted before"
        return Refused(reason=AssignmentRefusal.FORKED, detail=detail)
    time = effective_now(now, floors)
    if assignment.expires <= time:
        detail = f"it expired {time - assignment.expires:.0f} s ago"
        return Refused(reason=AssignmentRefusal.EXPIRED, detail=detail)
    return None
