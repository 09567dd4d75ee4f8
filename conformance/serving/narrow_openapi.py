# SPDX-License-Identifier: Apache-2.0
"""Our OpenAPI description, narrowed to the one model a server serves, so that what a judge makes from it is a right request.

    .venv/bin/python conformance/serving/narrow_openapi.py http://127.0.0.1:9000 digits > digits.json

The protocol's description cannot say that datatype, shape and number of values belong together; this one has them fixed.
"""

from __future__ import annotations

import json
import math
import sys
import urllib.request
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

SOURCE = Path(__file__).resolve().parent.parent.parent / "docs/reference/oip-openapi.yaml"
SHARED_MEMORY = "system_shared_memory"
Document = dict[str, Any]
FP32_MAX = math.nextafter(2.0**128 - 2.0**103, 0)
"""The largest number that FP32 rounds to a number."""


def element(datatype: str) -> Document:
    """Values of a datatype in JSON."""
    if datatype == "BOOL":
        return {"type": "boolean"}
    if datatype == "BYTES":
        return {"type": "string"}
    if datatype.startswith("FP"):
        return {"type": "number", **({"minimum": -FP32_MAX, "maximum": FP32_MAX} if datatype == "FP32" else {})}
    bits = int(datatype.removeprefix("U").removeprefix("INT"))
    low = 0 if datatype.startswith("U") else -(2 ** (bits - 1))
    return {"type": "integer", "minimum": low, "maximum": low + 2**bits - 1}


def tensor(spec: Document) -> Document:
    shape = [1 if axis == -1 else axis for axis in spec["shape"]]
    count = math.prod(shape)
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": spec["name"]},
            "shape": {"const": shape},
            "datatype": {"const": spec["datatype"]},
            "data": {"type": "array", "items": element(spec["datatype"]), "minItems": count, "maxItems": count},
            "parameters": {"const": {}},
        },
    }


def request(metadata: Document) -> Document:
    """As many inputs as the model has, each once, all in JSON."""
    inputs = [tensor(spec) for spec in metadata["inputs"]]
    names = [spec["name"] for spec in metadata["outputs"] if spec["datatype"] not in {"FP16", "BF16"}]
    return {
        "type": "object",
        "required": ["inputs"] if len(names) == len(metadata["outputs"]) else ["inputs", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "prefixItems": inputs, "items": False, "minItems": len(inputs)},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"enum": names}, "parameters": {"const": {"binary_data": False}}},
                },
                "minItems": int(len(names) < len(metadata["outputs"])),
                "maxItems": 1,
            },
            "parameters": {
                "type": "object",
                "properties": {
                    "timeout": {"const": 60_000_000},
                    "priority": {"type": "integer", "minimum": 0, "maximum": 1 << 32},
                },
                "additionalProperties": {"type": ["string", "number", "boolean"]},
            },
        },
    }


def narrowed(document: Document, metadata: Document, server: str) -> Document:
    parameters = document["components"]["parameters"]
    parameters["Model"]["schema"] = {"enum": [metadata["name"]]}
    parameters["Version"]["schema"] = {"enum": metadata["versions"]}
    document["components"]["schemas"]["InferRequest"] = request(metadata)
    document["servers"] = [{"url": server}]
    for path in document["paths"].values():
        post = path.get("post", {})
        if "parameters" in post:  # a deadline too short is a 503 or 504, and whether one is depends on the machine
            post["parameters"] = [each for each in post["parameters"] if not each.get("$ref", "").endswith("/Timeout")]
        if "parameters" in post:  # infer; its binary form is no schema's business
            post["parameters"] = [each for each in post["parameters"] if "HeaderLength" not in each["$ref"]]
            post["requestBody"]["content"].pop("application/octet-stream", None)
    return document


def get(url: str) -> Document:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the operator's own server
        document: Document = json.load(answer)
    return document


def main() -> int:
    server, model = sys.argv[1:3]
    metadata = get(f"{server}/v2/models/{model}")
    document = YAML(typ="safe", pure=True).load(SOURCE.read_text())
    if SHARED_MEMORY not in get(f"{server}/v2")["extensions"]:
        document["paths"] = {path: item for path, item in document["paths"].items() if "sharedmemory" not in path}
    sys.stdout.write(json.dumps(narrowed(document, metadata, server), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
