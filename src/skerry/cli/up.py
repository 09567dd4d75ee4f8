# SPDX-License-Identifier: Apache-2.0
"""`skerry up`: a hub in this process."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from skerry.cli import params
from skerry.cli.keys import ONLINE_VARIABLE
from skerry.cli.passphrase import VARIABLE
from skerry.cli.render import Output
from skerry.cli.settings import Settings, settings_path
from skerry.cli.world import World, pass_world
from skerry.errors import ConfigError, SkerryError
from skerry.trust import folder as trust_folder
from skerry.trust import keyfile, online
from skerry.wire.v1.operator import UserToken

_EPILOG = """\b
  skerry up --demo-trust                              try it: throw-away keys, this machine only
  skerry keys init --dir keys --line body-shop        real keys, kept offline ...
  skerry up --trust keys/online --data /srv/skerry \\
      --host 0.0.0.0 --tls-cert hub.pem --tls-key hub.key
\b
Settings may come from the environment: SKERRY_DATABASE, and the passphrase of the online
keys from SKERRY_ONLINE_KEY_PASSPHRASE, or SKERRY_KEY_PASSPHRASE when they have no own one.
"""
_DEMO_KEYS = "demo-keys"
_BANNER = """\
  ############################################################################
  #  DEMO TRUST: the keys in {folder}
  #  are unencrypted and all in one place. Whoever reads that folder can sign
  #  for every device of this hub. Never enrol a device you care about.
  ############################################################################"""


