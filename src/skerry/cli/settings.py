# SPDX-License-Identifier: Apache-2.0
"""Which hub, as whom: flags, then environment, then `~/.config/skerry/config.json` (mode 0600)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from skerry.effects import Files
from skerry.errors import ConfigError, HubNotChosen

_VISIBLE = re.compile(r"[\x21-\x7e]+").fullmatch


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of the config file. `ca` is a file with the authority of a hub's own certificate."""

    hub: str = ""
    token: str = ""
    ca: str = ""


class Target(Struct, frozen=True, kw_only=True):
    """A hub to talk to."""

    hub: str
    token: str
    ca: str = ""


def settings_path(environ: Mapping[str, str]) -> Path:
    """SKERRY_CONFIG, else below XDG_CONFIG_HOME, else below ~/.config."""
    if chosen := environ.get("SKERRY_CONFIG"):
        return Path(chosen)
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    return Path(base) / "skerry" / "config.json"


def load_settings(files: Files, path: Path) -> Settings:
    """Raises ConfigError when the file is not what `save_settings` writes."""
    raw = files.read(path)
    if raw is None:
        return Settings()
    try:
        return msgspec.json.decode(raw, type=Settings)
    except msgspec.DecodeError as error:
        raise ConfigError(where=str(path), problem=str(error)) from error


def save_settings(files: Files, path: Path, settings: Settings) -> None:
    files.write(path, msgspec.json.format(msgspec.json.encode(settings)) + b"\n", mode=0o600)


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and _VISIBLE(text) is not None
        )
    except ValueError:  # brackets that do not close, a port that is none
        return False


def choose_target(
    environ: Mapping[str, str], settings: Settings, *, hub: str | None, token: str | None, ca: str | None
) -> Target:
    """Raises HubNotChosen, ConfigError. A remembered token goes only to the hub it was remembered for, never to another address."""
    address = (hub or environ.get("SKERRY_HUB") or settings.hub).rstrip("/")
    if not address:
        raise HubNotChosen
    if not _is_address(address):
        raise ConfigError(where="hub", problem=f"{address!r} is no address; write https://HOST:PORT")
    same = address == settings.hub.rstrip("/")
    return Target(
        hub=address,
        token=token or environ.get("SKERRY_TOKEN") or (settings.token if same else ""),
        ca=ca or environ.get("SKERRY_CA") or (settings.ca if same else ""),
    )
