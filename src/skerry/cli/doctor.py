# SPDX-License-Identifier: Apache-2.0
"""`skerry doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from skerry.cli import findings, params
from skerry.cli.exit_codes import ExitCode
from skerry.cli.findings import Verdict
from skerry.cli.render import Output, clean, colourful, dump, styled
from skerry.cli.world import World, pass_world


@click.command()
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="Also look into an agent's state folder.")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@params.hub_options
@pass_world
def command(
    world: World, *, state: Path | None, output: Output, hub_url: str | None, token: str | None, ca: str | None
) -> int:
    """Find out what is wrong with this machine or its hub.

    Changes nothing. Exit 1 when something failed; warnings alone are exit 0.
    """
    found = [
        *findings.machine(world),
        findings.disk(state or Path.cwd()),
        findings.settings(world),
        *findings.hub(world, url=hub_url, token=token, ca=ca),
        *(findings.state(state, world.clock.now()) if state else ()),
    ]
    if output is Output.TABLE:
        _print(found)
    else:
        dump(found, output)
    return ExitCode.ERROR if any(finding.verdict is Verdict.FAILED for finding in found) else ExitCode.OK


def _print(found: list[findings.Finding]) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        word = finding.verdict.value
        shown = styled(word) if colourful(sys.stdout) else word
        click.echo(f"{shown}{' ' * (8 - len(word))} {finding.check:<{width}}  {clean(finding.detail)}")
        if finding.hint and finding.verdict is not Verdict.OK:
            click.echo(f"{'':8} {'':{width}}  -> {clean(finding.hint)}")
