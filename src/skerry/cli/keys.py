# SPDX-License-Identifier: Apache-2.0
"""`skerry keys`: the catalogue's keys. Everything here is local; no key and no passphrase ever leaves this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from skerry.cli import params
from skerry.cli.hub_client import HubClient
from skerry.cli.keys_root import root_group
from skerry.cli.passphrase import VARIABLE, unlock
from skerry.cli.release import sign_renewal
from skerry.cli.render import Output, clean, dump, pairs
from skerry.cli.times import iso
from skerry.cli.world import World, pass_world
from skerry.errors import KeyFileError
from skerry.trust import ceremony, dsse, folder, keyfile, metadata, online
from skerry.trust.publish import line_role

ONLINE_VARIABLE = "SKERRY_ONLINE_KEY_PASSPHRASE"

DEMO_WARNING = """\
*** DEMO TRUST ***  One root key, not encrypted. Whoever reads this folder can install anything on
every device that trusts it. Fine for trying Skerry on this machine; never enrol a real device with it."""

_PATH = click.Path(path_type=Path)

_EPILOG = """\b
  skerry keys init --dir keys --line vision            2-of-3 root, asks for a passphrase
  skerry keys init --dir keys --line vision --demo     to try things out
\b
  three people, three machines (docs/how-to/keys.md):
  skerry keys new alice                                each holder, at home
  skerry keys init --dir keys --line vision --root-key alice.pub --root-key bob.pub --root-key carol.pub
  skerry keys root sign keys/online/metadata/1.root.json --key alice.pem       two of the three
"""


@click.group(cls=params.Group, epilog=_EPILOG)
def command() -> None:
    """Make and look after the catalogue's keys."""


command.add_command(root_group)


@command.command("init")
@click.option("--dir", "where", required=True, type=_PATH, help="Folder to make.")
@click.option("--line", "lines", multiple=True, required=True, metavar="NAME", help="Product line; may be repeated.")
@click.option("--demo", is_flag=True, help="One unencrypted root key. For trying out only.")
@click.option(
    "--root-key",
    "root_keys",
    multiple=True,
    metavar="PUB",
    type=_PATH,
    help="Public key of a root holder; without any, three root keys are made here.",
)
@click.option("--threshold", type=int, default=2, show_default=True, help="Root signatures needed.")
@params.dry_run_option
@pass_world
def init(
    world: World,
    *,
    where: Path,
    lines: tuple[str, ...],
    demo: bool,
    root_keys: tuple[Path, ...],
    threshold: int,
    dry_run: bool,
) -> None:
    """Make a trust folder: root, release keys, and the part a hub gets."""
    if demo and root_keys:
        raise click.UsageError("--demo makes its own root key; leave out --root-key")
    holders = tuple(keyfile.read_public(path) for path in root_keys)
    plan = folder.FolderPlan(lines=lines, root_keys=holders, root_threshold=threshold)
    plan = folder.demo_plan(lines) if demo else plan
    if dry_run:
        for path in folder.files_of(where, plan):
            click.echo(f"would write {path}")
        return
    secrets = folder.Passphrases(offline=None, online=None) if demo else _passphrases(world.environ)
    status = folder.make(where, plan, passphrases=secrets, files=world.files, now=world.clock.now())
    _say_made(where, plan, status)


@command.command("new")
@click.argument("name", type=_PATH)
@click.option("--plain", is_flag=True, help="Do not encrypt the private key.")
@params.dry_run_option
@pass_world
def new(world: World, *, name: Path, plain: bool, dry_run: bool) -> None:
    """Make one key pair: NAME.pem to keep, NAME.pub to give away."""
    path = name if name.suffix == ".pem" else name.with_name(f"{name.name}.pem")
    if dry_run:
        click.echo(f"would write {path} and {path.with_suffix('.pub')}")
        return
    secret = None if plain else _new_passphrase(world.environ, what=path.name)
    public = keyfile.write_pair(world.files, path, passphrase=secret)
    click.echo(f"made {path} and {path.with_suffix('.pub')}")
    click.echo(f"key id {dsse.key_id(public)}")


