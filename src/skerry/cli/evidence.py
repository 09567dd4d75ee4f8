# SPDX-License-Identifier: Apache-2.0
"""Is an ML-BOM what CycloneDX says it is? Here, and not in `bundle`, because the validator never goes to a device."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Final

from skerry.errors import MissingExtra, SchemaError

_GRAMMAR: Final = "rfc3987_syntax"


class _GrammarLater(ModuleType):
    """Stands in for the package with which jsonschema checks IRIs. Its import compiles 30 grammars, a second of CPU,
    and a BOM without any address needs none of them: the real one is loaded when there is something to check.
    """

    @staticmethod
    def is_valid_syntax(term: str, value: str) -> bool:
        if isinstance(sys.modules.get(_GRAMMAR), _GrammarLater):
            del sys.modules[_GRAMMAR]
        return bool(import_module(_GRAMMAR).is_valid_syntax(term, value))


def require_valid_bom(data: bytes) -> None:
    """CycloneDX 1.6, strict: unknown keys are errors. Raises SchemaError, MissingExtra."""
    if _GRAMMAR not in sys.modules and find_spec(_GRAMMAR):
        sys.modules[_GRAMMAR] = _GrammarLater(_GRAMMAR)
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

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
