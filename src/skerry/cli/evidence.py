# SPDX-License-Identifier: Apache-2.0
"""Is an ML-BOM what CycloneDX says it is? Here, and not in `bundle`, because the validator never goes to a device."""

from __future__ import annotations

from cyclonedx.exception import MissingOptionalDependencyException
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from skerry.errors import MissingExtra, SchemaError


def require_valid_bom(data: bytes) -> None:
    """CycloneDX 1.6, strict: unknown keys are errors. Raises SchemaError, MissingExtra."""
    try:
        flaw = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())
    except MissingOptionalDependencyException as error:
        raise MissingExtra(feature="checking an ML-BOM", extra="cli") from error
    except ValueError as error:
        raise SchemaError(document="ML-BOM", where="$", problem=str(error)) from error
    if flaw is not None:
        detail = flaw.data
        where = getattr(detail, "json_path", "$")
        raise SchemaError(document="ML-BOM", where=where, problem=getattr(detail, "message", str(detail)))
