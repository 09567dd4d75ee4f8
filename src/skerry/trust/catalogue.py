# SPDX-License-Identifier: Apache-2.0
"""The device's view of the catalogue: python-tuf's client, with what it leaves out.

- the factory root is the bootstrap of every start, so metadata files emptied by a power cut heal by themselves;
- the reference time never lies before the time floor, so a clock set back does not revive expired metadata;
- versions are also compared with floors kept outside the metadata folder, so wiping that folder does not help a replay;
- the file system is synced after every change (python-tuf renames without fsync);
- every refusal is a CatalogueRefused with one word for the attack; trouble on the road is a RoadError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import Struct
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Key, Role, Root, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from skerry.effects import Clock, Files
from skerry.errors import CatalogueRefused, HubUnreachable, StorageError, UnexpectedReply
from skerry.trust.decision import CatalogueEntry
from skerry.trust.fetcher import LocalFetcher
from skerry.trust.floors import CatalogueFloor, Floors, effective_now, raise_catalogue, raise_time
from skerry.trust.metadata import CatalogueRefusal
from skerry.wire.v1.device import ASSIGNMENT_KEYS_TARGET, AssignmentKeys, target_path


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the catalogue is served. URLs without trailing slash; targets carry their hash in the file name."""

    metadata_url: str
    targets_url: str
    fetcher: FetcherInterface


class _Custom(Struct, frozen=True, kw_only=True):
    line: str
    model: str
    version: str
    release_seq: int
    floor_seq: int = 0


DEFAULT_LIMITS = UpdaterConfig(snapshot_max_length=4_000_000, targets_max_length=16_000_000)
"""One megabyte of targets metadata is about 2,000 bundles of a line."""


