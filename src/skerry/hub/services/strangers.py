# SPDX-License-Identifier: Apache-2.0
"""Refusals of whoever has no valid credentials, counted by address.

Nobody guesses 256 random bits, so this is not about guessing: each recorded refusal costs the database a row, and a stranger
could fill it. Valid credentials always pass, whatever came from their address before: behind one address there may be a
whole site, or, with a proxy in front, everybody.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from skerry.effects import Clock
from skerry.errors import EnrolmentRefused, RateLimited, Unauthenticated

BURST = 20
SECONDS_EACH = 5.0

_ADDRESSES = 10_000
_NETWORK_BITS = 64  # of IPv6: whoever has one address of a network has all of them

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Bucket:
    left: float
    at: float


class Strangers:
    """Remembers a bounded number of addresses, in this process only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    @contextmanager
    def from_address(self, address: str) -> Iterator[None]:
        """Raises RateLimited instead of a refusal for want of credentials when the address had more than its share."""
        try:
            yield
        except (Unauthenticated, EnrolmentRefused) as refusal:
            wait = self._charge(_network(address))
            if wait > 0:
                raise RateLimited(retry_after=math.ceil(wait)) from refusal
            raise

    def _charge(self, network: str) -> float:
        """Seconds until the next refusal of this network is worth a record; 0 = now."""
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(network, _Bucket(left=float(BURST), at=now))
        self._buckets.move_to_end(network)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        bucket.left = min(float(BURST), bucket.left + (now - bucket.at) / SECONDS_EACH)
        bucket.at = now
        if bucket.left < 1:
            return (1 - bucket.left) * SECONDS_EACH
        bucket.left -= 1
        if bucket.left < 1:
            log.warning("many requests without valid credentials from %s; recording one in %g s", network, SECONDS_EACH)
        return 0.0


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:  # noqa: PLR2004 - IPv4
        return address
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
