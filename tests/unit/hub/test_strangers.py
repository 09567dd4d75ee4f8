# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from skerry.errors import EnrolmentRefused, Forbidden, RateLimited, Unauthenticated
from skerry.hub.services import strangers as module
from skerry.hub.services.strangers import BURST, SECONDS_EACH, Strangers
from skerry.testing.clock import VirtualClock


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def strangers(clock):
    return Strangers(clock)


def refused(strangers, address, error=Unauthenticated):
    with pytest.raises((RateLimited, error)) as caught, strangers.from_address(address):
        raise error(problem="no")
    return caught.type is error


def test_refusals_stay_what_they_are_until_there_were_too_many(strangers, clock):
    said = [refused(strangers, "192.0.2.1", kind) for kind in (Unauthenticated, EnrolmentRefused) * BURST]
    assert said == [True] * BURST + [False] * BURST
    clock.advance(2 * SECONDS_EACH)
    assert [refused(strangers, "192.0.2.1") for _ in range(3)] == [True, True, False]
    clock.advance(1000 * SECONDS_EACH)
    assert sum(refused(strangers, "192.0.2.1") for _ in range(2 * BURST)) == BURST


def test_one_address_spends_nothing_of_another(strangers):
    for _ in range(2 * BURST):
        refused(strangers, "192.0.2.1")
    assert refused(strangers, "192.0.2.2")
    assert refused(strangers, "")
    assert refused(strangers, "no address")


def test_a_network_of_ipv6_is_one_stranger(strangers):
    said = [refused(strangers, f"2001:db8::{n:x}") for n in range(BURST + 5)]
    assert said == [True] * BURST + [False] * 5
    assert refused(strangers, "2001:db8:0:1::1")


def test_other_errors_and_success_cost_nothing(strangers):
    for _ in range(2 * BURST):
        with strangers.from_address("192.0.2.1"):
            pass
        with pytest.raises(Forbidden), strangers.from_address("192.0.2.1"):
            raise Forbidden(role="viewer", action="x")
    assert refused(strangers, "192.0.2.1")


def test_the_number_of_addresses_remembered_is_bounded(strangers, monkeypatch):
    monkeypatch.setattr(module, "_ADDRESSES", 100)
    for n in range(1000):
        refused(strangers, f"192.0.{n // 250}.{n % 250}")
    assert len(strangers._buckets) == 100


def test_a_clock_that_stands_still_or_jumps_gives_no_negative_wait(strangers, clock):
    for _ in range(BURST):
        refused(strangers, "192.0.2.1")
    with pytest.raises(RateLimited) as caught, strangers.from_address("192.0.2.1"):
        raise Unauthenticated(problem="no")
    assert caught.value.fields["retry_after"] == SECONDS_EACH
