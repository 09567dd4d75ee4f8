# SPDX-License-Identifier: Apache-2.0
"""`skerry verify`: is this bundle whole and what it says it is? Needs no hub and no network; signatures are the catalogue's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import click
from msgspec import Struct

from skerry.bundle import blob as blobs
from skerry.bundle.archive import open_archive
from skerry.bundle.digest import is_digest
from skerry.bundle.manifest import Variant
from skerry.bundle.mlbom import check_ml_bom
from skerry.bundle.oci import Bundle
from skerry.cli import params
from skerry.cli.evidence import require_valid_bom
from skerry.cli.progress import size_text
from skerry.cli.render import Output, dump, table
from skerry.errors import DigestMismatch, ManifestError, SelfTestFailed


class Check(Struct, frozen=True, kw_only=True):
    name: str
    result: str  # ok, warning
    detail: str


class VerifyReport(Struct, frozen=True, kw_only=True):
    file: str
    name: str
    version: str
    digest: str
    checks: tuple[Check, ...]


@click.command(epilog="\b\n  skerry verify digits-1.0.0.skb\n  skerry verify digits-1.0.0.skb --self-test\n")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.skb")
@click.option("--digest", metavar="sha256:HEX", help="Also require that it is this very bundle.")
@click.option("--self-test", is_flag=True, help="Also run every variant on its golden samples, on this machine.")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(*, file: Path, digest: str | None, self_test: bool, output: Output) -> None:
    """Check a bundle: digests, manifest, evidence, licences."""
    if digest is not None and not is_digest(digest):
        raise click.BadParameter(f"{digest!r} is no digest; it looks like sha256: and 64 hex digits")
    show(verify(file, digest=digest, self_test=self_test), output)


def verify(file: Path, *, digest: str | None = None, self_test: bool = False) -> VerifyReport:
    """Raises the ArtefactError that says what is wrong; what is merely worth knowing is a warning in the report."""
    bundle = open_archive(file)
    if digest is not None and bundle.digest != digest:
        raise DigestMismatch(name=str(file), actual=bundle.digest, expected=digest)
    steps: list[Callable[[Bundle], Check]] = [_contents, _manifest, _ml_bom, _licences, _safety]
    if self_test:
        steps.append(_self_test)
    return VerifyReport(
        file=str(file),
        name=bundle.config.name,
        version=bundle.config.version,
        digest=bundle.digest,
        checks=tuple(step(bundle) for step in steps),
    )


def show(report: VerifyReport, output: Output) -> None:
    if output is not Output.TABLE:
        dump(report, output)
        return
    table(["CHECK", "RESULT", "DETAIL"], [[check.name, check.result, check.detail] for check in report.checks])
    click.echo(f"\n{report.name}:{report.version} {report.digest}")


def _contents(bundle: Bundle) -> Check:
    """`open_archive` has read and hashed every byte before any of these steps run."""
    count = len(bundle.manifest.blobs) + 1
    return Check(name="contents", result="ok", detail=f"{count} blobs, {size_text(bundle.size)}, every digest right")


def _manifest(bundle: Bundle) -> Check:
    files, variants = len(bundle.config.files), len(bundle.config.variants)
    detail = f"{bundle.config.schema}, {files} files all declared, {variants} variants"
    return Check(name="manifest", result="ok", detail=detail)


def _ml_bom(bundle: Bundle) -> Check:
    path = bundle.config.ml_bom
    if not path:
        raise ManifestError(problem="there is no ML-BOM")
    data = blobs.content(bundle.file(path))
    check_ml_bom(data, bundle.config)
    require_valid_bom(data)
    return Check(name="ml-bom", result="ok", detail=f"{path}: CycloneDX 1.6, names every file by digest")


def _licences(bundle: Bundle) -> Check:
    if not bundle.config.licenses:
        return Check(name="licences", result="warning", detail="none named")
    return Check(name="licences", result="ok", detail=", ".join(bundle.config.licenses))


def _safety(bundle: Bundle) -> Check:
    if bundle.config.unsafe:
        return Check(name="safety", result="warning", detail=f"packed unsafe: {', '.join(bundle.config.unsafe)}")
    return Check(name="safety", result="ok", detail="no check was skipped when it was packed")


def _reader(bundle: Bundle, variant: Variant) -> Callable[[str], bytes]:
    """Files of `variant` beside its model."""

    def read(location: str) -> bytes:
        path = str(PurePosixPath(variant.model).parent / location)
        if path not in variant.files:
            raise ManifestError(problem=f"variant {variant.name} uses {path}, which is not among its files")
        return blobs.content(bundle.file(path))

    return read


def _self_test(bundle: Bundle) -> Check:
    from skerry.runtime.engine import Nearby
    from skerry.runtime.engines import load
    from skerry.runtime.selftest import run_selftest
    from skerry.runtime.sequences import stateful

    samples = blobs.content(bundle.file(bundle.config.self_test.file))
    for variant in bundle.config.variants:
        model = blobs.content(bundle.file(variant.model))
        nearby = Nearby(read=_reader(bundle, variant))
        engine = stateful(
            load(variant.runtime, model, name=variant.name, path=variant.model, nearby=nearby), bundle.config.io.state
        )
        outcome = run_selftest(engine, samples, variant.tolerance)
        engine.close()
        if not outcome.passed:
            raise SelfTestFailed(variant=variant.name, problem=outcome.problem)
    detail = f"{bundle.config.self_test.samples} samples, {len(bundle.config.variants)} variants, on this machine"
    return Check(name="self-test", result="ok", detail=detail)
