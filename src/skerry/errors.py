# SPDX-License-Identifier: Apache-2.0
"""Every error Skerry raises, as one tree with stable codes.

SkerryError
├─ ArtefactError   SKY-1xxx  the file or document in hand is wrong
├─ TrustError      SKY-2xxx  a signature, a version or a date says no
├─ RoadError       SKY-3xxx  the way to the other side is bad; trying again may help
├─ DeviceError     SKY-4xxx  this machine itself failed
├─ HubError        SKY-5xxx  the hub understood the request and refuses it
├─ ServeError      SKY-6xxx  an inference request cannot be answered
└─ UsageError      SKY-7xxx  the command line or a configuration is wrong

Rules:
- a code is never reused or renumbered; docs/reference/errors.md has a row per code (tested);
- an error carries its facts as keyword fields, so that JSON output and logs need no parsing;
- no class knows HTTP or exit codes: `hub/api/status.py`, `serve/status.py` and `cli/exit_codes.py` hold those tables.
"""

from __future__ import annotations

from typing import ClassVar


class SkerryError(Exception):
    """Root. `fields` are the facts; `template` and `advice` are formatted with them."""

    code: ClassVar[str] = "SKY-0000"
    template: ClassVar[str] = "{detail}"
    advice: ClassVar[str] = ""

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields))

    def hint(self) -> str:
        """What to do next; empty when there is nothing better than the message itself."""
        return self.advice.format(**self.fields)


# --- SKY-1xxx: the artefact is wrong -------------------------------------------------------------------------------------


class ArtefactError(SkerryError):
    code = "SKY-1000"
    advice = "Fetch or build the artefact again; if it came from someone else, ask them for a new copy."


class ProjectFileError(ArtefactError):
    code = "SKY-1001"
    template = "{path}:{line}: {problem}"
    advice = "Correct the line and run the command again; the allowed keys are in docs/reference/project-file.md."


class ModelFileError(ArtefactError):
    code = "SKY-1002"
    template = "{path}: not a usable model: {problem}"
    advice = "Skerry takes ONNX files that onnxruntime can load; check the file with the tool that exported it."


class ManifestError(ArtefactError):
    code = "SKY-1003"
    template = "bundle manifest is invalid: {problem}"
    advice = "The bundle was not made by `skerry pack` or was altered; pack or fetch it again."


class DigestMismatch(ArtefactError):
    code = "SKY-1004"
    template = "{name}: digest is {actual}, expected {expected}"
    advice = "The content changed on the way or on disk; fetch it again."


class SelfTestFailed(ArtefactError):
    code = "SKY-1005"
    template = "self-test of variant {variant} failed: {problem}"
    advice = (
        "The variant does not answer like its reference; fix or drop the variant, or widen its tolerance knowingly."
    )


class SchemaError(ArtefactError):
    code = "SKY-1006"
    template = "{document} does not follow its schema at {where}: {problem}"


class ArchiveRefused(ArtefactError):
    code = "SKY-1010"
    template = "archive refused: {entry}: {problem}"
    advice = "Do not use this archive; nothing of it was written."


class LinkInArchive(ArchiveRefused):
    code = "SKY-1011"
    template = "archive refused: {entry} is a link"


class DeviceInArchive(ArchiveRefused):
    code = "SKY-1012"
    template = "archive refused: {entry} is a special file ({kind})"


class PathEscape(ArchiveRefused):
    code = "SKY-1013"
    template = "archive refused: {entry} points outside the bundle"


class BadEntryName(ArchiveRefused):
    code = "SKY-1014"
    template = "archive refused: entry name {entry} is not allowed: {problem}"


class DuplicateEntry(ArchiveRefused):
    code = "SKY-1015"
    template = "archive refused: {entry} appears twice"


class UndeclaredEntry(ArchiveRefused):
    code = "SKY-1016"
    template = "archive refused: {entry} is not named in the manifest"


class MissingEntry(ArchiveRefused):
    code = "SKY-1017"
    template = "archive refused: {entry} is named in the manifest but not there"


class SizeLie(ArchiveRefused):
    code = "SKY-1018"
    template = "archive refused: {entry} has {actual} bytes, declared {declared}"


class ArchiveBomb(ArchiveRefused):
    code = "SKY-1019"
    template = "archive refused: {entry} exceeds the limit of {limit}"


class ExecutableFormat(ArchiveRefused):
    code = "SKY-1020"
    template = "archive refused: {entry} is in a format that can run code ({kind})"
    advice = "Ship ONNX or LiteRT; pickle, joblib, Keras lambdas and TorchScript are never accepted."


class TruncatedArchive(ArchiveRefused):
    code = "SKY-1021"
    template = "archive refused: {entry}: the archive is cut short or damaged"


