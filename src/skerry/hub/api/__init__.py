# SPDX-License-Identifier: Apache-2.0
"""HTTP in front of the services: shapes, credentials, status codes. No decision is taken here."""
