# SPDX-License-Identifier: Apache-2.0
from skerry.client import AsyncClient as AsyncClient
from skerry.client import Client as Client
from skerry.runtime.model import Model as Model

__version__: str
