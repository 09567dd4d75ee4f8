# SPDX-License-Identifier: Apache-2.0
"""`skerry keys root`: the ceremony. A root file is carried from holder to holder; each adds one signature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from skerry.cli import params
from skerry.cli.passphrase import unlock
from skerry.cli.times import iso
from skerry.cli.world import World, pass_world
from skerry.errors import CeremonyError, FileExists, InputMissing
from skerry.trust import ceremony, folder, keyfile, metadata
from skerry.trust.publish import DAY, ROOT_LIFETIME

_PATH = click.Path(path_type=Path)
_previous_option = click.option(
    "--previous", metavar="FILE", type=_PATH, help="The root before this one; its holders must sign too."
)
_days_option = click.option("--days", type=int, default=int(ROOT_LIFETIME / DAY), show_default=True, help="Lifetime.")


@click.group("root", cls=params.Group)
def root_group() -> None:
    """The root ceremony: create, sign, verify, rotate, adopt."""


@root_group.command("create")
@click.argument("out", type=_PATH)
@click.option(
    "--key", "root_keys", multiple=True, required=True, metavar="PUB", type=_PATH, help="A holder's public key."
)
@click.option("--threshold", type=int, required=True, help="Signatures needed.")
@click.option("--targets-key", required=True, metavar="PUB", type=_PATH, help="Public half of targets.pem.")
@click.option("--snapshot-key", required=True, metavar="PUB", type=_PATH, help="Public half of the hub's snapshot.pem.")
@click.option(
    "--timestamp-key", required=True, metavar="PUB", type=_PATH, help="Public half of the hub's timestamp.pem."
)
@_days_option
@params.dry_run_option
@pass_world
def create(
    world: World,
    *,
    out: Path,
    root_keys: tuple[Path, ...],
    threshold: int,
    targets_key: Path,
    snapshot_key: Path,
    timestamp_key: Path,
    days: int,
    dry_run: bool,
) -> None:
    """Write an unsigned first root from public keys alone. `skerry keys init --root-key` does this and the rest."""
    plan = ceremony.RootPlan(
        root_keys=tuple(map(keyfile.read_public, root_keys)),
        root_threshold=threshold,
        targets_keys=(keyfile.read_public(targets_key),),
        snapshot_key=keyfile.read_public(snapshot_key),
        timestamp_key=keyfile.read_public(timestamp_key),
    )
    _write_new(world, out, ceremony.make_root(plan, expires=world.clock.now() + days * DAY), dry_run=dry_run)


@root_group.command("sign")
@click.argument("file", type=_PATH)
@click.option("--key", required=True, metavar="PEM", type=_PATH, help="Your root key.")
@_previous_option
@params.dry_run_option
@pass_world
def sign(world: World, *, file: Path, key: Path, previous: Path | None, dry_run: bool) -> None:
    """Add one signature to a root file. Look at it with `keys show` first: you answer for what it says."""
    data, before = _read(world, file), _read(world, previous) if previous else None
    private = unlock(key, world.environ)
    public = metadata.raw_public(private)
    if not ceremony.may_sign(data, public, before):
        raise CeremonyError(
            problem=f"{key.name} is not a root key of {file.name}" + ("" if before else " (--previous?)")
        )
    signed = metadata.add_signature(data, private)
    if not dry_run:
        world.files.write(file, signed)
    click.echo("would sign" if dry_run else "signed")
    _say(ceremony.root_status(signed, before))


@root_group.command("verify")
@click.argument("file", type=_PATH)
@_previous_option
@pass_world
def verify(world: World, *, file: Path, previous: Path | None) -> None:
    """Whether a root is complete: thresholds met, in sequence, not expired. Fails when it is not."""
    data, now = _read(world, file), world.clock.now()
    if previous is None:
        _say(ceremony.root_status(data))
        ceremony.verify_first_root(data, now=now)
    else:
        before = _read(world, previous)
        _say(ceremony.root_status(data, before))
        ceremony.verify_next_root(before, data, now=now)
    click.echo("complete")


@root_group.command("rotate")
@click.argument("current", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="File for the next root.")
@click.option("--add-key", multiple=True, metavar="PUB", type=_PATH, help="New root holder; may be repeated.")
@click.option("--remove-key", multiple=True, metavar="PUB", type=_PATH, help="Root holder to drop; may be repeated.")
@click.option("--threshold", type=int, help="New number of signatures needed.")
@click.option("--targets-key", metavar="PUB", type=_PATH, help="New targets key.")
@click.option("--snapshot-key", metavar="PUB", type=_PATH, help="New snapshot key of the hub.")
@click.option("--timestamp-key", metavar="PUB", type=_PATH, help="New timestamp key of the hub.")
@_days_option
@params.dry_run_option
@pass_world
def rotate(
    world: World,
    *,
    current: Path,
    out: Path,
    add_key: tuple[Path, ...],
    remove_key: tuple[Path, ...],
    threshold: int | None,
    targets_key: Path | None,
    snapshot_key: Path | None,
    timestamp_key: Path | None,
    days: int,
    dry_run: bool,
) -> None:
    """Write the unsigned next root: the same as CURRENT but for what is given. Also renews the expiry date."""
    data = _read(world, current)
    plan = ceremony.plan_of(data)
    changes: dict[str, object] = {"root_keys": _changed(plan.root_keys, add_key, remove_key)}
    if threshold is not None:
        changes["root_threshold"] = threshold
    if targets_key is not None:
        changes["targets_keys"] = (keyfile.read_public(targets_key),)
    if snapshot_key is not None:
        changes["snapshot_key"] = keyfile.read_public(snapshot_key)
    if timestamp_key is not None:
        changes["timestamp_key"] = keyfile.read_public(timestamp_key)
    plan = msgspec.structs.replace(plan, **changes)
    _write_new(world, out, ceremony.next_root(data, plan, expires=world.clock.now() + days * DAY), dry_run=dry_run)
    click.echo(
        f"next: holders of both roots run `skerry keys root sign {out} --previous {current} --key THEIRS.pem`", err=True
    )


@root_group.command("adopt")
@click.argument("file", type=_PATH)
@click.option("--dir", "where", required=True, type=_PATH, help="Trust folder made by `skerry keys init`.")
@params.dry_run_option
@pass_world
def adopt(world: World, *, file: Path, where: Path, dry_run: bool) -> None:
    """Put a complete next root into the trust folder, for the hub to serve from its next start."""
    data = _read(world, file)
    if dry_run:
        click.echo(f"would add root {metadata.version_of(data)} to {where / folder.ONLINE}")
        return
    version = folder.adopt_root(where, data, files=world.files, now=world.clock.now())
    click.echo(f"root {version} is in {where / folder.ONLINE}")


def _changed(keys: tuple[bytes, ...], add: Sequence[Path], remove: Sequence[Path]) -> tuple[bytes, ...]:
    dropped = {keyfile.read_public(path) for path in remove}
    if not dropped <= set(keys):
        raise CeremonyError(problem="a key to remove is not a root key now")
    return (*(key for key in keys if key not in dropped), *map(keyfile.read_public, add))


def _write_new(world: World, out: Path, data: bytes, *, dry_run: bool) -> None:
    if world.files.read(out) is not None:
        raise FileExists(path=str(out))
    status = ceremony.root_status(data)
    if not dry_run:
        world.files.write(out, data)
    click.echo(f"{'would write' if dry_run else 'wrote'} {out}: root {status.version}, nobody has signed it yet")


def _say(status: ceremony.RootStatus) -> None:
    click.echo(
        f"root {status.version}: {len(status.signed)} signature(s), {status.missing} missing, "
        f"expires {iso(status.expires)}"
    )


def _read(world: World, path: Path) -> bytes:
    data = world.files.read(path)
    if data is None:
        raise InputMissing(path=str(path))
    return data
