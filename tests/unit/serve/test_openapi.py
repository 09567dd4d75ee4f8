# SPDX-License-Identifier: Apache-2.0
"""docs/reference/oip-openapi.yaml says what is served: every route, its method, every status, every field of an answer."""

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from contracts.engine.models import classifier
from skerry.errors import MethodNotAllowed
from skerry.serve.http.message import Head, HttpRequest
from skerry.serve.http.routes import Endpoint, route
from skerry.serve.shm import region_endpoints
from skerry.serve.shm.regions import Regions, Registration
from skerry.serve.status import STATUS
from unit.serve.rig import Rig

PATH = Path(__file__).parent.parent.parent.parent / "docs/reference/oip-openapi.yaml"
DOCUMENT = YAML(typ="safe", pure=True).load(PATH.read_text())
ALL = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item if method != "parameters"]
OPERATIONS = [(path, method) for path, method in ALL if "sharedmemory" not in path]
OF_REGIONS = [(path, method) for path, method in ALL if "sharedmemory" in path]
BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


def filled(path):
    return path.replace("{model}", "m").replace("{version}", "1")


@pytest.fixture(scope="module")
def rig():
    return Rig({"m": classifier()})


def asked(rig, path, method):
    rig.connect()
    return rig.get(filled(path)) if method == "get" else rig.post(filled(path), json.dumps(BODY).encode())


def schema_of(operation, status):
    response = operation["responses"][str(status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    return response["content"]


def assert_fits(document, schema):
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(document)


def test_every_route_is_described_and_every_description_is_a_route():
    described = {route(method.upper(), filled(path)).endpoint for path, method in OPERATIONS}
    assert described == set(Endpoint) - {Endpoint.SLOT}  # what follows that request is no HTTP
    for path, method in OPERATIONS:
        with pytest.raises(MethodNotAllowed):
            route("POST" if method == "get" else "GET", filled(path))


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_an_answer_is_as_described(rig, path, method):
    answer = asked(rig, path, method)
    assert answer.status == 200
    content = schema_of(DOCUMENT["paths"][path][method], 200)
    kind = answer.headers["content-type"].partition(";")[0]
    if kind == "application/json":
        assert_fits(answer.json, content[kind]["schema"])
    else:
        assert kind in content


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_a_refusal_is_as_described(rig, path, method):
    operation = DOCUMENT["paths"][path][method]
    wrong = asked(rig, path, "post" if method == "get" else "get")
    assert wrong.status == 405
    assert_fits(wrong.json, schema_of(operation, 405)["application/json"]["schema"])
    if "{model}" in path:
        unknown = asked(rig, path.replace("{model}", "nobody"), method)
        assert unknown.status == 404
        assert_fits(unknown.json, schema_of(operation, 404)["application/json"]["schema"])


@pytest.mark.parametrize(("path", "method"), OF_REGIONS)
def test_regions_are_as_described(path, method, tmp_path):
    (tmp_path / "key").write_bytes(bytes(64))
    regions = Regions(str(tmp_path))
    regions.register("r", Registration(key="key", byte_size=64))
    name = "new" if path.endswith("/register") else "r"
    target = path.replace("{region}", name)
    body = b'{"key":"/key","byte_size":32,"offset":32}'
    answer = region_endpoints.handle(regions, HttpRequest(head=Head(method=method.upper(), target=target), body=body))
    assert answer.status == 200
    content = DOCUMENT["paths"][path][method]["responses"]["200"].get("content")
    if content is None:
        assert answer.body == b""
    else:
        assert_fits(json.loads(answer.body), content["application/json"]["schema"])
    with pytest.raises(MethodNotAllowed):
        region_endpoints.handle(regions, HttpRequest(head=Head(method="PUT", target=target)))


def test_every_status_of_infer_is_described():
    """Those of the connection itself (a broken message, a head too large) belong to no operation."""
    described = set(DOCUMENT["paths"]["/v2/models/{model}/infer"]["post"]["responses"])
    of_connections = {"408", "417", "431", "501", "505"}
    assert {str(status.value) for status in STATUS.values()} - of_connections <= described


def test_what_the_description_takes_for_a_request_is_one():
    schema = DOCUMENT["components"]["schemas"]["InferRequest"]
    assert_fits({**BODY, "id": "", "parameters": {"timeout": 1, "content_type": "np"}, "unknown": [1]}, schema)
    wrong_ones: list[dict[str, object]] = [{}, {"inputs": {}}, {**BODY, "parameters": {"a": None}}, {**BODY, "id": 1}]
    for wrong in wrong_ones:
        with pytest.raises(jsonschema.ValidationError):
            assert_fits(wrong, schema)
