# SPDX-License-Identifier: Apache-2.0
"""Runner processes: started, watched, switched without a dropped request, restarted, drained, found again."""
