# SPDX-License-Identifier: Apache-2.0
"""Everything the hub remembers: one interface, one SQL implementation for SQLite and PostgreSQL."""
