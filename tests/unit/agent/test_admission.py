# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from skerry.agent.update.admission import Device, DoesNotFit, Fits, admit, give_way, needed_mib
from skerry.bundle.manifest import Needs, Variant
from skerry.wire.v1.device import Limits


def variant(name: str = "fp32", *, needs: int = 0, size: int = 0) -> Variant:
    return Variant(
        name=name,
        runtime="onnxruntime",
        precision="fp32",
        model="m",
        files=("m",),
        needs=Needs(memory_mib=needs),
        size=size,
    )


def device(memory: int = 1024, cpus: int = 2, **taken: float) -> Device:
    return Device(memory_mib=memory, cpus=cpus, taken=taken)


def test_what_is_needed_is_the_limit_else_what_the_bundle_says_else_an_estimate():
    assert needed_mib(variant(needs=300, size=100 << 20), Limits(memory_mib=128)) == 128
    assert needed_mib(variant(needs=300, size=100 << 20), Limits()) == 300
    assert needed_mib(variant(size=100 << 20), Limits()) == 220


def test_fits_to_the_last_mib_and_not_beyond():
    assert admit("eye", variant(needs=960), Limits(), device()) == Fits(needed_mib=960, free_mib=960)
    assert isinstance(admit("eye", variant(needs=961), Limits(), device()), DoesNotFit)


def test_refusal_says_what_is_needed_what_is_free_and_who_holds_the_rest():
    no = admit("eye", variant(needs=900), Limits(), device(ear=200.4, nose=100))
    assert isinstance(no, DoesNotFit)
    assert no.problem == (
        "fp32 needs 900 MiB of memory and 659 are free (of 1024: the system keeps 64, ear 201, nose 100)"
    )
    assert no.detail.endswith("; nothing to remove would be enough")


def test_refusal_names_the_smallest_change_that_would_help():
    small, smaller = variant("int8", needs=500), variant("int4", needs=300)
    no = admit("eye", variant(needs=600), Limits(), device(ear=400, nose=200), others=(small, smaller))
    assert isinstance(no, DoesNotFit)
    assert no.remedies == (
        "its variant int4 would fit, with 300 MiB",
        "without ear (400 MiB) it would fit",
    )


def test_version_before_counts_and_is_named_as_such():
    no = admit("eye", variant(needs=600), Limits(), device(eye=500))
    assert isinstance(no, DoesNotFit)
    assert "its own version before" in no.detail


def test_share_of_more_processors_than_there_are():
    no = admit("eye", variant(), Limits(cpu_share=3), device(cpus=2))
    assert isinstance(no, DoesNotFit)
    assert no.detail == "it is to have a CPU share of 3, and there are 2 processors; ask for 2 or less"


def test_memory_that_is_not_known_refuses_nothing():
    assert isinstance(admit("eye", variant(needs=10**6), Limits(), device(memory=0)), Fits)


def test_large_machines_keep_a_share_for_themselves():
    assert device(memory=16000).kept_mib == 800


@pytest.mark.parametrize(
    ("needed", "warm", "going"),
    [
        (500, {}, ()),
        (500, {"eye": 300.0}, ()),  # 860 free, 300 of them warm: both fit
        (560, {"eye": 300.0}, ()),
        (561, {"eye": 300.0}, ("eye",)),
        (600, {"ear": 50.0, "eye": 300.0, "nose": 200.0}, ("eye",)),
        (400, {"ear": 50.0, "eye": 300.0, "nose": 200.0}, ("nose",)),  # the smallest that is enough
        (800, {"ear": 50.0, "eye": 300.0, "nose": 200.0}, ("eye", "nose")),
        (5000, {"ear": 50.0, "eye": 300.0}, ("eye", "ear")),
    ],
)
def test_what_is_only_kept_warm_yields_and_no_more_of_it_than_has_to(needed, warm, going):
    assert give_way(needed, device(1024, w=100), warm) == going


def test_nothing_yields_where_memory_is_not_known():
    assert give_way(10**6, device(0), {"eye": 300.0}) == ()
