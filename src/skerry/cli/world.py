# SPDX-License-Identifier: Apache-2.0
"""What a verb touches outside itself, in one object that tests replace."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import click

from skerry.cli.hub_client import HubClient
from skerry.cli.settings import Settings, choose_target, load_settings, save_settings, settings_path
from skerry.effects import Clock, Files, Http
from skerry.effects.disk import DiskFiles
from skerry.effects.system import SystemClock


def _open_http(ca: str) -> Http:
    from skerry.effects.http import UrllibHttp

    return UrllibHttp(ca_file=ca or None, user_agent="skerry-cli")


@dataclass(frozen=True, kw_only=True)
class World:
    open_http: Callable[[str], Http] = _open_http  # takes the path of a private authority, or ""
    clock: Clock = field(default_factory=SystemClock)
    files: Files = field(default_factory=DiskFiles)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    wait: Callable[[float], None] = time.sleep

    def settings(self) -> Settings:
        return load_settings(self.files, settings_path(self.environ))

    def remember(self, settings: Settings) -> None:
        save_settings(self.files, settings_path(self.environ), settings)

    def hub(self, *, hub: str | None = None, token: str | None = None, ca: str | None = None) -> HubClient:
        """Raises HubNotChosen; opens no connection yet."""
        target = choose_target(self.environ, self.settings(), hub=hub, token=token, ca=ca)
        return HubClient(self.open_http(target.ca), target.hub, target.token)


pass_world = click.make_pass_decorator(World, ensure=True)
