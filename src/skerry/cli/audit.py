# SPDX-License-Identifier: Apache-2.0
"""`skerry audit`: a device's history, verified here and not by the hub; and the hub's own log of who asked for what."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from msgspec import Struct

from skerry.bundle.digest import is_digest
from skerry.cli import listings, params
from skerry.cli.hub_client import HubClient
from skerry.cli.render import Output, clean, dump, show_list, table
from skerry.cli.times import iso
from skerry.cli.world import World, pass_world
from skerry.errors import ChainBroken, InputMissing, SchemaError, SignatureInvalid, SkerryError, StorageError
from skerry.trust.chain import Broken, Intact, verify_chain
from skerry.trust.dsse import key_id
from skerry.wire.v1.operator import History
from skerry.wire.v1.report import HistoryEntry

_HUB = "hub"
_DIGEST_SHOWN = len("sha256:") + 12
_EPILOG = """\b
  skerry audit press-1                            fetch and verify
  skerry audit press-1 --export press-1.json      keep the evidence
  skerry audit --from press-1.json --key abc...   verify it later, with no hub at all
  skerry audit hub                                who asked the hub for what
"""


@click.command(epilog=_EPILOG)
@click.argument("device", required=False)
@click.option("--from", "source", metavar="FILE", help="Verify an exported history instead of asking the hub.")
@click.option("--export", metavar="FILE", help="Write the history as it was received.")
@click.option("--head", default="", metavar="HASH", help="Hash the newest entry must have; shows a cut chain.")
@click.option("--key", "fingerprint", default="", metavar="KEYID", help="Key the device must have signed with.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Entries shown.")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@params.hub_options
@pass_world
def command(
    world: World,
    *,
    device: str | None,
    source: str | None,
    export: str | None,
    head: str,
    fingerprint: str,
    limit: int,
    output: Output,
    hub_url: str | None,
    token: str | None,
    ca: str | None,
) -> None:
    """Fetch a device's history and verify its chain.

    Every entry must be signed by the device and point to the one before. Exit 1 when the chain is broken.
    """
    if (device is None) == (source is None):
        raise click.UsageError("name a device, `hub`, or a file with --from")
    if device == _HUB:
        _show_hub_log(world, world.hub(hub=hub_url, token=token, ca=ca), limit=limit, output=output)
        return
    if source is not None:
        history = read_history(Path(source))
    else:
        history = _fetch(world.hub(hub=hub_url, token=token, ca=ca), str(device))
    if export:
        world.files.write(Path(export), msgspec.json.encode(history))
    verdict = verify(history, head=head, fingerprint=fingerprint)
    if output is Output.TABLE:
        _show(history, limit)
    else:
        dump(_report(history, verdict), output)
    if isinstance(verdict, SkerryError):
        raise verdict
    click.echo(f"chain of {history.name} intact: {verdict.count} entries, head {verdict.head or '-'}", err=True)
    click.echo(f"signed by key {key_id(history.public_key)}", err=True)


class AuditReport(Struct, frozen=True, kw_only=True):
    """What -o json says."""

    device_id: str
    name: str
    key: str  # key id of what the entries are signed with
    verified: bool
    problem: str
    head: str  # hash of the newest entry
    entries: tuple[HistoryEntry, ...]


def verify(history: History, *, head: str = "", fingerprint: str = "") -> Intact | ChainBroken | SignatureInvalid:
    """Intact, or what to raise: the last of them when the key is not the one the auditor knows."""
    if fingerprint and key_id(history.public_key) != fingerprint:
        problem = f"the hub names key {key_id(history.public_key)}, you expect {fingerprint}"
        return SignatureInvalid(document=f"the history of {history.name}", problem=problem)
    verdict = verify_chain(history.entries, device_id=history.device_id, public_key=history.public_key, head=head)
    if isinstance(verdict, Broken):
        return ChainBroken(device=history.name, entry=verdict.n, problem=verdict.problem)
    return verdict


def _report(history: History, verdict: Intact | ChainBroken | SignatureInvalid) -> AuditReport:
    return AuditReport(
        device_id=history.device_id,
        name=history.name,
        key=key_id(history.public_key),
        verified=isinstance(verdict, Intact),
        problem="" if isinstance(verdict, Intact) else str(verdict),
        head=history.entries[-1].hash if history.entries else "",
        entries=history.entries,
    )


def read_history(path: Path) -> History:
    """A file written by --export. Raises InputMissing, StorageError and SchemaError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=History)
    except FileNotFoundError as error:
        raise InputMissing(path=str(path)) from error
    except OSError as error:
        raise StorageError(path=str(path), problem=error.strerror or str(error)) from error
    except msgspec.DecodeError as error:
        raise SchemaError(document=str(path), where="history", problem=str(error)) from error


def _fetch(hub: HubClient, device: str) -> History:
    return hub.history(hub.device(device.removeprefix("device/")).id)


def _show(history: History, limit: int) -> None:
    entries = history.entries[-limit:]
    if not entries:
        click.echo(f"{history.name} has reported no history yet", err=True)
        return
    rows = [
        [str(entry.n), iso(entry.at), entry.kind, clean(" ".join(f"{k}={_short(v)}" for k, v in entry.fields.items()))]
        for entry in entries
    ]
    table(["N", "TIME", "KIND", "FACTS"], rows)


def _short(value: object) -> object:
    """A digest as far as people compare it; all of it is in -o json."""
    return value[:_DIGEST_SHOWN] if isinstance(value, str) and is_digest(value) else value


def _show_hub_log(world: World, hub: HubClient, *, limit: int, output: Output) -> None:
    show_list(hub.newest_audit(limit=limit), listings.AUDIT, output=output, now=world.clock.now())
