# SPDX-License-Identifier: Apache-2.0
import click
import pytest

from skerry.cli.program import load
from skerry.cli.verbs import SECTIONS, VERBS, help_text


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_the_table_says_what_the_command_says(verb):
    command = load(verb.module)
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(limit=200).rstrip(".") == verb.help


def test_help_has_every_verb_once_under_its_section():
    lines = help_text().splitlines()
    for verb in VERBS.values():
        assert sum(line.startswith(f"  {verb.name} ") for line in lines) == 1
        assert lines.index(verb.section) < next(i for i, line in enumerate(lines) if line.startswith(f"  {verb.name} "))
    assert [line for line in lines if line in SECTIONS] == list(SECTIONS)


def test_help_fits_a_terminal_and_is_ascii():
    assert help_text().isascii()
    assert max(map(len, help_text().splitlines())) <= 80
