# SPDX-License-Identifier: Apache-2.0
from skerry import errors


def every_error(root=errors.SkerryError):
    yield root
    for child in root.__subclasses__():
        yield from every_error(child)


def test_codes_are_unique_and_in_the_range_of_their_branch():
    classes = list(every_error())
    codes = [cls.code for cls in classes]
    assert len(set(codes)) == len(codes)
    for branch in errors.SkerryError.__subclasses__():
        assert all(cls.code[:5] == branch.code[:5] for cls in every_error(branch))


def test_message_and_hint_are_made_of_the_fields():
    error = errors.NotFound(kind="device", name="d1")
    assert str(error) == "there is no device d1"
    assert error.hint() == "List what there is with `skerry get devices`."
    assert error.fields == {"kind": "device", "name": "d1"}
