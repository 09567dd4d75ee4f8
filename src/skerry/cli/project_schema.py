# SPDX-License-Identifier: Apache-2.0
"""The published JSON Schema of `skerry.yaml`: editors check and complete project files with it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import msgspec

from skerry.cli.project import Project

ID: Final = "https://skerry.dev/schema/project-v1alpha1.json"


def project_schema() -> dict[str, Any]:
    schema = msgspec.json.schema(Project)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ID, "title": "Skerry project", **schema}


def published() -> str:
    return (files("skerry.cli") / "schema" / "project-v1alpha1.json").read_text()
