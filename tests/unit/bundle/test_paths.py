# SPDX-License-Identifier: Apache-2.0
import pytest

from skerry.bundle.paths import Flaw, flaw_of, require_paths
from skerry.errors import BadEntryName, DuplicateEntry, PathEscape


@pytest.mark.parametrize(
    "path", ["a", "model.onnx", "models/fp32.onnx", "a/b/c/d/e/f/g/h", "My model v2.onnx", "x+y@1=2,3~", "_private"]
)
def test_paths_that_mean_the_same_everywhere(path):
    assert flaw_of(path) is None


@pytest.mark.parametrize("path", ["..", "../a", "a/../b", "/a", "//a", "C:/a", "c:a"])
def test_paths_that_leave_the_bundle(path):
    flaw = flaw_of(path)
    assert flaw is not None
    assert flaw.flaw is Flaw.ESCAPE


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            ".",
            "./a",
            "a/",
            "a//b",
            ".hidden",
            "a/.git",
            "a.",
            "a ",
            " a",
            "a*",
            "~root",
            "-rf",
            "ab:c",
            "a|b",
            'a"b',
        ),
        *("a\\b", "..\\a", "a\nb", "a\x00", "\x7f", "ä", "a\u202eb", "\uff0e\uff0e/a", "a/" * 8 + "b", "a" * 201),
    ],
)
def test_names_that_are_not_allowed(path):
    flaw = flaw_of(path)
    assert flaw is not None
    assert flaw.flaw is Flaw.NAME


@pytest.mark.parametrize(
    "paths",
    [["a", "a"], ["a", "A"], ["a", "a/b"], ["a/b/c", "A/B"], ["dir/x", "DIR/X"]],
    ids="+".join,
)
def test_paths_that_some_file_system_would_take_for_one(paths):
    with pytest.raises(DuplicateEntry):
        require_paths(paths)


def test_paths_that_live_together():
    require_paths(["a", "b/a", "b/c", "ab"])


def test_errors_show_names_with_escapes():
    with pytest.raises(BadEntryName, match=r"'a\\x1b\[31m'"):
        require_paths(["a\x1b[31m"])
    with pytest.raises(PathEscape, match=r"'\.\./a'"):
        require_paths(["../a"])
