# SPDX-License-Identifier: Apache-2.0
"""Archives made to harm whoever opens them. Each is refused with its own code, and nothing is written."""

import io
import json
import pickle  # noqa: TID251 - to make what must be refused
import stat
import tarfile
import zipfile

import pytest

from skerry import errors
from skerry.bundle import canonical, oci, ustar
from skerry.bundle.archive import Limits, open_archive
from skerry.bundle.blob import MemoryBlob, content
from skerry.bundle.digest import digest_of, hex_of
from skerry.bundle.unpacked import unpack
from support import bundles

GOOD = bundles.bundle()
NAMES = ["oci-layout", "index.json", f"blobs/sha256/{hex_of(GOOD.digest)}"] + [
    f"blobs/sha256/{hex_of(blob.digest)}" for blob in GOOD.manifest.blobs
]
WEIGHTS = NAMES[-1]


def entries(data: bytes | None = None) -> dict[str, bytes]:
    """Name -> content of an archive, read by Python's own tar reader: an opinion that is not ours."""
    with tarfile.open(fileobj=io.BytesIO(data or bundles.archive())) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def entry(name: str, data: bytes) -> bytes:
    return ustar.header(name, len(data)) + data + bytes(ustar.padding(len(data)))


def archive_of(contents, end: bytes = ustar.END) -> bytes:
    pairs = contents.items() if isinstance(contents, dict) else contents
    return b"".join(entry(name, data) for name, data in pairs) + end


def tarred(**fields) -> bytes:
    """A good archive with one entry in front that Python's tarfile wrote as told."""
    info = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(ustar.padding(512)) + bundles.archive()


def resigned(header: bytes) -> bytes:
    """A header with its checksum made right again."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def patched(offset: int, data: bytes, name: str = WEIGHTS) -> bytes:
    """A good archive in which bytes of the header of `name` are replaced."""
    whole = bundles.archive()
    start = whole.index(name.encode())
    header = bytearray(whole[start : start + 512])
    header[offset : offset + len(data)] = data
    return whole[:start] + resigned(bytes(header)) + whole[start + 512 :]


def rebuilt(change_config=None, change_image=None, extra=()) -> bytes:
    """An archive whose manifest and config were forged together, with every digest right."""
    contents = {digest_of(data): data for data in entries().values()}
    config = json.loads(contents[GOOD.manifest.config.digest])
    image = json.loads(GOOD.manifest.data)
    for data in extra:
        contents[digest_of(data)] = data
    if change_config:
        change_config(config)
    config_data = canonical.encode(config)
    contents[digest_of(config_data)] = config_data
    image["layers"][0].update(digest=digest_of(config_data), size=len(config_data))
    if change_image:
        change_image(image)
    model_config = json.loads(contents[GOOD.manifest.model_config.digest])
    model_config["modelfs"]["diffIds"] = [layer["digest"] for layer in image["layers"]]
    model_data = canonical.encode(model_config)
    contents[digest_of(model_data)] = model_data
    image["config"].update(digest=digest_of(model_data), size=len(model_data))
    image_data = canonical.encode(image)
    index = json.loads(entries()["index.json"])
    index["manifests"][0].update(digest=digest_of(image_data), size=len(image_data))
    first = [digest_of(config_data), digest_of(model_data)]
    rest = sorted({layer["digest"] for layer in image["layers"]} - set(first))
    blobs = {f"blobs/sha256/{hex_of(digest)}": contents.get(digest, b"") for digest in [*first, *rest]}
    return archive_of(
        {
            "oci-layout": entries()["oci-layout"],
            "index.json": canonical.encode(index),
            f"blobs/sha256/{hex_of(digest_of(image_data))}": image_data,
            **blobs,
        }
    )


def both(**fields):
    """The same forgery in the config's first file and in its layer; `path` and `data` are understood."""

    def in_config(config):
        config["files"][0].update({key: value for key, value in fields.items() if key != "data"})

    def in_image(image):
        layer = image["layers"][1]
        layer.update({key: value for key, value in fields.items() if key in {"digest", "size"}})
        if "path" in fields:
            layer["annotations"][oci.FILEPATH] = fields["path"]

    return in_config, in_image


