# SPDX-License-Identifier: Apache-2.0
"""What several kinds of tests need: small models, real stacks of processes."""
