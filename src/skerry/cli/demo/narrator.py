# SPDX-License-Identifier: Apache-2.0
"""How the demo talks: numbered acts, the commands it runs, and facts. Plain text when piped."""

from __future__ import annotations

import time

import click


class Narrator:
    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._act = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def act(self, title: str) -> None:
        self._act += 1
        click.echo()
        click.secho(f"{self._act:>2}. {title}", bold=True, nl=False)
        click.secho(f"   [{self.seconds:.0f} s]", dim=True)

    def command(self, *words: str) -> None:
        click.secho("    $ " + " ".join(words), fg="cyan")

    def say(self, text: str) -> None:
        for line in text.splitlines():
            click.echo("    " + line)

    def good(self, text: str) -> None:
        click.secho("    ok  ", fg="green", nl=False)
        click.echo(text)

    def bad(self, text: str) -> None:
        click.secho("    NOT ", fg="red", nl=False)
        click.echo(text)