@pytest.fixture
def refused(tmp_path):
    """Asserts that the archive is refused with exactly this error and leaves no trace."""

    def check(data: bytes, error: type[errors.SkerryError], *, match: str | None = None, limits: Limits | None = None):
        archive = tmp_path / "hostile.skb"
        archive.write_bytes(data)
        with pytest.raises(error, match=match) as caught:
            unpack(open_archive(archive, limits), tmp_path / "bundle")
        assert type(caught.value) is error
        assert list(tmp_path.iterdir()) == [archive]
        assert archive.read_bytes() == data

    return check


def test_the_tools_of_these_tests_make_good_archives_when_not_told_otherwise(tmp_path):
    assert archive_of(entries()) == bundles.archive()
    assert rebuilt() == bundles.archive()
    assert patched(0, b"") == bundles.archive()
    assert list(entries()) == NAMES
    (tmp_path / "good.skb").write_bytes(bundles.archive())
    unpack(open_archive(tmp_path / "good.skb"), tmp_path / "bundle")


# --- links and special files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "oci-layout"])
def test_symbolic_link(refused, target):
    refused(tarred(type=tarfile.SYMTYPE, linkname=target), errors.LinkInArchive)


def test_hard_link(refused):
    refused(tarred(type=tarfile.LNKTYPE, linkname="/etc/shadow"), errors.LinkInArchive)


def test_link_in_place_of_the_weights(refused):
    refused(patched(156, b"2/etc/passwd"), errors.LinkInArchive)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "fifo"),
        (tarfile.DIRTYPE, "folder"),
        (tarfile.CONTTYPE, "contiguous file"),
    ],
)
def test_device(refused, kind, word):
    refused(tarred(type=kind, devmajor=1, devminor=1), errors.DeviceInArchive, match=word)


# --- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "blobs/../../evil", "/etc/cron.d/evil", "..", "C:/evil"])
def test_entry_outside_the_bundle(refused, name):
    refused(tarred(name=name), errors.PathEscape)


def test_absolute_name_split_over_the_prefix_field(refused):
    refused(patched(345, b"/etc"), errors.PathEscape)


def test_name_continued_in_the_prefix_field(refused):
    refused(patched(345, b"deeper"), errors.BadEntryName)


@pytest.mark.parametrize(
    "name", ["blobs\\..\\evil", "a\nb", "a\x1b[2Jb", "caf\xe9", ".hidden", "a//b", "./oci-layout", ""]
)
def test_name_that_is_not_allowed(refused, name):
    info = tarfile.TarInfo(name)
    refused(info.tobuf(tarfile.USTAR_FORMAT, encoding="latin-1") + bundles.archive(), errors.BadEntryName)


def test_name_with_a_zero_byte_inside(refused):
    refused(patched(0, b"oci-layout\x00/../evil"), errors.BadEntryName)


@pytest.mark.parametrize("path", ["../evil", "/etc/cron.d/evil", "models/../../evil"])
def test_path_in_the_manifest_outside_the_bundle(refused, path):
    refused(rebuilt(*both(path=path)), errors.PathEscape)


@pytest.mark.parametrize("path", ["a\\b", "a\x00b", "a\nb", ".bashrc", "a/./b"])
def test_path_in_the_manifest_that_is_not_allowed(refused, path):
    refused(rebuilt(*both(path=path)), errors.BadEntryName)


# --- what is there and what should be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_entry_given_twice_in_a_row(refused, name):
    doubled = [pair for pair in entries().items() for _ in range(2 if pair[0] == name else 1)]
    refused(archive_of(doubled), errors.DuplicateEntry)


@pytest.mark.parametrize("name", NAMES)
def test_entry_given_again_at_the_end(refused, name):
    refused(archive_of([*entries().items(), (name, b"other")]), errors.DuplicateEntry)


@pytest.mark.parametrize("path", ["README.MD", "readme.md", bundles.FP32, "models", "Skerry.json"])
def test_two_files_for_one_place_on_some_file_system(refused, path):
    layer = json.loads(GOOD.manifest.data)["layers"][1]

    def in_image(image):
        annotations = {oci.FILEPATH: path, "org.opencontainers.image.title": path}
        image["layers"].append({**layer, "annotations": annotations})

    refused(rebuilt(change_image=in_image), errors.DuplicateEntry)


