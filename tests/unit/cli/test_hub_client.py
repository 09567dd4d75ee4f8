# SPDX-License-Identifier: Apache-2.0
import msgspec
import pytest

from skerry import errors
from skerry.cli.hub_client import HubClient
from skerry.wire.v1.operator import FleetSpec, FleetView
from unit.cli.scripted import HUB, ScriptedHub, device, page, refusal


@pytest.fixture
def hub():
    return ScriptedHub()


@pytest.fixture
def client(hub):
    return HubClient(hub, HUB + "/", "secret")


def test_the_token_travels_as_bearer(hub, client):
    hub.on("GET", "/api/v1/fleets", page())
    client.fleets()
    assert hub.calls[0].headers["authorization"] == "Bearer secret"


def test_all_pages_are_read_with_the_same_filter(hub, client):
    hub.on("GET", "/api/v1/devices", page(device("a"), after="n1"), page(device("b")))
    assert [found.name for found in client.devices({"line": "x", "cell": "3"})] == ["a", "b"]
    assert [call.query for call in hub.calls] == [
        {"selector": "line=x,cell=3", "limit": "500"},
        {"selector": "line=x,cell=3", "limit": "500", "after": "n1"},
    ]


def test_a_device_is_found_by_id_or_by_name(hub, client):
    hub.on("GET", "/api/v1/devices/dev-a", device("a"))
    hub.on("GET", "/api/v1/devices", page(device("a"), device("b")))
    assert client.device("dev-a").name == "a"
    assert client.device("b").id == "dev-b"
    with pytest.raises(errors.NotFound, match="no device c"):
        client.device("c")


def test_a_name_of_two_devices_is_not_guessed(hub, client):
    hub.on("GET", "/api/v1/devices", page(device("a", id="d1"), device("a", id="d2")))
    with pytest.raises(errors.Conflict, match="d1, d2"):
        client.device("a")


def test_names_cannot_leave_their_segment_of_the_path(hub, client):
    hub.on("GET", "/api/v1/devices", page())
    with pytest.raises(errors.NotFound):
        client.device("../users")
    assert hub.calls[0].path == "/api/v1/devices/..%2Fusers"


def test_a_refusal_is_raised_as_what_it_was(hub, client):
    hub.on("PUT", "/api/v1/fleets/x", refusal("SKY-5003", role="viewer", action="set a fleet"), status=403)
    with pytest.raises(errors.Forbidden, match="role viewer may not set a fleet"):
        client.put_fleet("x", FleetSpec(selector={}))


def test_what_is_sent_is_the_struct(hub, client):
    hub.on("PUT", "/api/v1/fleets/x", FleetView(name="x", selector={"a": "b"}, devices=3))
    assert client.put_fleet("x", FleetSpec(selector={"a": "b"})).devices == 3
    assert msgspec.json.decode(hub.calls[0].body) == {"selector": {"a": "b"}}
    assert hub.calls[0].headers["content-type"] == "application/json"


def test_a_reply_that_is_no_skerry_hub(hub, client):
    hub.on("GET", "/api/v1/summary", b"<html>hello</html>")
    with pytest.raises(errors.UnexpectedReply):
        client.summary()


def test_a_redirect_is_not_an_answer(hub, client):
    hub.on("GET", "/api/v1/summary", b"", status=302)
    with pytest.raises(errors.UnexpectedReply, match="302"):
        client.summary()


def test_blobs(hub, client):
    hub.on("HEAD", "/api/v1/blobs/sha256:aa").on("HEAD", "/api/v1/blobs/sha256:cc", b"", status=401)
    hub.on("PUT", "/api/v1/blobs/sha256:bb", status=201)
    assert client.has_blob("sha256:aa") is True
    assert client.has_blob("sha256:bb") is False
    with pytest.raises(errors.Unauthenticated):
        client.has_blob("sha256:cc")
    client.put_blob("sha256:bb", iter([b"12", b"345"]), size=5)
    put = hub.sent("PUT", "/api/v1/blobs/sha256:bb")[0]
    assert put.body == b"12345"
    assert put.headers["content-length"] == "5"


def test_an_upload_refused_says_why(hub, client):
    hub.on("PUT", "/api/v1/blobs/sha256:bb", refusal("SKY-5009", limit=10), status=413)
    with pytest.raises(errors.PayloadTooLarge, match="10 bytes"):
        client.put_blob("sha256:bb", iter([b"1"]), size=1)


def test_role_metadata_is_untouched_bytes(hub, client):
    hub.on("GET", "/api/v1/catalogue/roles/line-a", b'{ "signed": 1 }')
    hub.on("POST", "/api/v1/catalogue/roles/line-a", status=201)
    assert client.role_metadata("line-a") == b'{ "signed": 1 }'
    client.publish_role("line-a", b'{"signed":2}')
    assert hub.calls[1].body == b'{"signed":2}'
