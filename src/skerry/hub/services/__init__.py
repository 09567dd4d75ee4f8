# SPDX-License-Identifier: Apache-2.0
"""What the hub does, free of HTTP: each service takes what it needs by name and speaks wire structs."""
