# SPDX-License-Identifier: Apache-2.0
import msgspec
import pytest

from skerry.bundle.manifest import Egress, Io, SelfTest, TensorSpec, Tolerance
from skerry.bundle.rules import name_problem, problems_of, validate_config, version_problem
from skerry.errors import ManifestError
from support import bundles

GOOD = bundles.bundle().config


def change(**fields):
    return msgspec.structs.replace(GOOD, **fields)


def variant(**fields):
    return change(variants=(msgspec.structs.replace(GOOD.variants[0], **fields), GOOD.variants[1]))


def file(**fields):
    return change(files=(msgspec.structs.replace(GOOD.files[0], **fields), *GOOD.files[1:]))


def tensor(**fields):
    whole = {"name": "x", "dtype": "FP32", "shape": (1,), **fields}
    return change(io=Io(inputs=(TensorSpec(**whole),), outputs=GOOD.io.outputs))


def test_a_good_config_has_no_problems():
    validate_config(GOOD)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (change(name="Digits"), "name: 'Digits' is not a name"),
        (change(name="a" * 64), "is not a name"),
        (change(name="-a"), "is not a name"),
        (change(name=""), "is not a name"),
        (change(line="a/b"), "line: 'a/b' is not a name"),
        (change(version="1/2"), "version: '1/2' is not a version"),
        (change(version="1..2"), "is not a version"),
        (change(version=""), "is not a version"),
        (change(release_seq=0), "release_seq: 0"),
        (change(release_seq=2**53), "release_seq"),
        (change(floor_seq=2), "floor_seq: 2 is not in 0..release_seq"),
        (change(floor_seq=-1), "floor_seq"),
        (change(variants=()), "variants: there is none"),
        (change(variants=(GOOD.variants[0],) * 2), "variant fp32 appears 2 times"),
        (variant(name="FP 32"), "variant FP 32: 'FP 32' is not a name"),
        (variant(runtime="../x"), "runtime '../x' is not a word"),
        (variant(precision=""), "precision '' is not a word"),
        (variant(model="other.onnx"), "its model other.onnx is not among its files"),
        (variant(files=(bundles.FP32, "gone.bin")), "gone.bin not among the bundle's files"),
        (variant(files=(bundles.FP32, bundles.FP32)), "appears 2 times"),
        (variant(size=1), "size 1 is not the sum"),
        (variant(tolerance=Tolerance(atol=-1)), "atol"),
        (variant(tolerance=Tolerance(atol=float("inf"))), "atol"),
        (variant(tolerance=Tolerance(rtol=float("inf"))), "rtol"),
        (variant(tolerance=Tolerance(agreement=0)), "agreement 0 is not in (0, 1]"),
        (variant(tolerance=Tolerance(agreement=1.1)), "agreement"),
        (file(path="../x"), "climbs with .."),
        (file(path="skerry.json"), "the path is reserved"),
        (file(path="x.pkl"), "can run code (pickle)"),
        (file(digest="md5:0"), "is not a digest"),
        (file(size=-1), "-1 bytes"),
        (change(files=(*GOOD.files, GOOD.files[0])), "appears 2 times"),
        (change(self_test=SelfTest(file="gone.npz", samples=1)), "self_test: gone.npz is not among"),
        (change(self_test=SelfTest(file=bundles.SAMPLES, samples=0)), "there are no samples"),
        (change(io=Io(inputs=(), outputs=())), "there are no outputs"),
        (change(io=Io(inputs=GOOD.io.inputs * 2, outputs=GOOD.io.outputs)), "input x appears 2 times"),
        (tensor(name=""), "a tensor needs a name"),
        (tensor(dtype="float32"), "'float32' is not a datatype"),
        (tensor(shape=(-2,)), "an axis is -1 or a length"),
        (tensor(range=(1.0, 0.0)), "is empty"),
        (tensor(range=(float("nan"), 0.0)), "is empty"),
        (change(egress=Egress(results=("secret",))), "egress: secret is not an output"),
        (change(egress=Egress(results=("y", "y"))), "egress result y appears 2 times"),
        (change(egress=Egress(max_values=0)), "max_values"),
        (change(latency_budget_ms=0.0), "latency_budget_ms"),
        (change(latency_budget_ms=float("nan")), "latency_budget_ms"),
        (change(ml_bom="gone.json"), "ml_bom: gone.json is not among"),
    ],
)
def test_each_rule_is_broken_once(config, problem):
    with pytest.raises(ManifestError, match=r"bundle manifest is invalid") as caught:
        validate_config(config)
    assert problem in str(caught.value)


def test_every_problem_is_named_at_once():
    assert len(problems_of(change(name="", version="", release_seq=0))) >= 3


@pytest.mark.parametrize("name", ["a", "a1", "weld-defect", "a" * 63])
def test_names_that_are_allowed(name):
    assert name_problem(name) is None


@pytest.mark.parametrize("version", ["1", "1.5.1", "2024-05-01", "1.0.0-rc.1+build", "v2_b"])
def test_versions_that_are_allowed(version):
    assert version_problem(version) is None
