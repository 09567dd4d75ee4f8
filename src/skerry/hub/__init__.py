# SPDX-License-Identifier: Apache-2.0
"""The control plane: catalogue, assignments, rollouts, history."""
