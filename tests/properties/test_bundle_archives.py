# SPDX-License-Identifier: Apache-2.0
"""Whatever goes into an archive comes out; whatever is changed in one is refused."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.bundle import oci
from skerry.bundle.archive import read_archive
from skerry.bundle.blob import MemoryBlob, content
from skerry.bundle.formats import kind_by_content, kind_by_name
from skerry.bundle.paths import flaw_of, refusal_of, require_paths
from skerry.bundle.unpacked import check_folder, unpack
from skerry.errors import ArtefactError
from support import bundles

GOOD = bundles.archive()

safe_names = (
    st.lists(st.text("abcXYZ019_-.+ ", min_size=1, max_size=12), min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda path: flaw_of(path) is None and kind_by_name(path) is None and path.lower() != "skerry.json")
    .filter(lambda path: not path.lower().endswith(".npz"))
)
contents = st.binary(max_size=3000).filter(lambda data: kind_by_content(data) is None)


def living_together(paths) -> bool:
    try:
        require_paths([*paths, *bundles.files(), "skerry.json"])
    except ArtefactError:
        return False
    return True


file_sets = st.dictionaries(safe_names, contents, max_size=5).filter(living_together)


@given(file_sets)
@settings(max_examples=60, deadline=None)
def test_files_survive_the_round_trip(tmp_path_factory, extra):
    files = {**bundles.files(), **{path: MemoryBlob(data) for path, data in extra.items()}}
    bundle = oci.build(bundles.config(), files)
    read = read_archive(io.BytesIO(bundles.archive(bundle)))
    assert read.digest == bundle.digest
    assert {path: content(read.file(path)) for path in files} == {path: content(blob) for path, blob in files.items()}
    folder = tmp_path_factory.mktemp("round") / "bundle"
    unpack(read, folder)
    check_folder(bundle.manifest, folder)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=400, deadline=None)
def test_any_changed_byte_is_refused(at, difference):
    data = bytearray(GOOD)
    data[at] ^= difference
    with pytest.raises(ArtefactError):
        read_archive(io.BytesIO(bytes(data)))


@given(st.integers(0, len(GOOD)), st.integers(0, 600), st.binary(max_size=600))
@settings(max_examples=300, deadline=None)
def test_any_piece_cut_out_or_put_in_is_refused_or_changes_nothing(at, cut, put):
    data = GOOD[:at] + put + GOOD[at + cut :]
    if data == GOOD:
        return
    with pytest.raises(ArtefactError):
        read_archive(io.BytesIO(data))


@given(st.binary(max_size=4000))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused_with_an_error_of_ours(data):
    with pytest.raises(ArtefactError):
        read_archive(io.BytesIO(data))


@given(st.binary(max_size=2000))
@settings(max_examples=300, deadline=None)
def test_noise_is_no_manifest_and_no_config(data):
    for parse in (oci.parse_manifest, oci.parse_config):
        with pytest.raises(ArtefactError):
            parse(data)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["..", ".", "", "a", "\\", "\0", "~", "C:"]), max_size=6).map("/".join)
)
@settings(max_examples=500, deadline=None)
def test_a_name_without_a_flaw_stays_inside_whatever_folder(tmp_path_factory, name):
    if refusal_of(name) is not None:
        return
    folder = tmp_path_factory.getbasetemp() / "inside"
    assert (folder / name).resolve().is_relative_to(folder.resolve())
    assert name.isascii()
    assert name.isprintable()


@given(st.permutations(sorted(bundles.files())))
@settings(max_examples=20, deadline=None)
def test_the_order_of_files_does_not_matter(order):
    files = bundles.files()
    assert oci.build(bundles.config(), {path: files[path] for path in order}).digest == bundles.bundle().digest