class Catalogue:
    """One device's catalogue. `metadata_dir` belongs to this object alone; `targets_dir` caches the assignment keys."""

    def __init__(
        self,
        metadata_dir: Path,
        *,
        source: Source,
        targets_dir: Path,
        factory_root: bytes,
        files: Files,
        clock: Clock,
        limits: UpdaterConfig = DEFAULT_LIMITS,
    ) -> None:
        self._metadata_dir = metadata_dir
        self._source = source
        self._targets_dir = targets_dir
        self._factory_root = factory_root
        self._files = files
        self._clock = clock
        self._limits = limits
        self._updater: Updater | None = None

    def refresh(self, floors: Floors) -> Floors:
        """Bring the metadata up to date; the floors to save now: time and catalogue versions raised.

        Raises CatalogueRefused, RoadError or StorageError. The metadata on disk then is what was last verified, and this object
        answers nothing until the next successful `refresh` or `open_offline`.
        """
        now = effective_now(self._clock.now(), floors)
        return raise_time(self._open(self._source.fetcher, floors, now), now)

    def open_offline(self, floors: Floors) -> None:
        """Use the metadata verified by an earlier refresh, without network and whatever its age.

        Expiry is not forgotten: entries carry `fresh_until`, and `decide_install` refuses what is stale. Raises like `refresh`.
        """
        self._open(LocalFetcher(self._files, self._metadata_dir), floors, 0.0)

    def entry(self, target: str) -> CatalogueEntry | None:
        """What the catalogue says of the bundle at `target`; None when no release key signed anything there."""
        info = self.find(target)
        if info is None:
            return None
        try:
            custom = msgspec.convert(info.custom, _Custom)
        except msgspec.ValidationError as error:
            raise _refused(CatalogueRefusal.MALFORMED, f"{target}: {error}") from error
        if target != target_path(custom.line, custom.model, custom.version) or "sha256" not in info.hashes:
            raise _refused(CatalogueRefusal.WRONG_TARGET, f"{target} is described as {custom.model}:{custom.version}")
        return CatalogueEntry(
            target=target,
            digest=f"sha256:{info.hashes['sha256']}",
            size=info.length,
            line=custom.line,
            model=custom.model,
            version=custom.version,
            release_seq=custom.release_seq,
            floor_seq=custom.floor_seq,
            fresh_until=min(signed.expires.timestamp() for signed in _trusted(self._open_updater())),
        )

    def manifest(self, entry: CatalogueEntry) -> bytes:
        """The bundle's OCI manifest, verified against the signed digest."""
        return self.read_target(entry.target)

    def assignment_keys(self) -> AssignmentKeys:
        """Keys the hub may sign assignments with, as named by the offline targets role. Works offline once read."""
        data = self.read_target(ASSIGNMENT_KEYS_TARGET, cache=self._targets_dir)
        try:
            return msgspec.json.decode(data, type=AssignmentKeys)
        except (msgspec.MsgspecError, ValueError) as error:
            raise _refused(CatalogueRefusal.MALFORMED, f"{ASSIGNMENT_KEYS_TARGET}: {error}") from error

    def find(self, target: str) -> TargetFile | None:
        """Signed length and hashes of a target, from the most trusted role that names it."""
        updater = self._open_updater()
        known = len(_trusted(updater))
        with _translated(self._source.metadata_url):
            info = updater.get_targetinfo(target)
        if len(_trusted(updater)) != known:
            self._files.sync_tree(self._metadata_dir)
        return info

    def read_target(self, target: str, *, cache: Path | None = None) -> bytes:
        """Verified content of a target. With `cache`, a folder, an intact copy there saves the download.

        What is returned is the very buffer that was hashed.
        """
        info = self.find(target)
        if info is None:
            raise _refused(CatalogueRefusal.WRONG_TARGET, f"the catalogue has no target {target}")
        kept = cache / quote(target, safe="") if cache is not None else None
        data = self._files.read(kept) if kept is not None else None
        if data is not None and _matches(info, data):
            return data
        url = self._target_url(info)
        with _translated(url):
            data = self._source.fetcher.download_bytes(url, info.length)
        if not _matches(info, data):
            raise _refused(CatalogueRefusal.WRONG_TARGET, f"{target}: the bytes sent are not the signed ones")
        if kept is not None:
            self._files.write(kept, data)
        return data

    def _open(self, fetcher: FetcherInterface, floors: Floors, reference: float) -> Floors:
        self._updater = None
        with _translated(self._source.metadata_url):
            updater = Updater(
                str(self._metadata_dir),
                self._source.metadata_url,
                fetcher=fetcher,
                config=self._limits,
                bootstrap=self._factory_root,
            )
            # python-tuf has no parameter for the time; without this it would believe a clock that was set back.
            _trusted(updater).reference_time = datetime.fromtimestamp(reference, UTC)
            try:
                updater.refresh()
            finally:
                self._files.sync_tree(self._metadata_dir)
        _require_distinct_keys(_trusted(updater))
        raised = _above_floor(_trusted(updater), floors)
        self._updater = updater
        return raised

    def _open_updater(self) -> Updater:
        if self._updater is None:
            raise _refused(CatalogueRefusal.FREEZE, "there is no verified metadata in hand")
        return self._updater

    def _target_url(self, info: TargetFile) -> str:
        folder, slash, name = info.path.rpartition("/")
        if _trusted(self._open_updater()).root.consistent_snapshot:
            name = f"{next(iter(info.hashes.values()))}.{name}"
        return f"{self._source.targets_url.rstrip('/')}/{folder}{slash}{name}"


def _trusted(updater: Updater) -> TrustedMetadataSet:
    # Not public, but the only place that knows reference time and expiry dates; the attack tests notice when it moves.
    return updater._trusted_set  # noqa: SLF001


def _above_floor(trusted: TrustedMetadataSet, floors: Floors) -> Floors:
    """Compare with the versions seen before; versions of online roles start anew when the root names other online keys."""
    seen = CatalogueFloor(
        root=trusted.root.version,
        timestamp=trusted.timestamp.version,
        snapshot=trusted.snapshot.version,
        targets=trusted.targets.version,
        online_keys=_online_keys(trusted.root),
    )
    problem = seen.below(floors.catalogue)
    if problem:
        raise _refused(CatalogueRefusal.ROLLBACK, problem)
    return raise_catalogue(floors, seen)


