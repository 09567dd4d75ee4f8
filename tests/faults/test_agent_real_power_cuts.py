# SPDX-License-Identifier: Apache-2.0
"""The power goes for real: a real agent on a real ext4, which loses at a random instant whatever was not synced.

EXT4_IOC_SHUTDOWN without a flush of the journal is what the kernel's own file system tests cut the power with. The heuristic
by which ext4 writes a file back because it is renamed (auto_da_alloc) is off: nothing but fsync counts.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from skerry.agent.supervise.orphans import find_orphans
from skerry.trust.chain import Intact, verify_chain
from skerry.wire.v1.device import BundleRef, WorkloadSpec
from support.agent_process import Device
from support.mini_hub import DEVICE, MiniHub
from support.victim import Owner

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_WITHOUT_FLUSH = struct.pack("I", 2)


class Disk:
    def __init__(self, folder: Path) -> None:
        self._image = folder / "image"
        self.folder = folder / "disk"
        self.folder.mkdir()
        with self._image.open("wb") as image:
            image.truncate(96 * 1024 * 1024)
        self.mounted = self._run("mkfs.ext4", "-q", str(self._image)) and self.plug_in()

    def plug_in(self) -> bool:
        return self._run("mount", "-o", "loop,noauto_da_alloc", str(self._image), str(self.folder))

    def cut(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, _WITHOUT_FLUSH)
        finally:
            os.close(handle)

    def pull_out(self) -> bool:
        return self._run("umount", str(self.folder))

    @staticmethod
    def _run(*command: str) -> bool:
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path)
    if not made.mounted:
        pytest.skip("an ext4 image can only be made and mounted by root")
    yield made
    made.pull_out()


def power_off(device: Device, disk: Disk) -> None:
    """The machine goes dark: the disk first, then everything that runs."""
    disk.cut()
    device.kill()
    for orphan in find_orphans(device.state):
        orphan.end(patience=0)
    device.until("the disk to come free", disk.pull_out)
    assert disk.plug_in()


def finished(device: Device, hub: MiniHub, ref: BundleRef) -> None:
    device.until(f"commit of {ref.name}", lambda: "committed" in hub.states(ref), 40)
    device.until(f"serving {ref.name}", lambda: device.bundle() == ref.name)
    assert device.ask().split()[0] == ref.name
    assert "undone" not in hub.states(ref)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_power_cuts_leave_old_or_new_and_every_record_right(disk, tmp_path):
    owner = Owner(now=time.time())
    hub = MiniHub(owner)
    device = Device(disk.folder, hub)
    device.log = tmp_path / "agent.log"
    dice, pause = random.Random(20261120), threading.Event()
    try:
        for number in range(1, 6):
            ref = owner.release(f"{number}.0.0", number, labels={"results": "2"})
            hub.assign(WorkloadSpec(name="eye", bundle=ref, soak_seconds=0.3))
            for _ in range(4):
                device.start()
                pause.wait(dice.uniform(0.3, 2.5))
                power_off(device, disk)
                assert device.half_installed() == []
            device.start()
            finished(device, hub, ref)
            device.stop()
        assert isinstance(verify_chain(hub.history(), device_id=DEVICE, public_key=hub.public_key), Intact)
        commits = [entry.fields["bundle"] for entry in hub.history() if entry.kind == "committed"]
        assert commits == [f"digits:{number}.0.0" for number in range(1, 6)]
        seen = [result.event_id for result in hub.results()]
        assert len(seen) == len(set(seen)) > 0
    finally:
        device.close()
        hub.stop()