@click.command(epilog=_EPILOG)
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Database and blobs [default: XDG data].")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8443, show_default=True, help="0 picks a free one.")
@click.option("--database", envvar="SKERRY_DATABASE", default="", metavar="URL", help="PostgreSQL instead of SQLite.")
@click.option("--trust", type=click.Path(path_type=Path), metavar="DIR", help="Online part of `skerry keys init`.")
@click.option("--demo-trust", is_flag=True, help="Make throw-away keys below --data.")
@click.option(
    "--demo-line", "lines", multiple=True, metavar="NAME", help="Product line of the demo keys; without it `default`."
)
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="PEM", help="Certificate chain of the hub.")
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="PEM", help="Its key.")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front of this process does TLS.")
@click.option("--poll", type=params.DURATION, default="30s", show_default=True, help="How often devices ask.")
@click.option("--new-admin-token", is_flag=True, help="Give `admin` a new token: the way back in.")
@click.option("--no-remember", is_flag=True, help="Do not write the admin token to the config file.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@params.output_option(Output.TABLE, Output.JSON)
@params.dry_run_option
@pass_world
def command(
    world: World,
    *,
    data: Path | None,
    host: str,
    port: int,
    database: str,
    trust: Path | None,
    demo_trust: bool,
    lines: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    poll: float,
    new_admin_token: bool,
    no_remember: bool,
    verbose: bool,
    output: Output,
    dry_run: bool,
) -> None:
    """Run a hub on this machine.

    The first start makes the administrator and shows the token once. Stop it with Ctrl-C; it loses nothing.
    """
    home = data or default_data(world)
    keys = home / _DEMO_KEYS if demo_trust else None
    online_part = keys / trust_folder.ONLINE if keys else find_trust(trust)
    from skerry.hub.app import HubConfig, serve

    config = HubConfig(
        data=home,
        trust=online_part,
        database=database,
        host=host,
        port=port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        passphrase=None if keys else online_passphrase(world, online_part),
        poll_seconds=poll,
        new_admin_token=new_admin_token,
        behind_proxy=behind_proxy,
    )
    config.check()
    if dry_run:
        click.echo(f"would run a hub at {config.scheme}://{host}:{port} on {home} with the keys in {config.trust}")
        return
    configure_logging(verbose=verbose)
    if keys:
        make_demo_trust(world, keys, lines or ("default",))
        click.echo(_BANNER.format(folder=keys), err=True)
    greeting = Greeting(
        world=world, ca=str(tls_cert.resolve()) if tls_cert else "", keys=keys, remember=not no_remember
    )
    serve(config, on_admin=greeting.admin, on_ready=greeting.as_json if output is Output.JSON else greeting.as_text)


def configure_logging(*, verbose: bool) -> None:
    """Our own lines on stderr; the libraries below speak up only when something is wrong."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if not verbose:
        for chatty in ("alembic", "uvicorn", "aiosqlite", "tuf"):
            logging.getLogger(chatty).setLevel(logging.WARNING)


def default_data(world: World) -> Path:
    base = world.environ.get("XDG_DATA_HOME") or str(Path(world.environ.get("HOME", ".")) / ".local" / "share")
    return Path(base) / "skerry" / "hub"


def find_trust(given: Path | None) -> Path:
    """The folder with trust.json: the one given, or its `online`. Raises ConfigError."""
    if given is None:
        problem = (
            "no keys; make some with `skerry keys init --dir DIR --line NAME`, or try things out with --demo-trust"
        )
        raise ConfigError(where="--trust", problem=problem)
    for folder in (given, given / trust_folder.ONLINE):
        if (folder / "trust.json").exists():
            return folder
    raise ConfigError(
        where="--trust", problem=f"there is no trust.json in {given}; is it the folder of `skerry keys init`?"
    )


def online_passphrase(world: World, online_part: Path) -> str | None:
    """Of the online keys: where `keys init` took it from, or asked for on a terminal. A service needs the former."""
    given = world.environ.get(ONLINE_VARIABLE) or world.environ.get(VARIABLE)
    if given or not sys.stdin.isatty() or not keyfile.needs_passphrase(online_part / "timestamp.pem"):
        return given or None
    return str(click.prompt("Passphrase of the hub's online keys", hide_input=True, err=True))


def make_demo_trust(world: World, folder: Path, lines: tuple[str, ...]) -> None:
    """Keys for these product lines; what is there already stays."""
    files, now = world.files, world.clock.now()
    if not (folder / trust_folder.ONLINE / "trust.json").exists():
        nothing = trust_folder.Passphrases(offline=None, online=None)
        trust_folder.make(folder, trust_folder.demo_plan(lines), passphrases=nothing, files=files, now=now)
        return
    known = online.read_facts(files, folder / trust_folder.ONLINE).lines
    for line in lines:
        if line not in known:
            trust_folder.add_line(folder, line, passphrase=None, files=files, now=now)


@dataclass(kw_only=True)
class Greeting:
    """What is said once the hub answers. The token exists only in the process that made it, and only now."""

    world: World
    ca: str
    keys: Path | None
    remember: bool
    token: str = ""

    def admin(self, user: UserToken) -> None:
        self.token = user.token

    def as_json(self, url: str) -> None:
        remembered = self._remembered(url)
        facts = {"url": url, "admin_token": self.token or None, "remembered": remembered}
        click.echo(json.dumps({**facts, "demo_keys": str(self.keys) if self.keys else None}))
        sys.stdout.flush()

    def as_text(self, url: str) -> None:
        click.echo(f"hub ready at {url} (Ctrl-C stops it)")
        if self.token:
            click.echo(f"admin token, shown only now: {self.token}")
            if self._remembered(url):
                click.echo(
                    f"remembered in {settings_path(self.world.environ)}; in another terminal: skerry get devices"
                )
            else:
                click.echo(f"next: skerry login {url} --token TOKEN")
        sys.stdout.flush()

    def _remembered(self, url: str) -> bool:
        """A login to another hub is never overwritten. A home that cannot be written keeps no hub from running."""
        if not (self.remember and self.token):
            return False
        try:
            if self.world.settings().hub not in {"", url}:
                return False
            self.world.remember(Settings(hub=url, token=self.token, ca=self.ca))
        except SkerryError as error:
            click.echo(f"not remembered: {error}", err=True)
            return False
        return True
