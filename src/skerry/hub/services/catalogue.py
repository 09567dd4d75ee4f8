# SPDX-License-Identifier: Apache-2.0
"""The catalogue (TUF) as this hub keeps and serves it.

Roots, `targets` and release roles are made offline; the hub checks them before it serves them, and adds what only says
how fresh they are: snapshot and timestamp. Files are versioned rows of the store, written all or none, each write naming
the versions it was decided on: of two replicas that publish at once, one decides again.

The versions of snapshot and timestamp follow the time, and every start makes new ones: a hub put back from a backup has
forgotten how far it had counted, and devices never take a lower version than they have seen.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from tuf.api.metadata import Metadata, Root, Targets

from skerry.effects import Clock
from skerry.errors import CatalogueRefused, Conflict, NotFound, StaleVersion, UnknownAddress
from skerry.hub.blobs import Blobs
from skerry.hub.domain.access import Note
from skerry.hub.domain.catalogue import CatalogueFile
from skerry.hub.services.released import MAX_MANIFEST, bundle_of, manifest_of, target_file
from skerry.hub.store.interface import CatalogueStore
from skerry.trust import ceremony, metadata, publish
from skerry.trust.decision import CatalogueEntry
from skerry.trust.online import OnlineTrust
from skerry.wire.v1.device import ASSIGNMENT_KEYS_TARGET

T = TypeVar("T")

MAX_ROLE_BYTES = 16 * 1024 * 1024

_ROOT, _TARGETS, _SNAPSHOT, _TIMESTAMP = "root.json", "targets.json", "snapshot.json", "timestamp.json"
_VERSIONED = re.compile(r"([1-9]\d{0,9})\.((?:root|targets|snapshot|line-[A-Za-z0-9][A-Za-z0-9._+-]{0,63})\.json)")
_ROLE = re.compile(r"targets|line-[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_TRIES = 5
_AHEAD = 3600.0  # what lives longer than it may was signed by a clock that has been set back since


class Catalogue:
    def __init__(self, store: CatalogueStore, blobs: Blobs, clock: Clock, trust: OnlineTrust) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._trust = trust

    # --- what devices read ---------------------------------------------------------------------------------------------

    async def metadata_file(self, name: str) -> CatalogueFile:
        """`timestamp.json` or `N.role.json`, as python-tuf's client asks for it. Raises UnknownAddress."""
        match = _VERSIONED.fullmatch(name)
        if name == _TIMESTAMP:
            file = await self._store.catalogue_file(_TIMESTAMP)
        elif match is not None:
            file = await self._store.catalogue_file(match[2], version=int(match[1]))
        else:
            file = None
        if file is None:
            raise UnknownAddress(path=f"catalogue/{name}")
        return file

    async def target(self, path: str) -> bytes:
        """A target by its path with the hash before the file name. Raises UnknownAddress."""
        file = await self._store.catalogue_file(f"targets/{path}")
        if file is None:
            raise UnknownAddress(path=f"catalogue/targets/{path}")
        return file.data

    async def newest_root(self) -> bytes:
        return await self._newest(_ROOT)

    # --- what operators read and write ---------------------------------------------------------------------------------

    async def role(self, role: str) -> bytes:
        """Signed metadata of `targets` or a release role as it is served now. Raises NotFound."""
        file = await self._store.catalogue_file(f"{role}.json") if _ROLE.fullmatch(role) else None
        if file is None:
            raise NotFound(kind="catalogue role", name=role)
        return file.data

    async def publish_role(self, role: str, data: bytes, *, note: Note | None = None) -> None:
        """Serve new metadata of `targets` or a release role, once everything it names is here.

        Raises CatalogueRefused, BadRequest for a blob that was not uploaded, ManifestError; nothing changes then. Giving the
        metadata that is already served is no error: it finishes what a killed hub had begun.
        """
        if not _ROLE.fullmatch(role):
            raise NotFound(kind="catalogue role", name=role)
        await self._retried(lambda: self._publish_role(role, data, note))
        await self.register_missing()

    async def _publish_role(self, role: str, data: bytes, note: Note | None) -> None:
        previous = await self._store.catalogue_file(f"{role}.json")
        if previous is not None and previous.data == data:
            return
        root, targets = await self._newest(_ROOT), await self._newest(_TARGETS)
        before = previous.data if previous is not None else None
        publish.verify_role(root=root, targets=targets, role=role, data=data, previous=before, now=self._clock.now())
        files = await self._files_of(role, data, before)
        await self._serve({role: data}, extra=files, note=note)

    async def _files_of(self, role: str, data: bytes, before: bytes | None) -> list[CatalogueFile]:
        """The target files new metadata brings along, taken from what was uploaded."""
        if role == Targets.type:
            return [await self._own_target(data)]
        known = {entry.target for entry in publish.releases(before)} if before is not None else set()
        files = []
        for entry in publish.releases(data):
            if entry.target not in known:
                manifest = await manifest_of(self._blobs, entry)
                await bundle_of(self._blobs, entry, manifest, published=0.0)
                files.append(target_file(entry.target, entry.digest, manifest.data))
        return files

    async def _own_target(self, targets: bytes) -> CatalogueFile:
        """The file of assignment keys. Raises Conflict when it would disown the key this hub signs with."""
        info = metadata.parse(Targets, targets).signed.targets[ASSIGNMENT_KEYS_TARGET]
        digest = f"sha256:{info.hashes.get('sha256', '')}"
        served = await self._store.catalogue_file(target_file(ASSIGNMENT_KEYS_TARGET, digest, b"").name)
        content = served.data if served is not None else await self._blobs.content(digest, limit=MAX_MANIFEST)
        if self._trust.assignment_keyid.encode() not in content:
            problem = "does not name the key this hub signs assignments with; give the hub its new key first"
            raise Conflict(kind="catalogue role", name="targets", problem=problem)
        return target_file(ASSIGNMENT_KEYS_TARGET, digest, content)

    async def publish_root(self, data: bytes, *, note: Note | None = None) -> None:
        """Serve the next root. Raises CatalogueRefused unless both thresholds signed it and it fits what is served."""
        current = await self._newest(_ROOT)
        if current == data:
            return
        ceremony.verify_next_root(current, data, now=self._clock.now())
        root = metadata.parse(Root, data)
        for name in (_TARGETS, _SNAPSHOT, _TIMESTAMP):
            # A root that no longer names the keys in use would lock out every device that follows it.
            metadata.require_signed(root, name.removesuffix(".json"), await self._newest(name))
        version = metadata.version_of(data)
        await self._store.put_catalogue_files(
            [CatalogueFile(name=_ROOT, version=version, data=data)], expect={_ROOT: version - 1}, note=note
        )

    # --- on start and ever after ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take over what the trust folder has and the store has not; then make everything fresh. Safe to repeat.

        Raises Conflict when the store holds the catalogue of another root.
        """
        await self._retried(self._import_roots)
        if not await self._retried(self._import_roles):
            await self._retried(lambda: self._serve({}))
        await self.register_missing()

    async def _import_roots(self) -> None:
        for number, data in enumerate(self._trust.roots, start=1):
            stored = await self._store.catalogue_file(_ROOT, version=number)
            if stored is not None and stored.data != data:
                problem = f"the database holds another root {number}: it belongs to another trust folder"
                raise Conflict(kind="catalogue", name=_ROOT, problem=problem)
            if stored is None:
                file = CatalogueFile(name=_ROOT, version=number, data=data)
                await self._store.put_catalogue_files([file], expect={_ROOT: number - 1})

    async def _import_roles(self) -> bool:
        """Whether there was anything to import."""
        newer: dict[str, bytes] = {}
        for role, data in self._trust.roles.items():
            stored = await self._store.catalogue_file(f"{role}.json")
            if stored is None or (role == Targets.type and stored.version < metadata.version_of(data)):
                newer[role] = data
        if not newer:
            return False
        files = [
            target_file(path, _digest_in(self._trust.roles[Targets.type], path), content)
            for path, content in self._trust.targets.items()
        ]
        await self._serve(newer, extra=files)
        return True

    async def refresh(self) -> bool:
        """Sign anew what has half of its life behind it, or another key; returns whether anything was."""
        return await self._retried(self._refresh)

    async def _refresh(self) -> bool:
        now = self._clock.now()
        root = metadata.parse(Root, await self._newest(_ROOT))
        stale = {
            name: await self._is_stale(root, name, now, life)
            for name, life in ((_SNAPSHOT, publish.SNAPSHOT_LIFETIME), (_TIMESTAMP, publish.TIMESTAMP_LIFETIME))
        }
        if stale[_SNAPSHOT]:
            await self._serve({})
        elif stale[_TIMESTAMP]:
            snapshot, timestamp = await self._newest(_SNAPSHOT), await self._newest(_TIMESTAMP)
            fresh = self._timestamp(timestamp, snapshot)
            await self._store.put_catalogue_files([fresh], expect={_TIMESTAMP: metadata.version_of(timestamp)})
        return any(stale.values())

    async def _is_stale(self, root: Metadata[Root], name: str, now: float, life: float) -> bool:
        data = await self._newest(name)
        if not life / 2 <= metadata.expires_of(data) - now <= life + _AHEAD:
            return True
        try:
            metadata.require_signed(root, name.removesuffix(".json"), data)
        except CatalogueRefused:
            return True
        return False

    async def register_missing(self) -> int:
        """Record every published bundle the store does not list yet; returns how many. Safe to repeat.

        Publishing writes the catalogue first and the records after it; whatever comes between is made good here.
        """
        count = 0
        for name in await self._store.catalogue_names():
            if name.startswith("line-"):
                for entry in publish.releases(await self._newest(name)):
                    count += await self._register(entry)
        return count

    async def _register(self, entry: CatalogueEntry) -> bool:
        try:
            await self._store.bundle(entry.digest)
        except NotFound:
            manifest = await manifest_of(self._blobs, entry)
            record = await bundle_of(self._blobs, entry, manifest, published=self._clock.now())
            await self._store.put_bundle(record)
            return True
        return False

    # --- writing -------------------------------------------------------------------------------------------------------

    async def _serve(
        self, roles: Mapping[str, bytes], *, extra: list[CatalogueFile] | None = None, note: Note | None = None
    ) -> None:
        """Write `roles` with a new snapshot and timestamp over everything, all or none. Raises StaleVersion."""
        names = [name for name in await self._store.catalogue_names() if _ROLE.fullmatch(name.removesuffix(".json"))]
        served = {name.removesuffix(".json"): await self._newest(name) for name in names}
        snapshot = await self._store.catalogue_file(_SNAPSHOT)
        timestamp = await self._store.catalogue_file(_TIMESTAMP)
        fresh = publish.make_snapshot(
            snapshot.data if snapshot is not None else None,
            {**served, **roles},
            key=self._trust.snapshot_key,
            expires=self._clock.now() + publish.SNAPSHOT_LIFETIME,
            least=int(self._clock.now()),
        )
        files = [
            *(
                CatalogueFile(name=f"{role}.json", version=metadata.version_of(data), data=data)
                for role, data in roles.items()
            ),
            CatalogueFile(name=_SNAPSHOT, version=metadata.version_of(fresh), data=fresh),
            self._timestamp(timestamp.data if timestamp is not None else None, fresh),
        ]
        expect = {name: file.version if file else 0 for name, file in ((_SNAPSHOT, snapshot), (_TIMESTAMP, timestamp))}
        expect |= {f"{role}.json": metadata.version_of(served[role]) if role in served else 0 for role in roles}
        await self._store.put_catalogue_files([*files, *(extra or [])], expect=expect, note=note)

    def _timestamp(self, previous: bytes | None, snapshot: bytes) -> CatalogueFile:
        data = publish.make_timestamp(
            previous,
            snapshot,
            key=self._trust.timestamp_key,
            expires=self._clock.now() + publish.TIMESTAMP_LIFETIME,
            least=int(self._clock.now()),
        )
        return CatalogueFile(name=_TIMESTAMP, version=metadata.version_of(data), data=data)

    async def _newest(self, name: str) -> bytes:
        file = await self._store.catalogue_file(name)
        if file is None:
            raise NotFound(kind="catalogue file", name=name)
        return file.data

    @staticmethod
    async def _retried(work: Callable[[], Awaitable[T]]) -> T:
        """Decide again on what is there now, when another replica was faster."""
        for _ in range(_TRIES - 1):
            try:
                return await work()
            except StaleVersion:
                continue
        return await work()


def _digest_in(targets: bytes, path: str) -> str:
    return f"sha256:{metadata.parse(Targets, targets).signed.targets[path].hashes['sha256']}"
