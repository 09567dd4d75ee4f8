# SPDX-License-Identifier: Apache-2.0
import copy
import json

import jsonschema
import pytest

from skerry.bundle import json_schema
from skerry.bundle.blob import content
from support import bundles


def document() -> dict:
    bundle = bundles.bundle()
    parsed: dict = json.loads(content(bundle.blobs[bundle.manifest.config.digest]))
    return parsed


def test_the_published_schema_is_that_of_the_structs():
    assert json_schema.published() == json_schema.render(json_schema.bundle_schema()), "run scripts/schemas.py"


def test_a_bundle_follows_the_schema():
    jsonschema.validate(document(), json_schema.bundle_schema())


@pytest.mark.parametrize("key", ["schema", "name", "io", "variants", "files", "self_test", "release_seq"])
def test_a_bundle_without_a_required_key_does_not(key):
    bad = copy.deepcopy(document())
    del bad[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, json_schema.bundle_schema())
