# SPDX-License-Identifier: Apache-2.0
"""How a workload gets from one bundle to another: one file per step, each with a contract that is checked."""
