# SPDX-License-Identifier: Apache-2.0
"""An inference request cannot be answered: SKY-6xxx."""

from __future__ import annotations

from skerry.errors.root import SkerryError


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


class RunnerLost(ServeError):
    code = "SKY-6011"
    template = "the runner of {workload} ended with this request; it is being started again, ask again"


class ModelDown(ServeError):
    code = "SKY-6012"
    template = "no runner of {name} is up; it is being started again, ask again later"


class MessageInvalid(ServeError):
    code = "SKY-6013"
    template = "not a valid HTTP/1.1 request: {problem}"


class HeadTooLarge(ServeError):
    code = "SKY-6014"
    template = "the request's head, or what comes between its chunks, is too large"


class TooSlow(ServeError):
    code = "SKY-6015"
    template = "the request took too long to arrive"


class TooManyConnections(ServeError):
    code = "SKY-6016"
    template = "too many connections"


class ExpectationUnmet(ServeError):
    code = "SKY-6017"
    template = "the only expectation met is 100-continue"


class VersionUnsupported(ServeError):
    code = "SKY-6018"
    template = "HTTP/{version} is not spoken here, HTTP/1.1 is"


class SequenceRefused(ServeError):
    code = "SKY-6020"
    template = "sequence {id}: {problem}"


class TooManySequences(Overloaded):
    code = "SKY-6021"
    template = "{limit} sequences are live, no more are begun; try again in {retry_after} s"


class CodingUnsupported(ServeError):
    code = "SKY-6019"
    template = "the only transfer coding is chunked"


class ClientGone(ServeError):
    code = "SKY-6023"
    template = "the client had gone before the request's turn came"


class ModelElsewhere(ServeError):
    code = "SKY-6022"
    template = "model {name} is another workload's: ask on port {port}, or by HTTP on the address of the box"
