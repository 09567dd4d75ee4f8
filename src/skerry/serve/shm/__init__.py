# SPDX-License-Identifier: Apache-2.0
"""Tensors in memory that client and server share: our own slots, and Triton's system shared memory."""