@command.command("show")
@click.argument("path", type=_PATH)
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@pass_world
def show(world: World, *, path: Path, output: Output) -> None:
    """Show a public key, a root, or a whole trust folder. Needs no passphrase."""
    facts = _facts(world, path)
    if output is Output.TABLE:
        click.echo("\n".join(pairs(dict(_rows(facts)))))
    else:
        dump(facts, output)


@command.command("add-line")
@click.argument("line")
@click.option("--dir", "where", required=True, type=_PATH, help="Trust folder made by `skerry keys init`.")
@params.dry_run_option
@pass_world
def add_line(world: World, *, line: str, where: Path, dry_run: bool) -> None:
    """Add a product line with a release key of its own."""
    if dry_run:
        facts = online.read_facts(world.files, where / folder.ONLINE)
        click.echo(f"would add line {clean(line)} to {', '.join(facts.lines)} as targets {facts.targets_version + 1}")
        return
    secret = _passphrase_of(where / "targets.pem", world.environ)
    key = folder.add_line(where, line, passphrase=secret, files=world.files, now=world.clock.now())
    click.echo(f"line {line} added; its release key is {key}")
    click.echo(f"next: give {where / folder.ONLINE} to the hub again and restart it", err=True)


@command.command("renew")
@click.option("--dir", "where", required=True, type=_PATH, help="Trust folder made by `skerry keys init`.")
@params.dry_run_option
@pass_world
def renew(world: World, *, where: Path, dry_run: bool) -> None:
    """Give the top-level targets another year. Due once a year; a root has `keys root rotate`, a line `keys renew-line`."""
    hub = where / folder.ONLINE
    if dry_run:
        click.echo(f"would sign targets {online.read_facts(world.files, hub).targets_version + 1}")
        return
    secret = _passphrase_of(where / "targets.pem", world.environ)
    version = folder.renew_targets(where, passphrase=secret, files=world.files, now=world.clock.now())
    click.echo(f"targets {version} signed")
    click.echo(f"next: give {hub} to the hub again and restart it", err=True)


@command.command("replace-assignment-key")
@click.option("--dir", "where", required=True, type=_PATH, help="Trust folder made by `skerry keys init`.")
@params.dry_run_option
@pass_world
def replace_assignment_key(world: World, *, where: Path, dry_run: bool) -> None:
    """Give the hub a new key to sign assignments with, and disown the old one. For when a hub was broken into."""
    hub = where / folder.ONLINE
    if dry_run:
        click.echo(f"would replace {hub / 'assignment.pem'} and sign new targets")
        return
    offline = _passphrase_of(where / "targets.pem", world.environ)
    secrets = folder.Passphrases(offline=offline, online=world.environ.get(ONLINE_VARIABLE) or offline)
    name = folder.replace_assignment_key(where, passphrases=secrets, files=world.files, now=world.clock.now())
    click.echo(f"the hub signs assignments with {name} from now on")
    click.echo(f"next: give {hub} to the hub again and restart it", err=True)


@command.command("renew-line")
@click.argument("line")
@click.option("--key", "keys", multiple=True, required=True, metavar="PEM", type=_PATH, help="Release key of the line.")
@params.dry_run_option
@params.with_hub
def renew_line(world: World, hub: HubClient, *, line: str, keys: tuple[Path, ...], dry_run: bool) -> None:
    """Give a product line another year without a new release. Every `skerry push` does this as well."""
    opened = [unlock(path, world.environ) for path in keys]
    current, targets = hub.role_metadata(line_role(line)), hub.role_metadata("targets")
    signed = sign_renewal(line, current=current, targets=targets, keys=opened, now=world.clock.now())
    if not dry_run:
        hub.publish_role(signed.role, signed.metadata)
    verb = "would renew" if dry_run else "renewed"
    click.echo(f"{verb} line {clean(line)} until {iso(metadata.expires_of(signed.metadata))}")


def _new_passphrase(environ: Mapping[str, str], *, what: str) -> str:
    """From the environment, or typed twice. Without either there is no key: an unprotected one is never made by accident."""
    given = environ.get(VARIABLE)
    if given:
        return given
    if not sys.stdin.isatty():
        raise KeyFileError(path=what, problem=f"no passphrase: set {VARIABLE}")
    typed: str = click.prompt(f"New passphrase for {what}", hide_input=True, confirmation_prompt=True, err=True)
    return typed


