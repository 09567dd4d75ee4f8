# SPDX-License-Identifier: Apache-2.0
"""Skerry: run, update and govern AI models on fleets of edge devices."""

__version__ = "0.1.0"
