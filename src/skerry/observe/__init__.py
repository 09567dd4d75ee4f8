# SPDX-License-Identifier: Apache-2.0
"""Latency sketches and counters. Pure."""
