# SPDX-License-Identifier: Apache-2.0
"""The second signature: what ONE device shall run, as a DSSE envelope made by the hub's online key."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

import msgspec
from msgspec import Struct

from skerry.bundle.digest import is_digest
from skerry.bundle.rules import name_problem
from skerry.errors import SignatureInvalid
from skerry.trust import dsse
from skerry.trust.floors import Floors, effective_now
from skerry.wire.v1.device import (
    ASSIGNMENT_TYPE,
    LARGEST_SEQUENCE,
    Assignment,
    AssignmentKeys,
    WorkloadSpec,
    target_path,
)

MAX_WORKLOADS = 256


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
    digest: str  # of the signed payload
    keys: tuple[str, ...]  # names of the keys that signed it


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
    and the sequence number, not the date, is what stops replay.
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
    flaw = _flaw(assignment)
    if flaw:
        return Refused(reason=AssignmentRefusal.MALFORMED, detail=flaw)
    refused = (
        _misaddressed(assignment, device_id)
        or _repeated(assignment, digest, floors, floors.sequence(named))
        or _expired(assignment, effective_now(now, floors))
    )
    if refused is not None:
        return refused
    return Accepted(
        assignment=assignment,
        digest=digest,
        keys=tuple(name for name in dsse.names(envelope) if name in named),
    )


def _flaw(assignment: Assignment) -> str:
    """What no honest hub writes; empty when there is nothing of it."""
    names = [workload.name for workload in assignment.workloads]
    if len(names) > MAX_WORKLOADS:
        return f"{len(names)} workloads, at most {MAX_WORKLOADS} are followed"
    if len(set(names)) != len(names):
        return "two workloads have one name"
    if not 1 <= assignment.sequence < LARGEST_SEQUENCE or not assignment.issued <= assignment.expires:
        return "sequence or dates make no sense"
    return next((flaw for flaw in map(_workload_flaw, assignment.workloads) if flaw), "")


def _workload_flaw(workload: WorkloadSpec) -> str:
    """A device makes paths of the name and of the digest, long before it asks what the catalogue says of them."""
    bundle = workload.bundle
    problem = name_problem(workload.name)
    if problem:
        return f"workload {problem}"
    if not is_digest(bundle.digest) or not 1 <= bundle.release_seq < LARGEST_SEQUENCE:
        return f"workload {workload.name} names a bundle without a real digest or release number"
    if bundle.target != target_path(bundle.line, bundle.model, bundle.version):
        return f"workload {workload.name} names {bundle.name} but points to {bundle.target}"
    return ""


def _misaddressed(assignment: Assignment, device_id: str) -> Refused | None:
    if assignment.device_id == device_id:
        return None
    detail = f"it is for {assignment.device_id}, this is {device_id}"
    return Refused(reason=AssignmentRefusal.OTHER_DEVICE, detail=detail)


def _repeated(assignment: Assignment, digest: str, floors: Floors, floor: int) -> Refused | None:
    if assignment.sequence < floor:
        detail = f"sequence {assignment.sequence}, already at {floor}"
        return Refused(reason=AssignmentRefusal.REPLAYED, detail=detail)
    if assignment.sequence == floor == floors.assignment_sequence and digest != floors.assignment_digest:
        detail = f"another assignment {assignment.sequence} was accepted before"
        return Refused(reason=AssignmentRefusal.FORKED, detail=detail)
    return None


def _expired(assignment: Assignment, time: float) -> Refused | None:
    if assignment.expires > time:
        return None
    return Refused(reason=AssignmentRefusal.EXPIRED, detail=f"it expired {time - assignment.expires:.0f} s ago")
