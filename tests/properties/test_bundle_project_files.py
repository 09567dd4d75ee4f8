# SPDX-License-Identifier: Apache-2.0
"""A project file is read or refused with its line; nothing else ever happens."""

import contextlib
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from skerry.cli import strict_yaml
from skerry.cli.project_file import parse
from skerry.cli.strict_yaml import YamlFlaw
from skerry.errors import ProjectFileError

pieces = st.sampled_from(
    [
        *"-?:,[]{}#&*!|>'\"%@` \n\tab1.",
        "\n  ",
        "- ",
        ": ",
        "key: ",
        "<<: ",
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "!!str ",
        "\u2028",
        "\x85",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text("abc -:#{}'\"no", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_ ", max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(pieces, max_size=40).map("".join) | st.text(max_size=80))
@example("9" * 5000)
@example("a: 0x" + "f" * 5000)
@example("? ? ? ?")
@settings(max_examples=600, deadline=None)
def test_noise_is_read_or_refused(text):
    with contextlib.suppress(YamlFlaw):
        strict_yaml.parse(text)
    with contextlib.suppress(ProjectFileError):
        parse(text, Path("skerry.yaml"))


@given(values)
@settings(max_examples=200, deadline=None)
def test_what_another_writer_wrote_is_read_back(value):
    from skerry.cli.render import yaml_text

    assert strict_yaml.parse(yaml_text({"key": value})).value == {"key": value}