@pytest.mark.parametrize("name", ["evil", "blobs/sha256/" + "0" * 64, "blobs/sha512/x", "skerry.json"])
def test_entry_nobody_declared(refused, name):
    refused(archive_of([*entries().items(), (name, b"evil")]), errors.UndeclaredEntry)


def test_entry_nobody_declared_between_the_blobs(refused):
    pairs = list(entries().items())
    refused(archive_of([*pairs[:5], ("blobs/sha256/" + "0" * 64, b"x"), *pairs[5:]]), errors.UndeclaredEntry)


def test_entry_nobody_declared_in_front(refused):
    refused(archive_of([("evil", b"x"), *entries().items()]), errors.UndeclaredEntry)


@pytest.mark.parametrize("name", NAMES)
def test_entry_missing(refused, name):
    refused(archive_of([pair for pair in entries().items() if pair[0] != name]), errors.MissingEntry)


def test_entries_in_another_order(refused):
    pairs = list(entries().items())
    refused(archive_of([*pairs[:-2], pairs[-1], pairs[-2]]), errors.MissingEntry)


def test_layer_the_config_does_not_name(refused):
    data = b"stowaway"
    layer = {
        "annotations": {oci.FILEPATH: "stowaway.bin", "org.opencontainers.image.title": "stowaway.bin"},
        "digest": digest_of(data),
        "mediaType": "application/vnd.cncf.model.weight.v1.raw",
        "size": len(data),
    }
    forged = rebuilt(change_image=lambda image: image["layers"].append(layer), extra=[data])
    refused(forged, errors.UndeclaredEntry, match=r"stowaway\.bin")


def test_file_of_the_config_without_a_layer(refused):
    refused(rebuilt(change_image=lambda image: image["layers"].pop(1)), errors.MissingEntry, match=r"README\.md")


# --- sizes ---------------------------------------------------------------------------------------------------------------


def test_header_says_more_than_the_manifest(refused):
    pairs = entries()
    refused(archive_of({**pairs, WEIGHTS: pairs[WEIGHTS] + b"more"}), errors.SizeLie)


def test_header_says_less_than_the_manifest(refused):
    pairs = entries()
    refused(archive_of({**pairs, WEIGHTS: pairs[WEIGHTS][:-1]}), errors.SizeLie)


def test_manifest_and_config_differ_in_a_size(refused):
    refused(rebuilt(change_config=lambda config: config["files"][0].update(size=10)), errors.SizeLie)


def test_manifest_and_config_agree_on_a_wrong_size(refused):
    refused(rebuilt(*both(size=10)), errors.SizeLie)


def test_size_in_a_form_only_some_readers_understand(refused):
    refused(patched(124, b"\x80" + bytes(10) + b"\x01"), errors.ArchiveBomb)


def test_size_that_is_negative(refused):
    refused(patched(124, b"\xff" * 12), errors.ArchiveBomb)


@pytest.mark.parametrize("field", [b"99999999999\0", b"-0000000001\0", b"\0" * 12, b"0x000000001\0", b"          \0\0"])
def test_size_that_is_not_a_number(refused, field):
    refused(patched(124, field), errors.ArchiveRefused, match="size is not a number")


# --- bombs ---------------------------------------------------------------------------------------------------------------


def test_more_bytes_in_all_than_allowed(refused):
    refused(bundles.archive(), errors.ArchiveBomb, limits=Limits(total=4000))


def test_more_bytes_in_one_entry_than_allowed(refused):
    refused(bundles.archive(), errors.ArchiveBomb, limits=Limits(entry=1299))


def test_more_entries_than_allowed(refused):
    refused(bundles.archive(), errors.ArchiveBomb, limits=Limits(entries=5))


def test_larger_document_than_allowed(refused):
    refused(bundles.archive(), errors.ArchiveBomb, limits=Limits(document=500))


def test_manifest_that_declares_more_than_fits(refused):
    refused(rebuilt(*both(size=2**50)), errors.ArchiveBomb)


