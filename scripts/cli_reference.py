# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference/cli.md from the commands themselves: `python scripts/cli_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from skerry.cli.exit_codes import ExitCode
from skerry.cli.program import load
from skerry.cli.verbs import SECTIONS, VERBS, help_text

TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference" / "cli.md"
WIDTH = 100

HEAD = """<!-- Made by scripts/cli_reference.py; a test fails when it is out of date. -->
# Command line

```
{help}```

## Rules that hold for every verb

- Things are named `TYPE/NAME` or `TYPE NAME`: `skerry get device/press-1`, `skerry get device press-1`.
- `-o table|wide|json|yaml|name` chooses the form of the output. Tables are aligned text, with colours on a terminal
  and without in a pipe or with `NO_COLOR`; times read `3m ago` in tables and are RFC 3339 in JSON and YAML.
- Results go to stdout; progress, hints and errors go to stderr.
- `--dry-run` on everything that changes something. What cannot be taken back asks first; without a terminal it needs `--yes`.
- An error is `error SKY-nnnn: what happened` and `hint: what to do`; with `-o json` it is one object with `code`, `message`,
  `hint` and `fields`. The codes are in [errors.md](errors.md).
- Durations are written `500ms`, `30s`, `10m`, `2h`, `1h30m` or `1d`; labels `key=value,key2=value2`.

| exit code | meaning |
|---|---|
{codes}

| environment variable | meaning |
|---|---|
{variables}
"""

_CODES = {
    ExitCode.OK: "done",
    ExitCode.ERROR: "it failed; the error says why",
    ExitCode.USAGE: "the command line or a configuration is wrong; nothing was tried",
    ExitCode.GATE_FAILED: "a gate said no: the rollout was undone or paused, the self-test failed",
    ExitCode.TIMEOUT: "not done within `--timeout`; it goes on without us",
    ExitCode.PARTIAL: "done, but not everywhere",
    ExitCode.INTERRUPTED: "Ctrl-C",
    ExitCode.BROKEN_PIPE: "whoever read the output went away",
}

_VARIABLES = {
    "SKERRY_HUB": "address of the hub; beats the config file, is beaten by `--hub`",
    "SKERRY_TOKEN": "operator token; same order",
    "SKERRY_CA": "file with the authority of the hub's certificate; same order",
    "SKERRY_CONFIG": "the config file, instead of `~/.config/skerry/config.json`",
    "SKERRY_KEY_PASSPHRASE": "passphrase of private keys",
    "SKERRY_ONLINE_KEY_PASSPHRASE": "passphrase of a hub's online keys, when they have one of their own",
    "SKERRY_DATABASE": "database of `skerry up`",
    "SKERRY_DEBUG": "as `--debug`: show the traceback of an unexpected error",
    "NO_COLOR": "no colour, no redrawing",
}


def render() -> str:
    codes = "\n".join(f"| {code.value} | {_CODES[code]} |" for code in ExitCode)
    variables = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in _VARIABLES.items())
    parts = [HEAD.format(help=help_text(), codes=codes, variables=variables)]
    for section in SECTIONS:
        parts.append(f"## {section}\n")
        for verb in VERBS.values():
            if verb.section == section:
                parts.extend(_pages(load(verb.module), f"skerry {verb.name}"))
    return "\n".join(parts)


def _pages(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(
        command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
    )
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"### {path}\n\n```\n{text}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _pages(child, f"{path} {name}")


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(render())
    print(f"wrote {TARGET}")
