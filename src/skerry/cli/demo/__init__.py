# SPDX-License-Identifier: Apache-2.0
"""`skerry demo`: the main job on real input, with real processes on loopback."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click

from skerry.errors import MissingExtra


@click.command("demo", short_help="Run the whole loop on this machine with real data")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures as JSON.")
@click.option(
    "--keep", is_flag=True, help="Keep the demo's folder (keys, bundles, logs, databases) and say where it is."
)
def command(report: Path | None, keep: bool) -> None:
    """Train a model, pack and sign it, roll it out to five devices, break things, and get back out of trouble.

    Everything is real: training data, processes, sockets, signatures. Only loopback is used. Exit code 0 means every step held.
    """
    import msgspec

    from skerry.cli.demo.narrator import Narrator
    from skerry.cli.demo.report import broken_promises

    try:
        from skerry.cli.demo.story import Story
    except ModuleNotFoundError as error:
        raise MissingExtra(feature="`skerry demo`", extra="demo") from error
    from skerry.effects.disk import DiskFiles

    folder = Path(tempfile.mkdtemp(prefix="skerry-demo-"))
    narrator = Narrator()
    story = Story(folder, narrator)
    held = False
    try:
        figures = story.tell()
        broken = broken_promises(figures)
        held = not broken
        narrator.act("What was measured")
        document = msgspec.json.format(msgspec.json.encode(figures))
        narrator.say(document.decode())
        for promise in broken:
            narrator.bad(promise)
        if report:
            DiskFiles().write(report, document + b"\n")
    finally:
        if keep or not held:
            click.echo(f"\nkept for a look: {folder}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if not held:
        sys.exit(1)
    narrator.good(f"every step held, in {figures.seconds:.0f} s")
