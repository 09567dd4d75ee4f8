# SPDX-License-Identifier: Apache-2.0
"""Write the published JSON Schemas anew from the structs they describe. Tests compare the committed files with these."""

from pathlib import Path

from skerry.bundle.json_schema import bundle_schema, render
from skerry.cli.project_schema import project_schema

SOURCE = Path(__file__).resolve().parents[1] / "src" / "skerry"

for path, schema in (
    (SOURCE / "bundle" / "schema" / "bundle-v1.json", bundle_schema()),
    (SOURCE / "cli" / "schema" / "project-v1alpha1.json", project_schema()),
):
    path.parent.mkdir(exist_ok=True)
    path.write_text(render(schema))
    print(path.relative_to(SOURCE.parents[1]))
