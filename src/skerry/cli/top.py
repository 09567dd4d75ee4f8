# SPDX-License-Identifier: Apache-2.0
"""`skerry top`: what this machine's models are doing right now."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import msgspec

from skerry.cli import params
from skerry.cli.benching import processes
from skerry.cli.render import colourful, styled
from skerry.cli.top_figures import Row
from skerry.cli.top_screen import screen, table
from skerry.cli.top_sources import Overview, Watch, of_agent, of_urls
from skerry.cli.world import World, pass_world

_PLAIN_WIDTH: Final = 200
_PLAIN_HEIGHT: Final = 10_000

_EPILOG = """\b
  skerry top --state state                  the workloads of this device's agent
  skerry top --url http://127.0.0.1:9000    any server of the protocol, no agent needed
  skerry top --state state --once           for scripts; --json for programs
"""


@click.command(epilog=_EPILOG)
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="The device's state folder.")
@click.option(
    "--url", "urls", multiple=True, metavar="URL", help="A server: http://HOST:PORT or unix:///PATH; may be repeated."
)
@click.option("--interval", type=params.DURATION, default="1s", show_default=True, help="Time between two looks.")
@click.option("--once", is_flag=True, help="Look once, over one interval, and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a look.")
@pass_world
def command(
    world: World, *, state: Path | None, urls: tuple[str, ...], interval: float, once: bool, as_json: bool
) -> None:
    """Watch the models that run on this machine.

    Requests a second, latency, queue, batch, errors, CPU and memory of each, until q or Ctrl-C. Latencies are read off the
    servers' histograms. Without a terminal it looks once.
    """
    if bool(state) == bool(urls):
        raise click.UsageError("say where: --state DIR of this device's agent, or --url of a server")
    look = (lambda: of_agent(state)) if state else (lambda: of_urls(urls))
    loop = _Loop(world, look, max(interval, 0.1))
    if as_json:
        loop.objects(once=once)
    elif once or not colourful(sys.stdout):
        loop.once()
    else:
        loop.live()


class _Loop:
    def __init__(self, world: World, look: Callable[[], Overview], interval: float) -> None:
        self._world = world
        self._overview = look
        self._interval = interval
        self._watch = Watch(world.clock)

    def _look(self) -> tuple[Overview, list[Row]]:
        overview = self._overview()
        return overview, self._watch.look(overview.places)

    def once(self) -> None:
        self._look()
        self._world.wait(self._interval)
        overview, rows = self._look()
        if rows:
            click.echo("\n".join(table(rows, width=_PLAIN_WIDTH, height=_PLAIN_HEIGHT)))
        else:
            click.echo("no workload here", err=True)
        for text in (*overview.issues, *(f"{row.workload}: {row.problem}" for row in rows if row.problem)):
            click.echo(text, err=True)

    def objects(self, *, once: bool) -> None:
        self._look()
        while True:
            self._world.wait(self._interval)
            overview, rows = self._look()
            document = {
                "at": self._world.clock.now(),
                "title": overview.title,
                "issues": overview.issues,
                "models": rows,
            }
            click.echo(msgspec.json.encode(document))
            sys.stdout.flush()
            if once:
                return

    def live(self) -> None:
        """Redrawn in place on the terminal's other screen; the keys q and Ctrl-C end it."""
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(highlight=False)
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as display:
            while True:
                overview, rows = self._look()
                width, height = console.size
                lines = screen(_title(overview, rows), rows, width=width, height=height)
                display.update(Text.from_ansi("\n".join(_painted(lines, rows)), no_wrap=True), refresh=True)
                if pressed(self._interval) in {"q", "Q", "\x03"}:
                    return


def _title(overview: Overview, rows: Sequence[Row]) -> str:
    rate = sum(row.requests_per_second or 0.0 for row in rows)
    parts = [f"skerry top - {overview.title}", f"{rate:,.0f} requests/s"]
    pressure = processes.pressure()
    if pressure is not None:
        parts.append(f"CPU pressure {pressure:.0f} %")
    parts += overview.issues
    return "   ".join([*parts, "q quits"])


def _painted(lines: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """States in their colours, the header bold."""
    states = {row.state for row in rows}
    painted = [click.style(lines[0], bold=True), *lines[1:]]
    for number, line in enumerate(painted[1:], 1):
        for state in states:
            if f"  {state} " in line:
                painted[number] = line.replace(f"  {state} ", f"  {styled(state)} ", 1)
    return painted


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yields a function that waits for at most so many seconds and gives the key pressed meanwhile, or nothing.

    Keys are not shown and need no Enter; the terminal is as before afterwards.
    """
    if not sys.stdin.isatty():
        yield _no_key
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield lambda seconds: sys.stdin.read(1) if select.select([number], [], [], seconds)[0] else ""
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
