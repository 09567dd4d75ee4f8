# SPDX-License-Identifier: Apache-2.0
"""The one table from error to HTTP status. A class without a row takes its nearest ancestor's."""

from __future__ import annotations

from skerry import errors

STATUS: dict[type[errors.SkerryError], int] = {
    errors.ArtefactError: 422,
    errors.TrustError: 422,
    errors.StorageError: 507,
    errors.HubError: 400,
    errors.BadRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.EnrolmentRefused: 403,
    errors.RolloutRefused: 409,
    errors.RangeUnsatisfiable: 416,
    errors.PayloadTooLarge: 413,
    errors.RateLimited: 429,
    errors.HubInternal: 500,
    errors.DatabaseUnavailable: 503,
    errors.UnknownAddress: 404,
    errors.WrongMethod: 405,
    errors.UnsupportedContent: 415,
}

REACHABLE = (errors.ArtefactError, errors.TrustError, errors.HubError, errors.StorageError)
"""Only these reach a caller as themselves; any other error is a defect of the hub and becomes HubInternal."""


def http_status(error: errors.SkerryError) -> int:
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return STATUS[errors.HubInternal]
