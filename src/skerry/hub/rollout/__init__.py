# SPDX-License-Identifier: Apache-2.0
"""Rollouts, decided: `plan(state, now)` says what to do next, `changes_of` what that means for the record.

Level-triggered: only the stored state counts, never what was done before; killing the hub between two writes loses nothing.
"""