# --- SKY-2xxx: trust says no ---------------------------------------------------------------------------------------------


class TrustError(SkerryError):
    code = "SKY-2000"
    advice = "Nothing was installed. Find out who produced this before trying again."


class InstallRefused(TrustError):
    code = "SKY-2001"
    template = "install refused ({reason}): {detail}"


class CatalogueRefused(TrustError):
    code = "SKY-2002"
    template = "catalogue refused ({reason}): {detail}"


class AssignmentRefused(TrustError):
    code = "SKY-2003"
    template = "assignment refused ({reason}): {detail}"


class KeyFileError(TrustError):
    code = "SKY-2004"
    template = "key file {path}: {problem}"
    advice = "Check the path, the permissions and the passphrase (SKERRY_KEY_PASSPHRASE or the prompt)."


class CeremonyError(TrustError):
    code = "SKY-2005"
    template = "root ceremony: {problem}"
    advice = "See docs/how-to/keys.md for the order of the steps."


class ChainBroken(TrustError):
    code = "SKY-2006"
    template = "history of {device} is broken at entry {entry}: {problem}"
    advice = "The record was altered or cut. Keep both copies as evidence and compare them from this entry on."


class SignatureInvalid(TrustError):
    code = "SKY-2007"
    template = "signature of {document} is not valid: {problem}"


# --- SKY-3xxx: the road is bad -------------------------------------------------------------------------------------------


class RoadError(SkerryError):
    code = "SKY-3000"
    advice = "Check the network and the hub's address, then try again; a device keeps working meanwhile."


class HubUnreachable(RoadError):
    code = "SKY-3001"
    template = "cannot reach {url}: {problem}"
    advice = (
        "Is the hub running and the address right? Start one with `skerry up`, choose one with --hub or SKERRY_HUB."
    )


class DownloadBroken(RoadError):
    code = "SKY-3002"
    template = "download of {name} broke off after {received} of {expected} bytes"


class UnexpectedReply(RoadError):
    code = "SKY-3003"
    template = "{url} answered {status} with something this version does not understand: {problem}"
    advice = "Is this address a Skerry hub, and not more than two minor versions away?"


class TooMuchData(RoadError):
    code = "SKY-3004"
    template = "{name}: the other side sent more than the {limit} bytes agreed"


class InsecureTransport(RoadError):
    code = "SKY-3005"
    template = "{url} is not HTTPS and not on this machine"
    advice = "Use https://; plain HTTP is only accepted on loopback."


# --- SKY-4xxx: this device failed ----------------------------------------------------------------------------------------


class DeviceError(SkerryError):
    code = "SKY-4000"


class StorageError(DeviceError):
    code = "SKY-4001"
    template = "cannot write {path}: {problem}"
    advice = "Free space or mend the file system; what was there before is untouched."


class StateDamaged(DeviceError):
    code = "SKY-4002"
    template = "{path} is damaged: {problem}"
    advice = "Run `skerry doctor --state DIR`; the last committed workload goes on serving."


class RunnerFailed(DeviceError):
    code = "SKY-4003"
    template = "runner of {workload} failed: {problem}"
    advice = "See `skerry logs` for the runner's last lines."


class NoVariantFits(DeviceError):
    code = "SKY-4004"
    template = "no variant of {bundle} fits this device: {problem}"
    advice = "Pack a variant for this kind of device, or aim the rollout at devices that can run it."


class NotEnrolled(DeviceError):
    code = "SKY-4005"
    template = "{state} holds no enrolled device"
    advice = "Join first: skerry agent join --hub URL --token TOKEN --state DIR"


class AlreadyEnrolled(DeviceError):
    code = "SKY-4006"
    template = "{state} already belongs to device {device}"
    advice = "Use another --state folder; an identity is never overwritten."


class StateLocked(DeviceError):
    code = "SKY-4007"
    template = "{path} is in use by another agent"
    advice = "Stop the other agent, or give this one its own --state folder."


class StepContractBroken(DeviceError):
    code = "SKY-4008"
    template = "update step {step} broke its contract: {problem}"
    advice = "This is a defect in Skerry: please report it with the agent's log."


# --- SKY-5xxx: the hub refuses -------------------------------------------------------------------------------------------


class HubError(SkerryError):
    code = "SKY-5000"


class BadRequest(HubError):
    code = "SKY-5001"
    template = "the request is not valid: {problem}"
    advice = "See /schema/openapi.json on the hub for the shape of each request."


class Unauthenticated(HubError):
    code = "SKY-5002"
    template = "no valid credentials: {problem}"
    advice = "Give an operator token with --token or SKERRY_TOKEN; a device must be enrolled and not revoked."


class Forbidden(HubError):
    code = "SKY-5003"
    template = "role {role} may not {action}"
    advice = "Ask an administrator for a token of a higher role."


