"""`apn data`: does every file decode, what does a data set hold, can the label be told without looking at a pixel?"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from apn.data.probe import Probe
    from apn.data.samples import Sample
    from apn.data.summary import Summary

app = typer.Typer(help="Check labelled images: do they decode, what are they, what do files give away?")

Spec = Annotated[
    str, typer.Argument(help="LAYOUT:ROOT, a folder with real/ and generated/, or a manifest (docs/data.md).")
]
Split = Annotated[str, typer.Option(help="Only this split: train, val or test.")]
Generators = Annotated[
    list[str] | None, typer.Option("--generator", help="Only this generator and its real images; repeatable.")
]
Scenes = Annotated[list[str] | None, typer.Option("--scene", help="Only this scene; repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]
Workers = Annotated[int, typer.Option(min=1, help="Files read at once.")]
Seed = Annotated[int, typer.Option(help="Of what is random.")]


@app.command()
def verify(
    specs: Annotated[
        list[str],
        typer.Argument(
            help="LAYOUT:ROOT, a folder with real/ and generated/, or a manifest (docs/data.md); several to find "
            "pictures of one in another.",
        ),
    ],
    quarantine: Annotated[
        Path | None, typer.Option(help="Manifest to write of the files that do not decode, with the reasons.")
    ] = None,
    good: Annotated[Path | None, typer.Option(help="Manifest to write of the files that do decode.")] = None,
    split: Split = "",
    generators: Generators = None,
    scenes: Scenes = None,
    workers: Workers = 4,
) -> None:
    """Decode every file; list those that cannot be, with the reason, and pictures that are there twice.

    Exit code 0 if every file decodes, 1 if some do not.
    """
    from apn.data.samples import write_manifest
    from apn.data.verify import verify as decode
    from apn.rows import open_progress
    from apn.words import printable

    parts = [_samples(spec, split, generators, scenes) for spec in specs]
    files = sum(map(len, parts))
    with open_progress(files) as advance:
        readable, unreadable, copies = decode(parts, workers, advance)
    for sample, reason in unreadable:
        typer.echo(printable(f"{sample.path}: {reason}"))
    for sample, earlier, of in copies:
        typer.echo(printable(f"{sample.path}: the same picture as {earlier.path}, which is of {of}"))
    if quarantine is not None:
        write_manifest([sample for sample, _ in unreadable], quarantine, [reason for _, reason in unreadable])
    if good is not None:
        write_manifest(readable, good)
    twice = f"; {len(copies)} show the picture of an earlier one" if copies else ""
    typer.echo(f"{len(readable)} of {files} files decode, {len(unreadable)} do not{twice}")
    if unreadable:
        sys.exit(1)


@app.command()
def summary(
    spec: Spec,
    as_json: Json = False,
    split: Split = "",
    generators: Generators = None,
    scenes: Scenes = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read the headers of so many files, drawn; of all.")] = None,
    seed: Seed = 0,
    workers: Workers = 8,
) -> None:
    """Count images by class, generator, scene and split; formats, sizes and JPEG qualities by class."""
    from apn.data.summary import summarise
    from apn.rows import open_progress

    samples = _samples(spec, split, generators, scenes)
    with open_progress(min(len(samples), limit or len(samples))) as advance:
        found = summarise(samples, limit=limit, seed=seed, workers=workers, advance=advance)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
    else:
        _print(*_summary_tables(found))
        if found.unreadable:
            typer.echo(f"{len(found.unreadable)} files have no readable header; apn data verify lists them")


@app.command()
def probe(
    spec: Spec,
    protocol: Annotated[
        Literal["native", "aligned", "fakes-jpeg"], typer.Option(help="What is done to the files first.")
    ] = "native",
    without: Annotated[list[str] | None, typer.Option(help="A fact not to use; repeatable.")] = None,
    as_json: Json = False,
    split: Split = "",
    generators: Generators = None,
    scenes: Scenes = None,
    limit: Annotated[int, typer.Option(min=4, help="Measure at most so many files, drawn.")] = 20_000,
    seed: Seed = 0,
    workers: Workers = 8,
) -> None:
    """Tell the label from facts of the files alone: how much of a detector's result a shortcut could give."""
    from apn.data.probe import probe as run
    from apn.protocols import Protocol
    from apn.rows import open_progress

    samples = _samples(spec, split, generators, scenes)
    with open_progress(min(len(samples), limit)) as advance:
        found = run(
            samples,
            protocol=Protocol(protocol),
            limit=limit,
            without=without or (),
            seed=seed,
            workers=workers,
            advance=advance,
        )
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
    else:
        _print_probe(found)


