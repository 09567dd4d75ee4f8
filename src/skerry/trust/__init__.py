# SPDX-License-Identifier: Apache-2.0
"""May I install this? Catalogue (TUF), assignment (DSSE), floors: pure core, thin shell."""
