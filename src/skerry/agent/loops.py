# SPDX-License-Identifier: Apache-2.0
"""The agent's threads. Each repeats one turn, and each has to show life: an agent with a thread that died or hangs must not
look healthy to whoever supervises it.

A turn that takes long shows life in between with `beat`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from skerry.effects import Clock
from skerry.errors import SkerryError

_log = logging.getLogger(__name__)

PAUSE_AFTER_ERROR = 1.0


@dataclass(kw_only=True)
class _Loop:
    name: str
    turn: Callable[[], float]
    wake: threading.Event
    beaten: float
    thread: threading.Thread | None = None
    defect: str = ""


class Loops:
    def __init__(self, clock: Clock, stopping: threading.Event, *, silence: float) -> None:
        """`silence`: seconds a thread may show no life."""
        self._clock = clock
        self._stopping = stopping
        self._silence = silence
        self._loops: list[_Loop] = []

    def start(self, name: str, turn: Callable[[], float], *, wake: threading.Event | None = None) -> None:
        """Repeat `turn`, which returns seconds to pause, until stopping. `wake` ends a pause early, and is cleared then."""
        loop = _Loop(name=name, turn=turn, wake=wake or self._stopping, beaten=self._clock.monotonic())
        loop.thread = threading.Thread(target=self._run, args=(loop,), name=name, daemon=True)
        self._loops.append(loop)
        loop.thread.start()

    def beat(self) -> None:
        """The calling thread made progress; nothing happens when it is not one of these."""
        caller = threading.current_thread()
        for loop in self._loops:
            if loop.thread is caller:
                loop.beaten = self._clock.monotonic()

    def trouble(self) -> str:
        """Which thread ended by itself or hangs, in words; empty when all are well."""
        found = next((words for loop in self._loops if (words := self._trouble_of(loop))), "")
        return "" if self._stopping.is_set() else found  # told to end, they may

    def join(self, name: str, seconds: float) -> None:
        """Wait for a thread to end, at most that long; after `stopping` was set."""
        for loop in self._loops:
            if loop.thread is not None and loop.name == name:
                loop.thread.join(seconds)

    def _trouble_of(self, loop: _Loop) -> str:
        if loop.thread is None or not loop.thread.is_alive():
            return f"thread {loop.name} ended: {loop.defect or 'without a word'}"
        silent = self._clock.monotonic() - loop.beaten
        return f"thread {loop.name} showed no life for {silent:.0f} s" if silent > self._silence else ""

    def _run(self, loop: _Loop) -> None:
        while not self._stopping.is_set():
            loop.beaten = self._clock.monotonic()
            try:
                pause = loop.turn()
            except SkerryError as error:  # a full disk, say: it may get better, and what runs runs on
                level = logging.DEBUG if self._stopping.is_set() else logging.ERROR
                _log.log(level, "thread=%s code=%s error=%s", loop.name, error.code, error)
                pause = PAUSE_AFTER_ERROR
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread: a defect must end the agent
                _log.exception("thread=%s", loop.name)
                loop.defect = repr(error)
                return
            loop.beaten = self._clock.monotonic() + pause
            if pause:
                loop.wake.wait(pause)
            if loop.wake is not self._stopping:
                loop.wake.clear()
