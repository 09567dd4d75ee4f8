# SPDX-License-Identifier: Apache-2.0
"""Published bundles as people and devices may see them."""

from __future__ import annotations

import msgspec

from skerry.bundle.manifest import BundleConfig
from skerry.errors import NotFound
from skerry.hub.domain.catalogue import BundleRecord
from skerry.hub.store.interface import CatalogueStore
from skerry.wire.v1.operator import ModelView


class Models:
    """Published bundles never change, so names and blob lists once read are kept; what is not known is read again."""

    def __init__(self, store: CatalogueStore) -> None:
        self._store = store
        self._names: dict[str, str] = {}

    async def all(self, *, line: str = "", model: str = "") -> tuple[ModelView, ...]:
        return tuple(_view(record) for record in await self._store.bundles(line=line, model=model))

    async def of(self, *, line: str, model: str) -> tuple[ModelView, ...]:
        """Every version of one model. Raises NotFound."""
        views = await self.all(line=line, model=model)
        if not views:
            raise NotFound(kind="model", name=f"{line}/{model}")
        return views

    async def name_of(self, digest: str) -> str:
        """`name:version`, or empty for a digest the hub does not know."""
        if digest and digest not in self._names:
            try:
                self._names[digest] = (await self._store.bundle(digest)).ref.name
            except NotFound:
                return ""
        return self._names.get(digest, "")


def _view(record: BundleRecord) -> ModelView:
    config = msgspec.json.decode(record.config, type=BundleConfig)
    return ModelView(
        bundle=record.ref,
        published=record.published,
        size=record.size,
        variants=tuple(variant.name for variant in config.variants),
        quarantined=record.quarantined is not None,
    )