def test_index_as_large_as_memory(refused):
    header = ustar.header("index.json", ustar.MAX_SIZE)
    refused(entry("oci-layout", entries()["oci-layout"]) + header + b"{}", errors.ArchiveBomb)


def test_manifest_with_a_million_layers(refused):
    refused(
        rebuilt(change_image=lambda image: image["layers"].extend([image["layers"][1]] * 5000)), errors.ManifestError
    )


def test_json_as_deep_as_the_stack(refused):
    refused(archive_of({**entries(), "index.json": b"[" * 100_000}), errors.ManifestError)


def test_compressed_archive(refused):
    import gzip

    refused(gzip.compress(bundles.archive()), errors.ArchiveRefused, match="no .skb archive")


def test_another_file_given_by_mistake(refused):
    """Nothing of its content is shown: a model's first bytes say nothing to anybody."""
    refused(
        b"\x08\x03pytorch" * 1000, errors.ArchiveRefused, match="^archive refused: the file: it is no .skb archive$"
    )


# --- tricks of the format ------------------------------------------------------------------------------------------------


def test_pax_header_that_renames_the_next_entry(refused):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("oci-layout")
        info.pax_headers = {"path": "../../evil"}
        archive.addfile(info)
    refused(buffer.getvalue(), errors.ArchiveRefused, match="pax header")


def test_global_pax_header(refused):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as archive:
        archive.addfile(tarfile.TarInfo("oci-layout"))
    refused(buffer.getvalue(), errors.ArchiveRefused, match="global pax header")


def test_gnu_long_name(refused):
    info = tarfile.TarInfo("a" * 200)
    refused(info.tobuf(tarfile.GNU_FORMAT), errors.ArchiveRefused, match="GNU long name")


@pytest.mark.parametrize(
    ("kind", "word"),
    [(b"S", "sparse"), (b"M", "continued"), (b"V", "volume"), (b"\0", "old tar"), (b"Z", "entry type")],
)
def test_entry_type_with_a_meaning_of_its_own(refused, kind, word):
    refused(patched(156, kind), errors.ArchiveRefused, match=word)


@pytest.mark.parametrize("mode", [stat.S_ISUID | 0o755, stat.S_ISGID | 0o755, 0o777, 0o755, 0o600])
def test_mode_other_than_plain(refused, mode):
    refused(patched(100, b"%07o\0" % mode), errors.ArchiveRefused, match="mode")


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (108, b"0001750\0"),
        (136, b"14500000000\0"),
        (157, b"/etc/passwd"),
        (265, b"root"),
        (329, b"0000001\0"),
        (500, b"x"),
    ],
    ids=["uid", "mtime", "linkname", "uname", "devmajor", "tail"],
)
def test_header_field_that_should_be_empty(refused, offset, value):
    refused(patched(offset, value), errors.ArchiveRefused, match="never writes")


def test_bytes_hidden_in_the_padding(refused):
    whole = bytearray(bundles.archive())
    whole[512 + len(entries()["oci-layout"])] = 1
    refused(bytes(whole), errors.ArchiveRefused, match="hidden")


@pytest.mark.parametrize("tail", [b"x", bytes(1), bytes(512), b"evil" * 1000, bundles.archive()])
def test_something_behind_the_end(refused, tail):
    refused(bundles.archive() + tail, errors.ArchiveRefused, match="follows")


def test_second_archive_behind_a_single_end_block(refused):
    refused(archive_of(entries(), end=bytes(512)) + bundles.archive(), errors.ArchiveRefused, match="follows")


@pytest.mark.parametrize("where", [0.0, 0.1, 0.35, 0.5, 0.75, 0.99])
def test_cut_short(refused, where):
    whole = bundles.archive()
    refused(whole[: int(len(whole) * where)], errors.TruncatedArchive)


def test_without_its_end_mark(refused):
    refused(archive_of(entries(), end=b""), errors.TruncatedArchive)
    refused(archive_of(entries(), end=bytes(512)), errors.TruncatedArchive)


# --- content -------------------------------------------------------------------------------------------------------------


