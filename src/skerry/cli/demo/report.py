# SPDX-License-Identifier: Apache-2.0
"""What the demo measured, and the rules by which it held."""

from __future__ import annotations

from msgspec import Struct


class Figures(Struct, kw_only=True):
    """Filled act by act. A figure nobody measured stays None and fails the check."""

    devices: int | None = None
    accuracy_fp32: float | None = None
    accuracy_int8: float | None = None
    latency_ms_p50: float | None = None
    offline_answers: int | None = None
    results_sent: int | None = None
    results_received: int | None = None
    results_duplicated: int | None = None
    dropped_requests_during_switch: int | None = None
    rollbacks_expected: int | None = None
    rollbacks_done: int | None = None
    tamper_refused: int | None = None
    history_verified: bool | None = None
    seconds: float | None = None


DEVICES = 5
LOWEST_ACCURACY = 0.95
TAMPERINGS = 2


def broken_promises(figures: Figures) -> list[str]:
    """Every promise of the demo that the figures do not bear out; empty when all held."""
    missing = [name for name in Figures.__struct_fields__ if getattr(figures, name) is None]
    if missing:
        return [f"{name} was never measured" for name in missing]
    checks = {
        f"{DEVICES} devices were enrolled": figures.devices == DEVICES,
        f"accuracy on held-out scans is at least {LOWEST_ACCURACY}": min(
            figures.accuracy_fp32 or 0, figures.accuracy_int8 or 0
        )
        >= LOWEST_ACCURACY,
        "devices answered while the hub was gone": bool(figures.offline_answers),
        "every result reached the hub": figures.results_received == figures.results_sent,
        "no result arrived twice": figures.results_duplicated == 0,
        "no request was dropped while versions switched": figures.dropped_requests_during_switch == 0,
        "bad versions touched devices, and every one is back": bool(figures.rollbacks_expected)
        and figures.rollbacks_done == figures.rollbacks_expected,
        "tampered bundles were refused": figures.tamper_refused == TAMPERINGS,
        "the device's history verifies": figures.history_verified is True,
    }
    return [promise for promise, held in checks.items() if not held]
