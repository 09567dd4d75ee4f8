# SPDX-License-Identifier: Apache-2.0
"""The hub as a real server on loopback, asked by clients that share no code with it."""

from __future__ import annotations

import base64
import hashlib
import json
import resource
import secrets
import signal
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.ngclient import Updater

from contracts.store.private_postgres import binaries, private_postgres
from skerry.bundle.blob import content
from skerry.effects.disk import DiskFiles
from skerry.trust import folder, publish
from skerry.trust.decision import CatalogueEntry
from skerry.trust.keyfile import read_private
from support.bundles import bundle
from support.hub_process import HubProcess
from support.hub_world import CAPABILITIES, HEADER, LINE, b64, b64url

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    where = tmp_path_factory.mktemp("trust")
    folder.make(
        where,
        folder.demo_plan((LINE,)),
        passphrases=folder.Passphrases(offline=None, online=None),
        files=DiskFiles(),
        now=time.time(),
    )
    return where


class Site:
    """Hubs and clients; all of them end with the test."""

    def __init__(self, folder, keys, stack):
        self.folder = folder
        self.keys = keys
        self._stack = stack

    def start(self, **settings):
        fixed = {
            "data": str(self.folder / "data"),
            "trust": str(self.keys / "online"),
            "port": 0,
            "controller_seconds": 0.1,
        }
        hub = HubProcess(settings={**fixed, **settings}, log=self.folder / "hub.log")
        self._stack.callback(hub.stop)
        return hub.start()

    def http(self, base, **options):
        return self._stack.enter_context(httpx.Client(base_url=base, timeout=70, **options))

    def operator(self, hub, admin=None, **options):
        return Operator(self, hub, admin or hub.admin, **options)


@pytest.fixture
def site(tmp_path, keys):
    (tmp_path / "data").mkdir()
    with ExitStack() as stack:
        yield Site(tmp_path, keys, stack)


class Operator:
    def __init__(self, site, hub, token, **options):
        self.site = site
        self.http = site.http(f"{hub.url}/api/v1/", headers={"authorization": f"Bearer {token}"}, **options)

    def publish(self, made):
        for digest, data in {made.digest: made.manifest.data, **{d: content(b) for d, b in made.blobs.items()}}.items():
            assert self.http.put(f"blobs/{digest}", content=data).status_code == 201
        config = made.config
        entry = CatalogueEntry(
            target=f"{config.line}/{config.name}/{config.version}.json",
            digest=made.digest,
            size=len(made.manifest.data),
            line=config.line,
            model=config.name,
            version=config.version,
            release_seq=config.release_seq,
            floor_seq=config.floor_seq,
        )
        key = read_private(self.site.keys / f"line-{LINE}.pem", passphrase=None, allow_plain=True)
        role = self.http.get(f"catalogue/roles/line-{LINE}").content
        data = publish.add_release(role, entry, keys=(key,), expires=time.time() + publish.LINE_LIFETIME)
        assert self.http.post(f"catalogue/roles/line-{LINE}", content=data).status_code == 204
        return entry

    def enrol(self, hub, name="cam", **options):
        token = self.http.post("enrolment-tokens", json={"labels": {"site": "north"}}).json()["token"]
        return Machine(self.site.http(f"{hub.url}/device/v1/", **options), token, name)

    def deploy(self):
        spec = {"workload": "sorter", "bundle": "digits:1.0.0", "selector": {"site": "north"}}
        reply = self.http.post("rollouts", json=spec)
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]


