# SPDX-License-Identifier: Apache-2.0
"""YAML 1.2, core schema (https://yaml.org/spec/1.2.2/#103-core-schema), as a person means it: no tags, anchors or merges.

`no` is a text, `012` is twelve, a key given twice is an error. Every value remembers the line it stands on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.tokens import (
    AliasToken,
    AnchorToken,
    BlockEndToken,
    BlockMappingStartToken,
    BlockSequenceStartToken,
    DirectiveToken,
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
    TagToken,
)

Path = tuple[str | int, ...]

MAX_TEXT: Final = 1024 * 1024
_MAX_DEPTH: Final = 32

_NULL = re.compile(r"(null|Null|NULL|~|)")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)")
_INT = re.compile(r"[-+]?[0-9]{1,40}")  # longer ones are no integers anybody means
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BANNED: Final[dict[type[Any], str]] = {
    TagToken: "a tag",
    AnchorToken: "an anchor",
    AliasToken: "an alias",
    DirectiveToken: "a directive",
}

_OPENING: Final = (BlockMappingStartToken, BlockSequenceStartToken, FlowMappingStartToken, FlowSequenceStartToken)
_CLOSING: Final = (BlockEndToken, FlowMappingEndToken, FlowSequenceEndToken)


class YamlFlaw(Exception):
    """`line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Document:
    """`lines` has the line of every value and key, by path from the top: ("spec", "variants", 0, "name")."""

    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def parse(text: str) -> Document:
    """Raises YamlFlaw."""
    if len(text) > MAX_TEXT:
        raise YamlFlaw(1, f"longer than {MAX_TEXT} characters")
    try:
        _require_plain(text)
        node = YAML(pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlFlaw(mark.line + 1 if mark else 1, error.problem or str(error.context)) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise YamlFlaw(1, str(error).strip() or type(error).__name__) from error
    if node is None:
        raise YamlFlaw(1, "the file is empty")
    if not isinstance(node, Node):
        raise YamlFlaw(1, "not a YAML document")
    lines: dict[Path, int] = {}
    return Document(value=_value(node, (), lines), lines=lines)


def _require_plain(text: str) -> None:
    """Also stops at what is too deep, before the parser, whose time grows with the square of the depth, gets to see it."""
    depth = 0
    for token in YAML(pure=True).scan(text):
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > _MAX_DEPTH:
            raise YamlFlaw(token.start_mark.line + 1, f"deeper than {_MAX_DEPTH} levels")
        what = _BANNED.get(type(token))
        if what:
            raise YamlFlaw(token.start_mark.line + 1, f"{what} is not allowed here; write the value out")


def _value(node: Node, path: Path, lines: dict[Path, int]) -> Any:  # noqa: ANN401 - what YAML holds
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, MappingNode):
        return {key: _value(child, (*path, key), lines) for key, child in _entries(node, path, lines)}
    if isinstance(node, SequenceNode):
        return [_value(child, (*path, index), lines) for index, child in enumerate(node.value)]
    if isinstance(node, ScalarNode):
        return _scalar(node)
    raise YamlFlaw(lines[path], "neither a mapping, a list nor a value")


def _entries(node: MappingNode, path: Path, lines: dict[Path, int]) -> Iterator[tuple[str, Node]]:
    for key_node, child in node.value:
        if not isinstance(key_node, ScalarNode):
            raise YamlFlaw(lines[path], "a key must be a text")
        line = key_node.start_mark.line + 1
        key = str(key_node.value)
        if (*path, key) in lines:
            raise YamlFlaw(line, f"{dotted((*path, key))}: given twice, first on line {lines[*path, key]}")
        lines[*path, key] = line
        yield key, child


def _scalar(node: ScalarNode) -> str | int | float | bool | None:
    text = str(node.value)
    if node.style is not None:  # quoted or a block: a text whatever it looks like
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    return _number(text)


def _number(text: str) -> str | int | float:
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def dotted(path: Path) -> str:
    """("spec", "variants", 0, "name") -> spec.variants[0].name"""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
