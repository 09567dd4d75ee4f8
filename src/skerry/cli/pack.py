# SPDX-License-Identifier: Apache-2.0
"""`skerry pack`: a project becomes a bundle that has proved itself on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import click
from msgspec import Struct

from skerry.bundle.archive import SUFFIX, write_archive
from skerry.bundle.oci import Bundle
from skerry.cli import params
from skerry.cli.packing import Packed, PackOptions, VariantReport, pack_project
from skerry.cli.progress import size_text
from skerry.cli.project_file import load
from skerry.cli.render import Output, dump, table
from skerry.effects.disk import fsync_folder
from skerry.errors import FileExists, StorageError

_FORMATS = ("table", "json", "yaml")


class PackReport(Struct, frozen=True, kw_only=True):
    """What `-o json` prints. `file` is empty after a dry run."""

    name: str
    version: str
    line: str
    release_seq: int
    digest: str
    file: str
    size: int
    variants: tuple[VariantReport, ...]
    warnings: tuple[str, ...]
    unsafe: tuple[str, ...]


@click.command(epilog="\b\n  skerry pack\n  skerry pack digits/ -o digits.skb\n  skerry pack -o json --dry-run\n")
@click.argument("project", type=click.Path(path_type=Path), default=Path(), metavar="[DIR|skerry.yaml]")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="FILE.skb|table|json|yaml",
    help="Where to write the bundle [default: NAME-VERSION.skb here]; or the form of the output. May be given twice.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--unsafe", is_flag=True, help="Pack variants that fail their self-test; the bundle says so for good.")
@click.option(
    "--record-latency", is_flag=True, help="Write measured latencies down; the digest then differs each time."
)
@params.dry_run_option
def command(
    *, project: Path, outputs: tuple[str, ...], force: bool, unsafe: bool, record_latency: bool, dry_run: bool
) -> None:
    """Pack a project into a bundle."""
    target, output = split_outputs(outputs)
    file = load(project)
    metadata = file.project.metadata
    target = target or Path(f"{metadata.name}-{metadata.version}{SUFFIX}")
    if target.exists() and not force and not dry_run:
        raise FileExists(path=str(target))
    packed = pack_project(file, PackOptions(unsafe=unsafe, record_latency=record_latency))
    if not dry_run:
        write_bundle(packed.bundle, target)
    show(report_of(packed, "" if dry_run else str(target)), output)


def split_outputs(outputs: tuple[str, ...]) -> tuple[Path | None, Output]:
    """`-o` names a form when it is the word for one, or an .skb file. Raises click.UsageError for others and for two of one."""
    forms = [word for word in outputs if word in _FORMATS]
    files = [word for word in outputs if word.endswith(SUFFIX)]
    odd = [word for word in outputs if word not in (*forms, *files)]
    if odd:
        raise click.UsageError(f"-o {odd[0]}: neither a file that ends in {SUFFIX} nor one of {', '.join(_FORMATS)}")
    if len(forms) > 1 or len(files) > 1:
        raise click.UsageError(f"-o takes one file and one of {', '.join(_FORMATS)}")
    return Path(files[0]) if files else None, Output(forms[0]) if forms else Output.TABLE


def write_bundle(bundle: Bundle, target: Path) -> None:
    """Old file or new one, whole, whatever happens meanwhile. Raises StorageError."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            write_archive(bundle, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise StorageError(path=str(target), problem=error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def report_of(packed: Packed, file: str) -> PackReport:
    config = packed.bundle.config
    return PackReport(
        name=config.name,
        version=config.version,
        line=config.line,
        release_seq=config.release_seq,
        digest=packed.bundle.digest,
        file=file,
        size=packed.bundle.size,
        variants=packed.variants,
        warnings=packed.warnings,
        unsafe=config.unsafe,
    )


def show(report: PackReport, output: Output) -> None:
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if output is not Output.TABLE:
        dump(report, output)
        return
    table(
        ["VARIANT", "PRECISION", "SIZE", "P50 MS", "AGREEMENT", "SELF-TEST"], [_row(item) for item in report.variants]
    )
    written = f"{report.file} ({size_text(report.size)})" if report.file else "nothing: dry run"
    click.echo(f"\n{report.name}:{report.version}  line {report.line}  release {report.release_seq}")
    click.echo(f"digest   {report.digest}\nwritten  {written}")
    if report.file:
        click.echo(f"next: skerry push {report.file} --key line-{report.line}.pem", err=True)


def _row(variant: VariantReport) -> list[str]:
    return [
        variant.name,
        variant.precision,
        size_text(variant.size),
        f"{variant.latency_p50_ms:.3f}",
        f"{variant.agreement:.1%}",
        f"{'passed' if variant.passed else 'failed'}",
    ]