class Machine:
    """A device with a key of its own."""

    def __init__(self, http, token, name):
        self.key = Ed25519PrivateKey.generate()
        self.http = http
        public = b64(self.key.public_key().public_bytes_raw())
        request = {"token": token, "name": name, "public_key": public, "capabilities": CAPABILITIES}
        reply = self.http.post("enroll", json=request)
        assert reply.status_code == 201, reply.text
        self.id, self.audience = reply.json()["device_id"], reply.json()["audience"]
        self.root = base64.b64decode(reply.json()["factory_root"])
        self.login()

    def assertion(self):
        now = time.time()
        claims = {"iss": self.id, "sub": self.id, "aud": self.audience, "iat": now, "exp": now + 60}
        text = f"{HEADER}.{b64url(json.dumps({**claims, 'jti': secrets.token_hex(8)}).encode())}"
        return f"{text}.{b64url(self.key.sign(text.encode()))}"

    def exchange(self, assertion, http=None):
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return (http or self.http).post("token", data=form)

    def login(self):
        token = self.exchange(self.assertion()).json()["access_token"]
        self.http.headers["authorization"] = f"Bearer {token}"

    def poll(self, wait=0.0, tag="", http=None):
        headers = {"if-none-match": tag} if tag else {}
        return (http or self.http).get("assignment", params={"wait": wait}, headers=headers)


def payload(reply):
    return json.loads(base64.b64decode(reply.json()["payload"]))


def test_a_devices_day_from_enrolment_to_a_resumed_download(site):
    hub = site.start()
    operator = site.operator(hub)
    made = bundle()
    operator.publish(made)
    device = operator.enrol(hub)

    once = device.assertion()
    assert device.exchange(once).status_code == 200
    replayed = device.exchange(once)
    assert (replayed.status_code, replayed.json()["code"]) == (401, "SKY-5002")

    first = device.poll()
    tag = first.headers["etag"]
    assert device.poll(tag=tag).status_code == 304
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(device.poll, wait=50, tag=tag)
        in_flight(hub)
        began = time.monotonic()
        rollout = operator.deploy()
        reply = waiting.result(timeout=20)
        seconds = time.monotonic() - began
    assert reply.status_code == 200
    assert [workload["rollout"] for workload in payload(reply)["workloads"]] == [rollout]
    assert payload(reply)["sequence"] > payload(first)["sequence"]
    assert seconds < 1.0

    digest = payload(reply)["workloads"][0]["bundle"]["digest"]
    assert device.http.get(f"blobs/{digest}").content == made.manifest.data
    largest = max(made.manifest.blobs, key=lambda blob: blob.size)
    with device.http.stream("GET", f"blobs/{largest.digest}") as broken:
        etag = broken.headers["etag"]
        begun = next(broken.iter_bytes(100))
    rest = device.http.get(f"blobs/{largest.digest}", headers={"range": f"bytes={len(begun)}-", "if-range": etag})
    assert rest.status_code == 206
    assert f"sha256:{hashlib.sha256(begun + rest.content).hexdigest()}" == largest.digest


def in_flight(hub):
    """Wait until the hub is answering another request than this one: the long-poll is there."""
    pause = threading.Event()
    for _ in range(500):
        text = httpx.get(f"{hub.url}/metrics").text
        if float(text.split("\nskerry_hub_requests_in_flight ")[1].split()[0]) >= 2:
            return
        pause.wait(0.02)
    raise AssertionError("the long-poll never arrived")


def test_python_tufs_own_client_updates_and_downloads(site, tmp_path):
    hub = site.start()
    operator = site.operator(hub)
    made = bundle()
    entry = operator.publish(made)
    device = operator.enrol(hub)

    def client():
        return Updater(
            metadata_dir=str(tmp_path / "metadata"),
            metadata_base_url=f"{hub.url}/device/v1/catalogue/",
            target_dir=str(tmp_path / "targets"),
            target_base_url=f"{hub.url}/device/v1/catalogue/targets/",
            bootstrap=device.root,
        )

    (tmp_path / "metadata").mkdir()
    (tmp_path / "targets").mkdir()
    updater = client()
    updater.refresh()
    info = updater.get_targetinfo(entry.target)
    assert info is not None
    path = updater.download_target(info)
    assert (tmp_path / "targets").joinpath(path).read_bytes() == made.manifest.data
    keys_info = updater.get_targetinfo("hub/assignment-keys.json")
    assert keys_info is not None
    named = json.loads(Path(updater.download_target(keys_info)).read_bytes())
    assert len(named["keys"]) == 1

    second = bundle(version="1.1.0", release_seq=2)
    newer = operator.publish(second)
    later = client()
    later.refresh()
    assert later.get_targetinfo(newer.target) is not None
    assert later.get_targetinfo("vision/digits/9.9.9.json") is None


