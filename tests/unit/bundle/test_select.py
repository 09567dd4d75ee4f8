# SPDX-License-Identifier: Apache-2.0
from typing import Any

import msgspec
import pytest

from skerry.bundle.manifest import Needs
from skerry.bundle.select import Chosen, NoneFits, choose_variant
from support import bundles

PLAIN: dict[str, Any] = {"arch": "x86_64", "memory_mib": 1024, "runtimes": {"onnxruntime": "1.31"}}


def with_needs(needs: Needs):
    config = bundles.bundle().config
    return msgspec.structs.replace(
        config, variants=(config.variants[0], msgspec.structs.replace(config.variants[1], needs=needs))
    )


@pytest.mark.parametrize(
    ("needs", "device", "reason"),
    [
        (Needs(), {}, ""),
        (Needs(arch=("x86_64", "aarch64")), {"arch": "aarch64"}, ""),
        (Needs(arch=("aarch64",)), {}, "runs on aarch64, not x86_64"),
        (Needs(memory_mib=1024), {}, ""),
        (Needs(memory_mib=1025), {}, "needs 1025 MiB of memory, not 1024"),
        (Needs(instructions=("vnni",)), {"instructions": ("vnni", "avx2")}, ""),
        (Needs(instructions=("vnni", "avx2")), {"instructions": ("avx2",)}, "no vnni instructions"),
        (Needs(accelerator="cuda"), {"accelerators": ["cuda"]}, ""),
        (Needs(accelerator="cuda"), {}, "no cuda accelerator"),
    ],
)
def test_the_preferred_variant_is_taken_if_it_fits(needs, device, reason):
    chosen = choose_variant(with_needs(needs), **{**PLAIN, **device})
    assert isinstance(chosen, Chosen)
    assert chosen.variant.name == ("fp32" if reason else "int8")
    assert chosen.passed_over == ({"int8": reason} if reason else {})


def test_nothing_fits_and_every_variant_says_why():
    found = choose_variant(with_needs(Needs(arch=("aarch64",))), **{**PLAIN, "runtimes": ["litert"]})
    assert found == NoneFits(
        reasons={"int8": "no onnxruntime engine, runs on aarch64, not x86_64", "fp32": "no onnxruntime engine"}
    )
    assert found.problem == "int8: no onnxruntime engine, runs on aarch64, not x86_64; fp32: no onnxruntime engine"


def test_equally_preferred_variants_keep_their_order():
    config = bundles.bundle().config
    level = tuple(msgspec.structs.replace(variant, preference=0, needs=Needs()) for variant in config.variants)
    chosen = choose_variant(msgspec.structs.replace(config, variants=level), **PLAIN)
    assert isinstance(chosen, Chosen)
    assert chosen.variant.name == "fp32"
