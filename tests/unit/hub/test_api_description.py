# SPDX-License-Identifier: Apache-2.0
"""What the hub says of itself: data only, true of every answer, and nothing that would ask the internet for scripts."""

from __future__ import annotations

import json
import re

import pytest

from skerry import errors


@pytest.mark.parametrize("path", ["/schema", "/schema/", "/schema/openapi.json"])
def test_the_description_is_data(hub, path):
    async def scene(world):
        reply = await world.client.get(path)
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("application/vnd.oai.openapi")
        assert reply.json()["openapi"].startswith("3.1")

    hub(scene)


@pytest.mark.parametrize("page", ["swagger", "redoc", "elements", "rapidoc", "scalar", "x", "openapi.yaml"])
def test_there_are_no_pages_that_need_the_internet(hub, page):
    async def scene(world):
        reply = await world.client.get(f"/schema/{page}")
        assert (reply.status_code, reply.json()["code"]) == (404, "SKY-5013")
        assert "<" not in reply.text

    hub(scene)


def test_every_reference_resolves_and_every_refusal_is_described_as_it_comes(hub):
    async def scene(world):
        described = (await world.client.get("/schema/openapi.json")).json()
        schemas = described["components"]["schemas"]
        for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(described)):
            assert name in schemas
        reply = (await world.client.get("/api/v1/devices")).json()
        assert set(schemas["ErrorBody"]["properties"]) == set(reply)
        for operations in described["paths"].values():
            for operation in operations.values():
                refusal = operation["responses"]["default"]["content"]["application/json"]["schema"]
                assert refusal == {"$ref": "#/components/schemas/ErrorBody"}
                assert "400" not in operation["responses"]
        for path in ("/api/v1/blobs/{digest}", "/api/v1/catalogue/roles/{role}", "/api/v1/catalogue/root"):
            method = "put" if "blobs" in path else "post"
            assert "application/octet-stream" in described["paths"][path][method]["requestBody"]["content"]

    hub(scene)


def test_addresses_that_hints_send_people_to_are_there(hub):
    named = {
        address
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.HubError)
        for address in re.findall(r"(/\S+) on the hub", kind.advice)
    }
    assert named

    async def scene(world):
        for address in named:
            assert (await world.client.get(address)).status_code == 200

    hub(scene)