def test_told_to_stop_the_hub_ends_long_polls_and_itself_in_good_order(site):
    hub = site.start()
    operator = site.operator(hub)
    device = operator.enrol(hub)
    tag = device.poll().headers["etag"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(device.poll, wait=50, tag=tag)
        in_flight(hub)
        operator.http.close()
        began = time.monotonic()
        hub.signal(signal.SIGTERM)
        assert waiting.result(timeout=20).status_code == 304
    assert hub.wait() == 0
    assert time.monotonic() - began < 8


def test_killed_in_the_middle_of_an_upload_nothing_of_it_is_visible_and_all_else_is_there(site):
    hub = site.start()
    operator = site.operator(hub)
    device = operator.enrol(hub)
    tag = device.poll().headers["etag"]
    data = bytes(8 * 1024 * 1024)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    half = threading.Event()

    def slowly():
        yield data[: len(data) // 2]
        half.set()
        hub.kill()
        yield data[len(data) // 2 :]

    with pytest.raises(httpx.TransportError):
        operator.http.put(f"blobs/{digest}", content=slowly())
    assert half.is_set()
    admin, settings = hub.admin, hub.settings
    hub = site.start(**settings)
    again = site.operator(hub, admin)
    assert again.http.head(f"blobs/{digest}").status_code == 404
    assert again.http.put(f"blobs/{digest}", content=data).status_code == 201
    assert [item["id"] for item in again.http.get("devices").json()["items"]] == [device.id]
    device.http.base_url = f"{hub.url}/device/v1/"
    assert device.poll(tag=tag).status_code == 304


def test_a_hub_takes_as_many_connections_as_the_machine_lets_it(site):
    """Two thousand waiting devices are two thousand open files; the usual soft limit is half of that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        hub = site.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(hub.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_over_tls_with_a_private_authority(site, tmp_path):
    cert, key = self_signed(tmp_path)
    hub = site.start(tls_cert=str(cert), tls_key=str(key))
    assert hub.url.startswith("https://127.0.0.1:")
    operator = site.operator(hub, verify=ssl.create_default_context(cafile=str(cert)))
    reply = operator.http.get("summary")
    assert reply.json()["demo_trust"] is True
    assert reply.headers["strict-transport-security"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{hub.url}/healthz")


def self_signed(where):
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (where / "hub.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (where / "hub.key").write_bytes(private)
    return where / "hub.pem", where / "hub.key"


@pytest.mark.postgres
def test_two_replicas_on_one_postgresql_are_one_hub(site):
    place = binaries()
    if place is None:
        pytest.skip("no PostgreSQL server binaries (apt install postgresql-15)")
    with private_postgres(place) as server:
        database = server.database()
        with ThreadPoolExecutor(2) as pool:
            one, two = pool.map(lambda _: site.start(database=database), range(2))
        admin = one.admin or two.admin
        assert bool(one.admin) != bool(two.admin)
        here, there = site.operator(one, admin), site.operator(two, admin)
        here.publish(bundle())
        device = here.enrol(one)
        other = site.http(f"{two.url}/device/v1/", headers=device.http.headers)
        once = device.assertion()
        assert device.exchange(once).status_code == 200
        assert device.exchange(once, http=other).status_code == 401
        tag = device.poll().headers["etag"]
        assert device.poll(tag=tag, http=other).status_code == 304
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(device.poll, wait=50, tag=tag, http=other)
            in_flight(two)
            began = time.monotonic()
            here.deploy()
            assert waiting.result(timeout=20).status_code == 200
            assert time.monotonic() - began < 2.0
        digest = bundle().manifest.blobs[0].digest
        assert other.get(f"blobs/{digest}").status_code == 200
        here.http.post(f"devices/{device.id}/revoke")
        assert device.poll(http=other).status_code == 401
        one.stop()
        assert there.http.get("summary").status_code == 200
        two.stop()
