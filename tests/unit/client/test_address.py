# SPDX-License-Identifier: Apache-2.0
import pytest

from skerry.client.address import Scheme, parse
from skerry.errors import CallInvalid


@pytest.mark.parametrize(
    ("url", "host", "port", "authority"),
    [
        ("http://127.0.0.1:9000", "127.0.0.1", 9000, "127.0.0.1:9000"),
        ("http://box.local/", "box.local", 80, "box.local:80"),
        ("http://[::1]:81", "::1", 81, "[::1]:81"),
    ],
)
def test_over_tcp(url, host, port, authority):
    address = parse(url)
    assert (address.scheme, address.host, address.port, address.authority) == (Scheme.HTTP, host, port, authority)


@pytest.mark.parametrize("scheme", ["unix", "shm"])
def test_over_a_socket_of_this_machine(scheme):
    address = parse(f"{scheme}:///run/a%20b.sock")
    assert (address.scheme, address.path) == (scheme, "/run/a b.sock")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:9000",
        "",
        "https://h:1",
        "http://",
        "http://h:99999",
        "http://h:x",
        "http://h:1/v2",
        "http://u@h:1",
        "http://h:1?x",
        "http://h:1#x",
        "http://[::1",
        "unix://run/x.sock",
        "unix:run",
        "shm://",
        "unix:///" + "x" * 107,
        "unix:///a%00b",
        "http://a\r\nb:1",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(url):
    with pytest.raises(CallInvalid):
        parse(url)
