# SPDX-License-Identifier: Apache-2.0
"""The engine contract and the engines; the only files that touch an engine."""
