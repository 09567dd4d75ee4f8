# SPDX-License-Identifier: Apache-2.0
"""Error class -> gRPC status: the twin of serve/status.py."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from skerry import errors


class GrpcStatus(IntEnum):
    """The codes of grpc.io/docs/guides/status-codes that we send."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


STATUS: Final[dict[type[errors.SkerryError], GrpcStatus]] = {
    errors.InferenceRequestInvalid: GrpcStatus.INVALID_ARGUMENT,
    errors.UnknownModel: GrpcStatus.NOT_FOUND,
    errors.NotReady: GrpcStatus.UNAVAILABLE,
    errors.RequestTooLarge: GrpcStatus.RESOURCE_EXHAUSTED,
    errors.InferenceFailed: GrpcStatus.INTERNAL,
    errors.UnsupportedEncoding: GrpcStatus.UNIMPLEMENTED,
    errors.MethodNotAllowed: GrpcStatus.UNIMPLEMENTED,
    errors.UnknownPath: GrpcStatus.UNIMPLEMENTED,
    errors.Overloaded: GrpcStatus.UNAVAILABLE,
    errors.SequenceRefused: GrpcStatus.INVALID_ARGUMENT,
    errors.TooManySequences: GrpcStatus.UNAVAILABLE,
    errors.DeadlineExceeded: GrpcStatus.DEADLINE_EXCEEDED,
    errors.RunnerLost: GrpcStatus.UNAVAILABLE,
    errors.ModelDown: GrpcStatus.UNAVAILABLE,
    errors.ModelElsewhere: GrpcStatus.UNIMPLEMENTED,
    errors.ClientGone: GrpcStatus.CANCELLED,
}


def status_of(error: errors.SkerryError) -> GrpcStatus:
    """INTERNAL for an error that has no row: it was not meant for a client."""
    return STATUS.get(type(error), GrpcStatus.INTERNAL)
