# SPDX-License-Identifier: Apache-2.0
"""`skerry push`: blobs first, then the signed entry that makes them a release. Keys stay here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.bundle.archive import open_archive
from skerry.bundle.blob import Blob, MemoryBlob
from skerry.bundle.oci import Bundle
from skerry.cli import params
from skerry.cli.hub_client import HubClient
from skerry.cli.passphrase import unlock
from skerry.cli.progress import Advance, size_text, transfer
from skerry.cli.release import AlreadyPublished, SignedRole, entry_of, sign_release
from skerry.cli.render import Output, dump
from skerry.cli.world import World
from skerry.errors import CatalogueRefused, DownloadBroken, NotFound
from skerry.trust.metadata import CatalogueRefusal
from skerry.trust.publish import line_role
from skerry.wire.v1.device import BundleRef

_EPILOG = """\b
  skerry push weld-defect-1.5.1.skb --key keys/line-body-shop.pem
\b
The passphrase of the key is asked for, or taken from SKERRY_KEY_PASSPHRASE. A line that
needs several signatures takes --key several times.
"""

_TRIES = 10


@click.command(epilog=_EPILOG)
@click.argument("file", metavar="FILE.skb", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    metavar="PEM",
    type=click.Path(path_type=Path),
    help="Release key of the bundle's product line; it is used here and sent nowhere.",
)
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@params.dry_run_option
@params.with_hub
def command(world: World, hub: HubClient, *, file: Path, keys: tuple[Path, ...], output: Output, dry_run: bool) -> None:
    """Sign a bundle and put it into a hub's catalogue.

    Checks the whole bundle, uploads the blobs the hub does not have, and adds the release to the line's role.
    Pushing the same bundle twice is fine; another bundle under a published version is refused.
    """
    bundle = open_archive(file)
    opened = [unlock(path, world.environ) for path in keys]
    release = _sign(world, hub, bundle, opened)
    missing = [(digest, blob) for digest, blob in blobs_of(bundle) if not hub.has_blob(digest)]
    size = sum(blob.size for _, blob in missing)
    if dry_run:
        _rehearse(bundle, release, len(missing), size)
        return
    if missing:
        with transfer(f"uploading {bundle.config.name}:{bundle.config.version}", size) as advance:
            for digest, blob in missing:
                hub.put_blob(digest, counted(digest, blob, advance), size=blob.size)
    _say(bundle, _publish(world, hub, bundle, opened, release), output)


def blobs_of(bundle: Bundle) -> Iterator[tuple[str, Blob]]:
    """Everything the hub must hold, the manifest last."""
    for descriptor in bundle.manifest.blobs:
        yield descriptor.digest, bundle.blobs[descriptor.digest]
    yield bundle.digest, MemoryBlob(bundle.manifest.data)


def counted(digest: str, blob: Blob, advance: Advance) -> Iterator[bytes]:
    """The blob's chunks; raises DownloadBroken when the file was cut since it was checked."""
    sent = 0
    for chunk in blob.chunks():
        yield chunk
        sent += len(chunk)
        advance(len(chunk))
    if sent != blob.size:
        raise DownloadBroken(name=digest, received=sent, expected=blob.size)


def _publish(
    world: World,
    hub: HubClient,
    bundle: Bundle,
    keys: Sequence[Ed25519PrivateKey],
    release: SignedRole | AlreadyPublished,
) -> SignedRole | AlreadyPublished:
    """Somebody else may publish to the line at the same time: then theirs is signed along, and ours offered again."""
    for tries_left in reversed(range(_TRIES)):
        if isinstance(release, AlreadyPublished):
            break
        try:
            hub.publish_role(release.role, release.metadata)
            break
        except CatalogueRefused as error:
            if error.fields["reason"] != CatalogueRefusal.ROLLBACK or not tries_left:
                raise
        release = _sign(world, hub, bundle, keys)
    return release


def _sign(
    world: World, hub: HubClient, bundle: Bundle, keys: Sequence[Ed25519PrivateKey]
) -> SignedRole | AlreadyPublished:
    entry = entry_of(bundle)
    try:
        current = hub.role_metadata(line_role(entry.line))
    except NotFound as error:
        detail = f"there is no product line {entry.line} in this catalogue"
        raise CatalogueRefused(reason=CatalogueRefusal.UNSIGNED, detail=detail) from error
    targets = hub.role_metadata("targets")
    return sign_release(entry, current=current, targets=targets, keys=keys, now=world.clock.now())


def _rehearse(bundle: Bundle, release: SignedRole | AlreadyPublished, blobs: int, size: int) -> None:
    name = f"{bundle.config.line}/{bundle.config.name}:{bundle.config.version}"
    click.echo(f"would upload {blobs} blob(s), {size_text(size)}")
    if isinstance(release, SignedRole):
        click.echo(f"would publish {name} with release {bundle.config.release_seq} in {release.role}")
    else:
        click.echo(f"{name} is already published")


def _say(bundle: Bundle, release: SignedRole | AlreadyPublished, output: Output) -> None:
    config, entry = bundle.config, entry_of(bundle)
    if output is not Output.TABLE:
        ref = BundleRef(
            line=entry.line,
            model=entry.model,
            version=entry.version,
            digest=entry.digest,
            release_seq=entry.release_seq,
            target=entry.target,
        )
        dump(ref, output)
        return
    verb = "published" if isinstance(release, SignedRole) else "already published, nothing changed:"
    click.echo(f"{verb} {config.line}/{config.name}:{config.version} {bundle.digest}")
    click.echo(
        f"next: skerry deploy {config.name}:{config.version} --workload {config.name} --fleet FLEET --canary 1 --watch",
        err=True,
    )
