# SPDX-License-Identifier: Apache-2.0
"""`skerry describe FILE.skb` without a hub; `skerry describe TYPE/NAME` asks one."""

from __future__ import annotations

from pathlib import Path

import click

from skerry.bundle.archive import SUFFIX, open_archive
from skerry.bundle.manifest import BundleConfig, File, Needs, TensorSpec, Variant
from skerry.bundle.oci import Bundle
from skerry.cli import params
from skerry.cli.progress import size_text
from skerry.cli.render import Output, aligned, clean, dump, pairs
from skerry.cli.world import World, pass_world


@click.command(epilog="\b\n  skerry describe digits-1.0.0.skb\n  skerry describe device/press-1 -o json\n")
@click.argument("words", nargs=-1, required=True, metavar="FILE.skb|TYPE/NAME")
@params.output_option(Output.TABLE, Output.JSON, Output.YAML)
@params.hub_options
@pass_world
def command(  # noqa: PLR0917 - click passes by name, except the world
    world: World, words: tuple[str, ...], output: Output, hub_url: str | None, token: str | None, ca: str | None
) -> None:
    """Show everything about one thing, or about a bundle file."""
    if len(words) == 1 and not _names_a_thing(words):
        path = Path(words[0])
        if path.suffix != SUFFIX and not path.exists():
            raise click.UsageError(f"no file {path}; describe takes a FILE.skb, or TYPE/NAME such as device/press-1")
        show(open_archive(path), output)
        return
    from skerry.cli.describe_remote import describe_words

    describe_words(world, world.hub(hub=hub_url, token=token, ca=ca), words, output=output)


def _names_a_thing(words: tuple[str, ...]) -> bool:
    """A file that exists wins: `model/x` may be a folder of the author's."""
    if Path(words[0]).is_file():
        return False
    from skerry.cli.describe_remote import looks_remote

    return looks_remote(words)


def show(bundle: Bundle, output: Output) -> None:
    if output is Output.TABLE:
        click.echo("\n".join(clean(line) for line in lines_of(bundle)))
    else:
        dump({"digest": bundle.digest, "size": bundle.size, "config": bundle.config}, output)


def lines_of(bundle: Bundle) -> list[str]:
    """What a person wants to know before giving a bundle to a fleet."""
    config = bundle.config
    facts = {
        "Bundle": f"{config.name}:{config.version}",
        "Task": config.task,
        "About": config.description,
        "Line": config.line,
        "Release": f"{config.release_seq}" + (f", raises the floor to {config.floor_seq}" if config.floor_seq else ""),
        "Labels": ", ".join(f"{key}={value}" for key, value in sorted(config.labels.items())),
        "Digest": bundle.digest,
        "Size": size_text(bundle.size),
        "Latency budget": f"{config.latency_budget_ms:g} ms" if config.latency_budget_ms else "",
        "Licences": ", ".join(config.licenses) or "none named",
        "Leaves the device": _egress(config),
        "Self-test": f"{config.self_test.samples} samples",
        "Evidence": ", ".join(file.path for file in config.files if file.kind in {"evidence", "ml-bom"}),
        "Packed unsafe": ", ".join(config.unsafe),
    }
    sections = {
        "Inputs": [_tensor(spec) for spec in config.io.inputs],
        "Outputs": [_tensor(spec) for spec in config.io.outputs],
        "Variants, most preferred first": _variants(config),
        "Files": [["PATH", "KIND", "SIZE", "DIGEST"], *(_file(file) for file in config.files)],
    }
    lines = pairs(facts)
    for title, rows in sections.items():
        lines += ["", f"{title}:", *(f"  {line}" for line in (aligned(rows) if rows else ["none"]))]
    return lines


def _egress(config: BundleConfig) -> str:
    if not config.egress.results:
        return "nothing"
    return f"{', '.join(config.egress.results)} (at most {config.egress.max_values} values each)"


def _tensor(spec: TensorSpec) -> list[str]:
    axes = ", ".join("any" if axis < 0 else str(axis) for axis in spec.shape)
    span = f"{spec.range[0]:g} to {spec.range[1]:g}" if spec.range else ""
    labels = f"{len(spec.labels)} labels" if spec.labels else ""
    return [spec.name, f"{spec.dtype}[{axes}]", spec.layout, span, labels]


def _variants(config: BundleConfig) -> list[list[str]]:
    chosen_first = sorted(config.variants, key=lambda variant: -variant.preference)
    return [["NAME", "PRECISION", "ENGINE", "SIZE", "NEEDS", "MUST AGREE"], *(_variant(item) for item in chosen_first)]


def _variant(variant: Variant) -> list[str]:
    tolerance = variant.tolerance
    how = "top answer" if tolerance.top1 else f"within {tolerance.atol:g} + {tolerance.rtol:g} x"
    return [
        variant.name,
        variant.precision,
        variant.runtime,
        size_text(variant.size),
        _needs(variant.needs),
        f"{tolerance.agreement:.0%}, {how}",
    ]


def _needs(needs: Needs) -> str:
    words = [
        "/".join(needs.arch),
        needs.accelerator,
        f"{needs.memory_mib} MiB" if needs.memory_mib else "",
        "+".join(needs.instructions),
    ]
    return ", ".join(word for word in words if word) or "nothing special"


def _file(file: File) -> list[str]:
    return [file.path, file.kind, size_text(file.size), file.digest[:19]]
