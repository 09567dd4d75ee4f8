# SPDX-License-Identifier: Apache-2.0
"""The demo, act by act: from a training set to a governed fleet, into trouble, and out again. Nothing here is mocked."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

from skerry.bundle.archive import read_config
from skerry.cli.demo.clients import Answer, Client, Log, Traffic, accuracy, ask_all, median_ms
from skerry.cli.demo.models import Scans, build_versions, load_scans
from skerry.cli.demo.narrator import Narrator
from skerry.cli.demo.processes import Device, World, wait_until
from skerry.cli.demo.report import DEVICES, Figures
from skerry.cli.demo.setting import (
    FLEET,
    LINE,
    MODEL,
    WORKLOAD,
    Shell,
    add_device,
    await_hub,
    environment_for,
    hub_client,
    start_hub,
    write_project,
)
from skerry.wire.v1.operator import RolloutStatus, RolloutView

VERSIONS = {"v1": "1.0.0", "v2": "2.0.0", "v3": "3.0.0", "v4": "4.0.0", "v5": "5.0.0"}
GATE_MS = 25
SELF_TEST_SAMPLES = 8
QUESTIONS = 60
SCREENFUL = 14
MANY = 1_000_000


class Story:
    def __init__(self, folder: Path, narrator: Narrator) -> None:
        self.folder = folder
        self.narrator = narrator
        self.figures = Figures()
        self.log = Log()
        self.shell = Shell(folder=folder, environment=environment_for(folder), narrator=narrator)
        self.scans: Scans = load_scans()
        self.world: World | None = None

    def tell(self) -> Figures:
        try:
            self._pack()
            self._start_fleet()
            self._first_rollout()
            self._hub_outage()
            self._better_version()
            self._bad_versions()
            self._audit()
            self._tamper()
        finally:
            if self.world:
                self.world.close()
        self.figures.seconds = round(self.narrator.seconds, 1)
        return self.figures

    # --- acts ----------------------------------------------------------------------------------------------------------

    def _pack(self) -> None:
        tell = self.narrator
        tell.act("Train on real scans, export ONNX, quantise to int8, pack and sign")
        built = build_versions(self.scans, self.folder / "models")
        tell.say(f"{len(self.scans.train)} scans to train on, {len(self.scans.held_out)} held out")
        images = self.scans.held_out[:SELF_TEST_SAMPLES]
        for number, (name, version) in enumerate(VERSIONS.items(), start=1):
            project = write_project(self.folder, built[name], version=version, release_seq=number, images=images)
            unsafe = ["--unsafe"] if name == "v3" else []
            printed = self.shell.skerry("pack", project.name, "-o", f"{name}.skb", *unsafe, show=number in {1, 3})
            if number == 1:
                tell.say(printed.rstrip())
        tell.say("v3 was packed with --unsafe: its int8 variant fails its own self-test, and the bundle says so")
        tell.say(self.shell.skerry("keys", "init", "--dir", "keys", "--line", LINE, "--demo").rstrip())

    def _start_fleet(self) -> None:
        tell = self.narrator
        tell.act("Start a hub and five devices; each makes its own key and joins with a one-time token")
        self.world = start_hub(self.shell)
        hub = {"SKERRY_HUB": self.world.hub_url}
        self.shell.environment.update(hub)
        for number in range(1, DEVICES + 1):
            add_device(self.shell, self.world, number)
        self._wait_all("every device online", lambda device: bool(device.status()), seconds=40)
        client = hub_client(self.shell, self.world)
        for view in client.devices():
            self._device(view.name).id = view.id
        self.figures.devices = len(client.devices())
        self.shell.skerry("fleet", "set", FLEET, "--all")
        self._push("v1")
        tell.say(self.shell.skerry("get", "devices").rstrip())

    def _first_rollout(self) -> None:
        tell = self.narrator
        tell.act("Roll v1 out in stages: one canary, then the rest")
        self._deploy("v1", stages="1,rest")
        clients = self._clients()
        mark, _ = self.log.marks()
        ask_all(clients, range(QUESTIONS), self.log)
        self._say_answers(self.log.answers_since(mark))
        for client in clients:
            client.close()

    def _hub_outage(self) -> None:
        tell, world = self.narrator, self._world()
        tell.act("Stop the hub: devices go on answering and queue their results; start it: the queue drains")
        clients = self._clients()
        self._await_drained()
        world.hub.stop()
        mark, drops = self.log.marks()
        ask_all(clients, range(QUESTIONS), self.log)
        offline = self.log.answers_since(mark)
        self.figures.offline_answers = len(offline)
        wait_until("the outboxes filling", lambda: self._queued() >= len(offline), seconds=20)
        tell.say(
            f"hub gone: {len(offline)} answers, {self.log.marks()[1] - drops} refused; {self._queued()} reports queued"
        )
        world.hub.start()
        await_hub(world)
        self._await_drained()
        sent, received, duplicated = self._count_results()
        tell.good(f"hub back: {sent} answers given, {received} results received, {duplicated} twice")
        for client in clients:
            client.close()

    def _better_version(self) -> None:
        tell = self.narrator
        tell.act("Roll out v2 under traffic: not one request may be dropped")
        self._push("v2")
        clients = self._clients()
        _, drops = self.log.marks()
        with Traffic(clients, self.log):
            self._deploy("v2", stages="1,rest")
        dropped = self.log.dropped[drops:]
        self.figures.dropped_requests_during_switch = len(dropped)
        for drop in dropped[:5]:
            tell.bad(f"{drop.device}: {drop.problem}")
        mark, _ = self.log.marks()
        ask_all(clients, range(len(self.scans.held_out) // 2), self.log)
        answers = self.log.answers_since(mark)
        self._say_answers(answers)
        self.figures.accuracy_fp32 = round(accuracy(self._by_variant(answers, "fp32")), 4)
        self.figures.accuracy_int8 = round(accuracy(self._by_variant(answers, "int8")), 4)
        self.figures.latency_ms_p50 = round(median_ms(answers), 2)
        for client in clients:
            client.close()

    def _bad_versions(self) -> None:
        tell, world = self.narrator, self._world()
        self.figures.rollbacks_expected = self.figures.rollbacks_done = 0
        troubles = {
            "v3": "Roll out v3: one variant gives wrong answers, which only the self-test on the device sees",
            "v4": f"Roll out v4: right answers, but p95 is above the gate of {GATE_MS} ms",
        }
        for name, title in troubles.items():
            tell.act(title)
            self._push(name)
            clients = self._clients()
            with Traffic(clients, self.log):
                rollout = self._deploy(name, stages="2,rest", expect=3)
            touched = [device for device in rollout.devices if device.state != "waiting"]
            back = [device for device in touched if self._runs(self._device(device.name), "v2")]
            self.figures.rollbacks_expected += len(touched)
            self.figures.rollbacks_done += len(back)
            tell.good(f"{rollout.status}: {rollout.reason}")
            tell.say(f"{len(touched)} of {len(world.devices)} devices were touched, {len(back)} are back on v2")
            for client in clients:
                client.close()

    def _audit(self) -> None:
        self.narrator.act("Read the history of one device and verify its hash chain")
        device = self._world().devices[0]
        self._await_drained()
        lines = self.shell.skerry("audit", device.name, both=True).rstrip().splitlines()
        self.narrator.say("\n".join([*lines[:3], "...", *lines[-10:]] if len(lines) > SCREENFUL else lines))
        self.figures.history_verified = any(" intact: " in line for line in lines)

    def _tamper(self) -> None:
        tell, world = self.narrator, self._world()
        tell.act("Tamper: in the file on the way to the hub, and in the hub's own store")
        refused = 0
        original = bytearray((self.folder / "v5.skb").read_bytes())
        original[len(original) // 2] ^= 0x01
        (self.folder / "tampered.skb").write_bytes(original)
        tell.say(self.shell.skerry("verify", "tampered.skb", expect=1).rstrip())
        refused += 1
        self._push("v5")
        self._swap_blob_on_hub("v5")
        rollout = self._deploy("v5", stages="1,rest", expect=3)
        device = next(device for device in rollout.devices if device.state != "waiting")
        tell.good(
            f"{device.name} refused it: {device.reason}; it still runs {self._device(device.name).workload(WORKLOAD)['bundle']}"
        )
        refused += int("SKY-1004" in device.reason or "digest" in device.reason)
        self.figures.tamper_refused = refused
        self._await_drained()
        sent, received, duplicated = self._count_results()
        self.figures.results_sent, self.figures.results_received = sent, received
        self.figures.results_duplicated = duplicated
        tell.good(f"in the end: {sent} answers given, {received} results at the hub, {duplicated} twice")
        world.close()

    # --- pieces --------------------------------------------------------------------------------------------------------

    def _world(self) -> World:
        assert self.world is not None  # noqa: S101 - acts run in order
        return self.world

    def _device(self, name: str) -> Device:
        return next(device for device in self._world().devices if device.name == name)

    def _push(self, name: str) -> None:
        self.shell.skerry("push", f"{name}.skb", "--key", f"keys/line-{LINE}.pem")

    def _deploy(self, name: str, *, stages: str, expect: int = 0) -> RolloutView:
        words = ["deploy", f"{LINE}/{MODEL}:{VERSIONS[name]}", "--workload", WORKLOAD, "--fleet", FLEET]
        words += ["--stages", stages, "--gate", f"latency_p95_ms<={GATE_MS}", "--soak", "2s", "--deadline", "60s"]
        printed = self.shell.skerry(*words, "--watch", "--timeout", "90s", expect=expect)
        self.narrator.say(printed.rstrip())
        rollouts = hub_client(self.shell, self._world()).rollouts()
        newest = max(rollouts, key=lambda rollout: rollout.created)
        wanted = RolloutStatus.UNDONE if expect else RolloutStatus.DONE
        if newest.status != wanted:
            self.narrator.bad(f"rollout of {name} is {newest.status}, expected {wanted}: {newest.reason}")
        return hub_client(self.shell, self._world()).rollout(newest.id)

    def _clients(self) -> list[Client]:
        return [
            Client(device.name, device.workload(WORKLOAD)["url"], MODEL, self.scans) for device in self._world().devices
        ]

    def _wait_all(self, what: str, check: object, seconds: float) -> None:
        assert callable(check)  # noqa: S101 - typed loosely for lambdas
        wait_until(what, lambda: all(check(device) for device in self._world().devices), seconds)

    def _runs(self, device: Device, name: str) -> bool:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if device.workload(WORKLOAD).get("bundle", "").endswith(f":{VERSIONS[name]}"):
                return True
            time.sleep(0.1)
        return False

    def _await_drained(self) -> None:
        self._wait_all("the outboxes draining", lambda device: device.status().get("outbox", 1) == 0, seconds=40)

    def _queued(self) -> int:
        return sum(device.status().get("outbox", 0) for device in self._world().devices)

    def _by_variant(self, answers: list[Answer], variant: str) -> list[Answer]:
        names = {device.name for device in self._world().devices if device.workload(WORKLOAD).get("variant") == variant}
        return [answer for answer in answers if answer.device in names]

    def _say_answers(self, answers: list[Answer]) -> None:
        for device in self._world().devices:
            own = [answer for answer in answers if answer.device == device.name]
            version = own[-1].version if own else "-"
            variant = device.workload(WORKLOAD).get("variant", "-")
            self.narrator.say(
                f"{device.name}  {variant:<5} v{version:<6} accuracy {accuracy(own):6.1%}  p50 {median_ms(own):5.2f} ms"
                f"  ({len(own)} answers)"
            )

    def _count_results(self) -> tuple[int, int, int]:
        """(answers clients saw, distinct results at the hub among them, results stored more than once)."""
        client = hub_client(self.shell, self._world())
        stored: Counter[str] = Counter()
        for device in self._world().devices:
            stored.update(result.request_id for result in client.newest_results(device.id, limit=MANY))
        sent = {answer.request_id for answer in self.log.answers_since(0)}
        duplicated = sum(count - 1 for count in stored.values())
        return len(sent), len(sent & stored.keys()), duplicated

    def _swap_blob_on_hub(self, name: str) -> None:
        """Play the thief with the hub's disk: put another model where the signed one lies."""
        config = read_config(self.folder / f"{name}.skb")
        wanted = {file.digest.removeprefix("sha256:") for file in config.files if file.path.endswith(".onnx")}
        swapped = [path for path in (self.folder / "hub").rglob("*") if path.is_file() and path.name in wanted]
        for path in swapped:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0x01
            shutil.copymode(path, path)
            path.chmod(0o644)
            path.write_bytes(content)
        self.narrator.say(f"a thief changed {len(swapped)} model files in the hub's store; the hub does not know")
