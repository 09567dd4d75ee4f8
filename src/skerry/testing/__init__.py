# SPDX-License-Identifier: Apache-2.0
"""Shipped fakes: virtual clock, in-memory files, scripted network. For tests and the simulator."""