def _require_distinct_keys(trusted: TrustedMetadataSet) -> None:
    """python-tuf counts key ids towards a threshold; one key under two ids would sign for two.

    Of root and targets, that is: what a release role delegates within its own paths it might sign by itself.
    """
    for signed in trusted:
        if isinstance(signed, Root):
            _require_distinct(signed.keys, signed.roles)
        elif isinstance(signed, Targets) and signed.delegations is not None:
            _require_distinct(signed.delegations.keys, signed.delegations.roles or {})


def _require_distinct(keys: Mapping[str, Key], roles: Mapping[str, Role]) -> None:
    for name, role in roles.items():
        contents = [repr(sorted(keys[keyid].keyval.items())) for keyid in role.keyids if keyid in keys]
        if len(set(contents)) != len(contents):
            raise _refused(CatalogueRefusal.UNSIGNED, f"role {name} counts one key twice")


def _online_keys(root: Root) -> str:
    names = sorted({*root.roles["timestamp"].keyids, *root.roles["snapshot"].keyids})
    return sha256("\n".join(names).encode()).hexdigest()


def _matches(info: TargetFile, data: bytes) -> bool:
    try:
        info.verify_length_and_hashes(data)
    except tuf_errors.LengthOrHashMismatchError:
        return False
    return True


def _refused(reason: CatalogueRefusal, detail: str) -> CatalogueRefused:
    return CatalogueRefused(reason=reason, detail=detail)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Every exception of python-tuf, once, in our words."""
    try:
        yield
    except tuf_errors.DownloadLengthMismatchError as error:
        raise _refused(CatalogueRefusal.ENDLESS_DATA, str(error)) from error
    except tuf_errors.SlowRetrievalError as error:
        raise _refused(CatalogueRefusal.SLOW_RETRIEVAL, str(error)) from error
    except tuf_errors.DownloadHTTPError as error:
        raise UnexpectedReply(url=url, status=error.status_code, problem=str(error)) from error
    except tuf_errors.DownloadError as error:
        raise HubUnreachable(url=url, problem=str(error)) from error
    except tuf_errors.RepositoryError as error:
        raise _refused(_reason(error), str(error)) from error
    except ValueError as error:
        raise _refused(CatalogueRefusal.MALFORMED, str(error)) from error
    except OSError as error:
        raise StorageError(path=error.filename or url, problem=error.strerror or str(error)) from error


_BY_CLASS: tuple[tuple[type[tuf_errors.RepositoryError], CatalogueRefusal], ...] = (
    (tuf_errors.UnsignedMetadataError, CatalogueRefusal.UNSIGNED),
    (tuf_errors.ExpiredMetadataError, CatalogueRefusal.FREEZE),
    (tuf_errors.LengthOrHashMismatchError, CatalogueRefusal.MIX_AND_MATCH),
)


def _reason(error: tuf_errors.RepositoryError) -> CatalogueRefusal:
    for kind, reason in _BY_CLASS:
        if isinstance(error, kind):
            return reason
    # python-tuf has one class for "older than I have" and "not what the role above says", and none for a dropped role.
    # Only its words tell them apart; tests/attacks holds the wording fast.
    text = str(error)
    if isinstance(error, tuf_errors.BadVersionNumberError):
        foreign = text.startswith("Expected ") and ".json" not in text and not text.startswith("Expected root")
        return CatalogueRefusal.MIX_AND_MATCH if foreign else CatalogueRefusal.ROLLBACK
    if "missing info for" in text or "not part of snapshot" in text or "does not contain information" in text:
        return CatalogueRefusal.ROLE_DROPPED
    return CatalogueRefusal.MALFORMED
