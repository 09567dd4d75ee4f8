# SPDX-License-Identifier: Apache-2.0
"""The inference protocol over gRPC: unary calls on an HTTP/2 of our own. Imported when the first such connection comes."""
