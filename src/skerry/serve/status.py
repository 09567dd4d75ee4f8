# SPDX-License-Identifier: Apache-2.0
"""Error class -> HTTP status of the inference protocol: the one table. Every client error is 4xx, every body `{"error": .., "code": ..}`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from msgspec.json import encode

from skerry import errors

STATUS: Final[dict[type[errors.SkerryError], HTTPStatus]] = {
    errors.InferenceRequestInvalid: HTTPStatus.BAD_REQUEST,
    errors.UnknownModel: HTTPStatus.NOT_FOUND,
    errors.NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InferenceFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.UnsupportedEncoding: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.UnknownPath: HTTPStatus.NOT_FOUND,
    errors.Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.RunnerLost: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelDown: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelElsewhere: HTTPStatus.NOT_FOUND,
    errors.ClientGone: HTTPStatus.REQUEST_TIMEOUT,  # said to nobody: it is the client's doing, and counted so
    errors.MessageInvalid: HTTPStatus.BAD_REQUEST,
    errors.HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.TooSlow: HTTPStatus.REQUEST_TIMEOUT,
    errors.TooManyConnections: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ExpectationUnmet: HTTPStatus.EXPECTATION_FAILED,
    errors.VersionUnsupported: HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    errors.SequenceRefused: HTTPStatus.BAD_REQUEST,
    errors.TooManySequences: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CodingUnsupported: HTTPStatus.NOT_IMPLEMENTED,
}


def status_of(error: errors.SkerryError) -> HTTPStatus:
    """500 for an error that has no row: it was not meant for a client."""
    return STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)


def retry_after(error: errors.SkerryError) -> int:
    """Whole seconds after which it may be worth asking again what could not be answered now."""
    return int(str(error.fields.get("retry_after", 1)))


def error_body(text: str, code: str = errors.ServeError.code) -> bytes:
    """The protocol's error object, and our code for programs: clients of the protocol ignore what they do not know."""
    return encode({"error": text, "code": code})