def _passphrase_of(path: Path, environ: Mapping[str, str]) -> str | None:
    given = environ.get(VARIABLE)
    if given or not keyfile.needs_passphrase(path):
        return given
    if not sys.stdin.isatty():
        raise KeyFileError(path=str(path), problem=f"it is encrypted and there is no passphrase: set {VARIABLE}")
    typed: str = click.prompt(f"Passphrase of {path.name}", hide_input=True, err=True)
    return typed


def _passphrases(environ: Mapping[str, str]) -> folder.Passphrases:
    offline = _new_passphrase(environ, what="the offline keys")
    return folder.Passphrases(offline=offline, online=environ.get(ONLINE_VARIABLE) or offline)


def _say_made(where: Path, plan: folder.FolderPlan, status: ceremony.RootStatus) -> None:
    hub = where / folder.ONLINE
    click.echo(f"made {where}: root {plan.root_threshold} of {len(status.signed) + len(status.unsigned)}")
    for line in plan.lines:
        click.echo(f"  line {line}: release key {where / f'line-{line}.pem'}")
    click.echo(f"  for the hub, and nothing else: {hub}")
    if plan.demo:
        click.echo(DEMO_WARNING, err=True)
    elif not status.complete:
        root = online.metadata_path(hub, "root", 1)
        click.echo(f"next: {status.missing} holder(s) run `skerry keys root sign {root} --key THEIRS.pem`", err=True)
    else:
        click.echo(
            "next: move each root-N.pem to another place, and targets.pem and line-*.pem off this machine", err=True
        )
        click.echo(f"      the hub reads its passphrase from {VARIABLE}: skerry up --trust {hub}", err=True)


def _facts(world: World, path: Path) -> dict[str, object]:
    if path.is_dir():
        return _folder_facts(world, path)
    if path.suffix == ".pub":
        public = keyfile.read_public(path)
        return {"key_id": dsse.key_id(public), "tuf_key_id": metadata.tuf_key(public).keyid, "kind": "Ed25519"}
    if path.suffix == ".pem":
        state = "encrypted" if keyfile.needs_passphrase(path) else "NOT encrypted"
        return {"private_key": state, "public_half": str(path.with_suffix(".pub"))}
    data = world.files.read(path)
    if data is None:
        raise KeyFileError(path=str(path), problem="no such file")
    return _root_facts(data)


def _rows(facts: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """A list has a row for each of its members."""
    for name, value in facts.items():
        words = name.replace("_", " ")
        if isinstance(value, list):
            yield from ((f"{words} {number}", str(each)) for number, each in enumerate(value, start=1))
        else:
            yield words, str(value)


def _root_facts(data: bytes) -> dict[str, object]:
    """All that a holder signs: which key may do what, by the names `keys new` and `keys show NAME.pub` give them."""
    status, plan = ceremony.root_status(data), ceremony.plan_of(data)
    total = len(status.signed) + len(status.unsigned)
    return {
        "root_version": status.version,
        "expires": iso(status.expires),
        "threshold": f"{status.threshold} of {total}",
        "root_keys": [dsse.key_id(key) for key in plan.root_keys],
        "targets_threshold": f"{plan.targets_threshold} of {len(plan.targets_keys)}",
        "targets_keys": [dsse.key_id(key) for key in plan.targets_keys],
        "snapshot_key": dsse.key_id(plan.snapshot_key),
        "timestamp_key": dsse.key_id(plan.timestamp_key),
        "signatures": f"{len(status.signed)}, {status.missing} missing" if status.missing else str(len(status.signed)),
        "signed_by": [dsse.key_id(key) for key in plan.root_keys if metadata.tuf_key(key).keyid in status.signed],
    }


def _folder_facts(world: World, path: Path) -> dict[str, object]:
    hub = path / folder.ONLINE if (path / folder.ONLINE).is_dir() else path
    facts = online.read_facts(world.files, hub)
    root = world.files.read(online.metadata_path(hub, "root", facts.root_version))
    shown: dict[str, object] = {"trust": "DEMO" if facts.demo else "real", "lines": ", ".join(facts.lines)}
    return {**shown, **(_root_facts(root) if root is not None else {"root": "missing"})}
