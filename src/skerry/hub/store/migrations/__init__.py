# SPDX-License-Identifier: Apache-2.0
"""Alembic's environment and the steps. Shipped in the package; run by `store.migrate` when a hub starts."""
