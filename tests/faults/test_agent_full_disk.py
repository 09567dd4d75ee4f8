# SPDX-License-Identifier: Apache-2.0
"""A disk without one free byte: what runs runs on, what is committed starts, what waits goes on when there is room."""

from __future__ import annotations

import os
import subprocess

import pytest

from support.agent_bench import Bench


class SmallDisk:
    def __init__(self, folder) -> None:
        self.folder = folder
        folder.mkdir()
        self.mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode

    def fill(self) -> None:
        """To the last byte."""
        for size in (1 << 16, 1 << 12, 1):
            with (self.folder / f"filler-{size}").open("ab", buffering=0) as file:
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue

    def empty(self) -> None:
        for filler in self.folder.glob("filler-*"):
            filler.unlink()

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


@pytest.fixture
def disk(tmp_path):
    made = SmallDisk(tmp_path / "disk")
    if not made.mounted:
        pytest.skip("a small file system can only be mounted by root")
    yield made
    made.close()


@pytest.mark.slow
def test_full_disk_stops_no_model(disk):
    bench = Bench(disk.folder)
    try:
        v1 = bench.owner.release("1.0.0", 1, labels={"results": "1"})
        v2 = bench.owner.release("2.0.0", 2)
        bench.join()
        bench.hub.assign(bench.spec(v1))
        bench.start()
        bench.committed(v1)
        bench.hub.stop()
        disk.fill()
        assert bench.ask() == "digits:1.0.0"
        bench.stop()
        disk.fill()
        assert os.statvfs(disk.folder).f_bavail == 0
        bench.start()
        bench.until("start on a full disk", lambda: bool(bench.workload().url))
        assert bench.ask() == "digits:1.0.0"
        disk.fill()
        bench.hub.start()
        bench.hub.assign(bench.spec(v2))
        disk.empty()
        bench.committed(v2)
        assert bench.ask() == "digits:2.0.0"
        bench.stop()
        seen = [result.event_id for result in bench.hub.results()]
        assert len(seen) == len(set(seen)) > 0
    finally:
        bench.close()
