# SPDX-License-Identifier: Apache-2.0
"""The published JSON Schema of `skerry.json`, for tools that are not Skerry. `bundle-v1.json` beside us is its committed form."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import msgspec

from skerry.bundle.manifest import BundleConfig

ID = "https://skerry.dev/schema/bundle-v1.json"


def bundle_schema() -> dict[str, Any]:
    """Generated from the structs, so the two cannot drift apart. Unknown keys are allowed: later versions add some."""
    schema = msgspec.json.schema(BundleConfig)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ID, "title": "Skerry bundle", **schema}


def render(schema: dict[str, Any]) -> str:
    """The form in which a schema is committed."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def published() -> str:
    return (files("skerry.bundle") / "schema" / "bundle-v1.json").read_text()
