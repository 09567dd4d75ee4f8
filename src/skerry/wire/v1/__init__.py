# SPDX-License-Identifier: Apache-2.0
"""Version 1 of the messages: device (enrol, assignment, report), operator API, and agent <-> runner control."""
