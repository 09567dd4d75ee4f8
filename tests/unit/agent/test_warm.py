# SPDX-License-Identifier: Apache-2.0
import pytest

from skerry.agent.supervise.warm import no_room


def meminfo(total_mib: int, available_mib: int) -> str:
    return (
        f"MemTotal: {total_mib * 1024} kB\nMemFree: 1 kB\nMemAvailable: {available_mib * 1024} kB\nHugePages_Total: 0\n"
    )


@pytest.mark.parametrize(
    ("total", "available", "room"),
    [(512, 64, True), (512, 63, False), (16_000, 799, False), (16_000, 800, True), (100, 99, True)],
)
def test_the_version_before_stays_where_there_is_memory_to_spare(total, available, room):
    reason = no_room(meminfo(total, available))
    assert (reason == "") is room
    if not room:
        assert f"{available} MiB of memory are available" in reason


@pytest.mark.parametrize("text", ["", "MemTotal: 1 kB\n", "nonsense", "MemAvailable: many kB\n"])
def test_where_the_kernel_does_not_say_nothing_speaks_against_it(text):
    assert no_room(text) == ""