class NotFound(HubError):
    code = "SKY-5004"
    template = "there is no {kind} {name}"
    advice = "List what there is with `skerry get {kind}s`."


class Conflict(HubError):
    code = "SKY-5005"
    template = "{kind} {name}: {problem}"


class EnrolmentRefused(HubError):
    code = "SKY-5006"
    template = "enrolment refused: {problem}"
    advice = "Ask for a new one-time token: skerry enroll-token"


class RolloutRefused(HubError):
    code = "SKY-5007"
    template = "rollout {rollout} cannot {action}: {problem}"


class RangeUnsatisfiable(HubError):
    code = "SKY-5008"
    template = "the blob has {size} bytes; the range asked for lies outside"


class PayloadTooLarge(HubError):
    code = "SKY-5009"
    template = "the request exceeds {limit} bytes"


class RateLimited(HubError):
    code = "SKY-5010"
    template = "too many requests; try again in {retry_after} s"


class HubInternal(HubError):
    code = "SKY-5011"
    template = "the hub failed to answer ({reference})"
    advice = "The hub's log has the details under this reference."


class DatabaseUnavailable(HubError):
    code = "SKY-5012"
    template = "the database does not answer: {problem}"
    advice = "Check the database server; the hub goes on by itself when it is back."


class UnknownAddress(HubError):
    code = "SKY-5013"
    template = "there is nothing at {path}"
    advice = "See /schema/openapi.json on the hub for every address it has."


class WrongMethod(HubError):
    code = "SKY-5014"
    template = "{method} is not allowed on {path}"


class UnsupportedContent(HubError):
    code = "SKY-5015"
    template = "content of type or encoding {kind} is not understood here"


class StaleVersion(Conflict):
    code = "SKY-5016"
    template = "{kind} {name} changed meanwhile"
    advice = "Someone else was faster; look at it again and repeat the command if it is still wanted."


# --- SKY-6xxx: an inference request cannot be answered -------------------------------------------------------------------


class ServeError(SkerryError):
    code = "SKY-6000"


class InferenceRequestInvalid(ServeError):
    code = "SKY-6001"
    template = "{problem}"


class UnknownModel(ServeError):
    code = "SKY-6002"
    template = "unknown model {name}"


class NotReady(ServeError):
    code = "SKY-6003"
    template = "model {name} is not ready"


class RequestTooLarge(ServeError):
    code = "SKY-6004"
    template = "request exceeds {limit} bytes"


class InferenceFailed(ServeError):
    code = "SKY-6005"
    template = "model {name} failed: {problem}"


class UnsupportedEncoding(ServeError):
    code = "SKY-6006"
    template = "content encoding {encoding} is not supported"


class MethodNotAllowed(ServeError):
    code = "SKY-6007"
    template = "{method} is not allowed on {path}"


class UnknownPath(ServeError):
    code = "SKY-6008"
    template = "there is nothing at {path}"


class Overloaded(ServeError):
    code = "SKY-6009"
    template = "too many requests are waiting; try again in {retry_after} s"


class DeadlineExceeded(ServeError):
    code = "SKY-6010"
    template = "the request's time was over before its turn came"


# --- SKY-7xxx: usage -----------------------------------------------------------------------------------------------------


class UsageError(SkerryError):
    code = "SKY-7000"
    advice = "See --help."


class MissingExtra(UsageError):
    code = "SKY-7001"
    template = "{feature} needs packages that are not installed"
    advice = 'Install them: pip install "skerry[{extra}]"'


class ConfigError(UsageError):
    code = "SKY-7002"
    template = "configuration {where}: {problem}"


class GateFailed(UsageError):
    code = "SKY-7003"
    template = "{what} did not pass its gate: {detail}"
    advice = ""


class WaitTimedOut(UsageError):
    code = "SKY-7004"
    template = "{what} was not done within {seconds} s"
    advice = "It goes on in the background; ask again with `skerry rollout status`."


class PartialResult(UsageError):
    code = "SKY-7005"
    template = "{what}: {done} of {total} done"


class FileExists(UsageError):
    code = "SKY-7006"
    template = "{path} already exists"
    advice = "Choose another name, or give --force to replace it."


class InputMissing(UsageError):
    code = "SKY-7007"
    template = "{path}: no such file or folder"
    advice = "Check the path."


class HubNotChosen(UsageError):
    code = "SKY-7008"
    template = "no hub chosen"
    advice = "Name one with --hub or SKERRY_HUB, remember one with `skerry login URL`, or start one with `skerry up`."


class NotConfirmed(UsageError):
    code = "SKY-7009"
    template = "{what} was not confirmed"
    advice = "Nothing was changed; without a terminal, confirm with --yes."
