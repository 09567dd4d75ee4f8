# SPDX-License-Identifier: Apache-2.0
"""The runner process: one workload, one variant."""