def test_blob_swapped_for_another_of_the_same_size(refused):
    pairs = entries()
    refused(archive_of({**pairs, WEIGHTS: pairs[WEIGHTS][::-1]}), errors.DigestMismatch)


@pytest.mark.parametrize("name", NAMES[2:5])
def test_document_swapped_for_another_of_the_same_size(refused, name):
    pairs = entries()
    refused(archive_of({**pairs, name: pairs[name][:-1] + b" "}), errors.DigestMismatch)


def test_index_that_names_another_bundle(refused):
    pairs = entries()
    renamed = pairs["index.json"].replace(b"digits:1.0.0", b"digits:9.9.9")
    refused(archive_of({**pairs, "index.json": renamed}), errors.ManifestError)


def test_index_with_two_manifests(refused):
    pairs = entries()
    index = json.loads(pairs["index.json"])
    index["manifests"] *= 2
    refused(archive_of({**pairs, "index.json": canonical.encode(index)}), errors.ManifestError)


def test_layout_of_another_version(refused):
    refused(archive_of({**entries(), "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}), errors.ManifestError)


def forge_content(data: bytes) -> bytes:
    """The readme's content becomes `data`, with size and digest right everywhere."""
    in_config, in_image = both(digest=digest_of(data), size=len(data))
    return rebuilt(in_config, in_image, extra=[data])


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_called_something_else(refused, capsys, protocol):
    refused(forge_content(pickle.dumps(Payload(), protocol=protocol)), errors.ExecutableFormat, match="pickle")
    assert "code ran" not in capsys.readouterr().out


def test_torch_archive_called_something_else(refused):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
    refused(forge_content(buffer.getvalue()), errors.ExecutableFormat)


@pytest.mark.parametrize(
    "data", [b"\x7fELF\x02\x01\x01\x00", b"\x89HDF\r\n\x1a\n", b"#!/bin/sh\nreboot\n"], ids=["elf", "hdf5", "script"]
)
def test_code_called_something_else(refused, data):
    refused(forge_content(data), errors.ExecutableFormat)


@pytest.mark.parametrize(
    "path", ["model.pkl", "model.pt", "model.joblib", "model.keras", "model.h5", "op.so", "run.py"]
)
def test_file_named_as_code(refused, path):
    refused(rebuilt(*both(path=path)), errors.ExecutableFormat)


def test_objects_inside_the_samples(refused):
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, **{"in.x": np.array([Payload()], dtype=object)})  # type: ignore[arg-type]  # the stub sees allow_pickle
    files = {**bundles.files(), bundles.SAMPLES: MemoryBlob(buffer.getvalue())}
    with pytest.raises(errors.ExecutableFormat):
        oci.build(bundles.config(), files)
    index = [layer["annotations"][oci.FILEPATH] for layer in json.loads(GOOD.manifest.data)["layers"]].index(
        bundles.SAMPLES
    )
    data = buffer.getvalue()

    def in_config(config):
        config["files"][index - 1].update(digest=digest_of(data), size=len(data))

    def in_image(image):
        image["layers"][index].update(digest=digest_of(data), size=len(data))

    refused(rebuilt(in_config, in_image, extra=[data]), errors.ExecutableFormat, match="numpy objects")


# --- the archive changes under us ----------------------------------------------------------------------------------------


def test_archive_changed_between_check_and_use(tmp_path):
    archive = tmp_path / "a.skb"
    archive.write_bytes(bundles.archive())
    bundle = open_archive(archive)
    weights = content(bundle.file(bundles.FP32))
    archive.write_bytes(bundles.archive().replace(weights, weights[::-1]))
    with pytest.raises(errors.DigestMismatch):
        unpack(bundle, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [archive]


def test_archive_cut_between_check_and_use(tmp_path):
    archive = tmp_path / "a.skb"
    archive.write_bytes(bundles.archive())
    bundle = open_archive(archive)
    archive.write_bytes(bundles.archive()[:5000])
    with pytest.raises(errors.SizeLie):
        unpack(bundle, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [archive]


def test_link_planted_where_the_bundle_will_be_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".bundle.partial").symlink_to(tmp_path / "elsewhere")
    unpack(GOOD, tmp_path / "bundle")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (tmp_path / "bundle").is_symlink()
