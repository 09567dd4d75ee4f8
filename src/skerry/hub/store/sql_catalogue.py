# SPDX-License-Identifier: Apache-2.0
"""Bundles and the files of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, select, update

from skerry.errors import Conflict, NotFound, StaleVersion
from skerry.hub.domain.access import Note
from skerry.hub.domain.catalogue import BundleRecord, CatalogueFile
from skerry.hub.store.database import Database, Transaction
from skerry.hub.store.tables import bundles, catalogue_files
from skerry.wire.v1.device import BundleRef


class SqlCatalogue:
    _db: Database

    async def put_bundle(self, bundle: BundleRecord) -> None:
        ref = bundle.ref
        same = (bundles.c.line == ref.line) & (bundles.c.model == ref.model) & (bundles.c.version == ref.version)
        async with self._db.write() as tx:
            statement = self._db.insert(bundles).values(**_bundle_row(bundle)).on_conflict_do_nothing()
            await tx.execute(statement)
            stored = (await tx.execute(select(bundles.c.digest).where(same))).scalar_one_or_none()
            if stored != ref.digest:
                problem = f"it exists with digest {stored}" if stored else "its digest is known under another name"
                raise Conflict(kind="bundle", name=f"{ref.line}/{ref.name}", problem=problem)

    async def bundle(self, digest: str) -> BundleRecord:
        async with self._db.read() as connection:
            row = (await connection.execute(select(bundles).where(bundles.c.digest == digest))).one_or_none()
        if row is None:
            raise NotFound(kind="model", name=digest)
        return _bundle(row)

    async def find_bundle(self, *, model: str, version: str, line: str = "") -> BundleRecord:
        query = select(bundles).where(bundles.c.model == model, bundles.c.version == version)
        if line:
            query = query.where(bundles.c.line == line)
        async with self._db.read() as connection:
            rows = (await connection.execute(query.order_by(bundles.c.line))).all()
        name = f"{line}/{model}:{version}" if line else f"{model}:{version}"
        if not rows:
            raise NotFound(kind="model", name=name)
        if len(rows) > 1:
            lines = ", ".join(row.line for row in rows)
            raise Conflict(
                kind="bundle", name=name, problem=f"several lines hold it ({lines}); name one as LINE/{name}"
            )
        return _bundle(rows[0])

    async def bundles(self, *, line: str = "", model: str = "") -> tuple[BundleRecord, ...]:
        query = select(bundles).order_by(bundles.c.line, bundles.c.model, bundles.c.release_seq, bundles.c.version)
        if line:
            query = query.where(bundles.c.line == line)
        if model:
            query = query.where(bundles.c.model == model)
        async with self._db.read() as connection:
            return tuple(_bundle(row) for row in await connection.execute(query))

    async def quarantine(self, digest: str, *, reason: str, now: float) -> None:
        async with self._db.write() as tx:
            await quarantine_bundle(tx, digest, reason, now)

    async def put_catalogue_files(
        self, files: Sequence[CatalogueFile], *, expect: Mapping[str, int], note: Note | None = None
    ) -> None:
        async with self._db.write(note) as tx:
            for name, version in sorted(expect.items()):
                newest = select(func.max(catalogue_files.c.version)).where(catalogue_files.c.name == name)
                if ((await tx.execute(newest)).scalar_one() or 0) != version:
                    raise StaleVersion(kind="catalogue file", name=name)
            for file in files:
                await self._put_file(tx, file)

    async def catalogue_file(self, name: str, *, version: int | None = None) -> CatalogueFile | None:
        query = select(catalogue_files).where(catalogue_files.c.name == name)
        if version is not None:
            query = query.where(catalogue_files.c.version == version)
        query = query.order_by(catalogue_files.c.version.desc()).limit(1)
        async with self._db.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else CatalogueFile(name=row.name, version=row.version, data=row.data)

    async def catalogue_names(self) -> tuple[str, ...]:
        query = select(catalogue_files.c.name).distinct().order_by(catalogue_files.c.name)
        async with self._db.read() as connection:
            return tuple(row.name for row in await connection.execute(query))

    async def _put_file(self, tx: Transaction, file: CatalogueFile) -> None:
        """The key (name, version) decides between two writers: the slower one waits for it and then sees the other's bytes."""
        row = {"name": file.name, "version": file.version, "data": file.data}
        added = await tx.execute(self._db.insert(catalogue_files).values(**row).on_conflict_do_nothing())
        if added.rowcount == 1:
            return
        there = select(catalogue_files.c.data).where(
            catalogue_files.c.name == file.name, catalogue_files.c.version == file.version
        )
        if (await tx.execute(there)).scalar_one() != file.data:
            raise StaleVersion(kind="catalogue file", name=f"{file.version}.{file.name}")


async def quarantine_bundle(tx: Transaction, digest: str, reason: str, now: float) -> None:
    free = (bundles.c.digest == digest) & bundles.c.quarantined.is_(None)
    await tx.execute(update(bundles).where(free).values(quarantined=now, quarantine_reason=reason))


def _bundle(row: Row[Any]) -> BundleRecord:
    return BundleRecord(
        ref=BundleRef(
            line=row.line,
            model=row.model,
            version=row.version,
            digest=row.digest,
            release_seq=row.release_seq,
            target=row.target,
        ),
        published=row.published,
        size=row.size,
        config=row.config,
        quarantined=row.quarantined,
        quarantine_reason=row.quarantine_reason,
    )


def _bundle_row(bundle: BundleRecord) -> dict[str, Any]:
    ref = bundle.ref
    return {
        "digest": ref.digest,
        "line": ref.line,
        "model": ref.model,
        "version": ref.version,
        "release_seq": ref.release_seq,
        "target": ref.target,
        "published": bundle.published,
        "size": bundle.size,
        "config": bundle.config,
        "quarantined": bundle.quarantined,
        "quarantine_reason": bundle.quarantine_reason,
    }