def _samples(spec: str, split: str, generators: Sequence[str] | None, scenes: Sequence[str] | None) -> "list[Sample]":
    from apn.data.layouts import read_data
    from apn.data.select import select

    return select(read_data(spec), split, generators or (), scenes or ())


# Tables ---------------------------------------------------------------------------------------------------------------


def _print(*tables: "Table") -> None:
    from rich.console import Console

    # A file or a pipe has no width: nothing is cut off there.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        console.print(table)


def _table(title: str, *columns: str, texts: int) -> "Table":
    """A table whose first `texts` columns are words, the others numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < texts else "right", overflow="fold")
    return table


def _summary_tables(found: "Summary") -> "list[Table]":
    from rich.markup import escape

    from apn.data.summary import QUANTILES
    from apn.words import printable

    images = sum(row.images for row in found.rows)
    titles = {"label": "class", "origin": "generator, or source", "scene": "scene", "split": "split"}
    said = [name for name in titles if any(getattr(row, name) for row in found.rows)]
    counts = _table(f"{images:,} images", *(titles[name] for name in said), "images", texts=len(said))
    for row in found.rows:
        counts.add_row(*(escape(printable(getattr(row, name))) for name in said), f"{row.images:,}")
    kinds = _table(f"Files, {found.measured:,} measured", "fact", *found.facts, texts=3)
    sizes = _table("Quantiles", "fact", "class", *(f"{share:.0%}" for share in QUANTILES), texts=2)
    for fact in ("format", "mode", "subsampling", "progressive"):
        kinds.add_row(fact, *(_shares(facts.counts[fact]) for facts in found.facts.values()))
    for fact in dict.fromkeys(name for facts in found.facts.values() for name in facts.quantiles):
        for name, facts in found.facts.items():
            if fact in facts.quantiles:
                title = "JPEG quality" if fact == "quality" else fact.replace("_", " ")
                sizes.add_row(title, name, *map(_number, facts.quantiles[fact]))
    return [counts, kinds, sizes]


def _shares(counts: dict[str, int]) -> str:
    words = {"True": "yes", "False": "no"}
    return ", ".join(f"{words.get(value, value)} {count:,}" for value, count in counts.items()) or "-"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _print_probe(found: "Probe") -> None:
    low, high = found.interval
    typer.echo(
        f"AUC {found.auc:.3f} (95 % interval {low:.3f} to {high:.3f}) from facts of the files alone, {found.protocol}\n"
        f"{found.real:,} real and {found.generated:,} generated files, {found.folds}-fold cross-validation"
        + (f"; {found.unreadable:,} without facts left out" if found.unreadable else "")
    )
    table = _table("One fact at a time", "fact", "AUC", texts=1)
    for fact in found.facts:
        table.add_row(fact.name.replace("_", " "), f"{fact.auc:.3f}")
    _print(table)
    if low <= 0.5:
        typer.echo("These facts do not give the label away.")
    elif found.protocol.startswith("aligned"):
        typer.echo("Size, codec and quality are alike here: bytes say how much detail a picture has, as pixels do.")
    else:
        typer.echo("A detector can reach this AUC without looking at a pixel: compare results under `aligned`.")
