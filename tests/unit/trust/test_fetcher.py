# SPDX-License-Identifier: Apache-2.0
import pytest
from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError

from skerry.errors import HubUnreachable, UnexpectedReply
from skerry.testing.clock import VirtualClock
from skerry.trust.fetcher import HttpFetcher

URL = "https://hub.test/catalogue/timestamp.json"


class Reply:
    def __init__(self, status, body):
        self.status = status
        self.headers = {}
        self._body = body

    def chunks(self, size=65536):
        yield from (self._body[start : start + 4] for start in range(0, len(self._body), 4))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return None


class Http:
    def __init__(self, status=200, body=b"0123456789", error=None):
        self.answer = Reply(status, body)
        self.error = error
        self.seen = []

    def request(self, method, url, *, headers=None, body=None, timeout=30.0):
        self.seen.append((method, url, dict(headers), timeout))
        if self.error is not None:
            raise self.error
        return self.answer


def test_bytes_come_through_with_the_headers_of_the_moment():
    http = Http()
    tokens = iter(["one", "two"])
    fetcher = HttpFetcher(http, VirtualClock(), headers=lambda: {"authorization": f"Bearer {next(tokens)}"})
    assert fetcher.download_bytes(URL, 10) == b"0123456789"
    assert fetcher.download_bytes(URL, 10) == b"0123456789"
    assert [headers["authorization"] for _, _, headers, _ in http.seen] == ["Bearer one", "Bearer two"]


def test_one_byte_too_many_ends_it():
    with pytest.raises(DownloadLengthMismatchError):
        HttpFetcher(Http(), VirtualClock()).download_bytes(URL, 9)


@pytest.mark.parametrize("status", [301, 403, 404, 500])
def test_status_is_passed_on(status):
    with pytest.raises(DownloadHTTPError) as refusal:
        HttpFetcher(Http(status=status), VirtualClock()).download_bytes(URL, 10)
    assert refusal.value.status_code == status


def test_road_errors_pass_through_unchanged():
    down = HubUnreachable(url=URL, problem="refused")
    with pytest.raises(HubUnreachable) as refusal:
        HttpFetcher(Http(error=down), VirtualClock()).download_bytes(URL, 10)
    assert refusal.value is down
    assert not isinstance(refusal.value, UnexpectedReply)
