# SPDX-License-Identifier: Apache-2.0
"""Measuring a model server from outside: processes, load, paired comparison. Used by `skerry bench`, `skerry top` and benchmarks/."""
