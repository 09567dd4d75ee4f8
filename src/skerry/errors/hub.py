# SPDX-License-Identifier: Apache-2.0
"""The hub understood the request and refuses it: SKY-5xxx."""

from __future__ import annotations

from skerry.errors.root import SkerryError


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
    advice = "What stands in the way is in `skerry get devices`, `skerry get models` or `skerry get rollouts`."


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
    advice = (
        "Check the database server, or the disk the database is on; the hub goes on by itself when it is well again."
    )


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
