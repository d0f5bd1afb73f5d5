"""The report as one HTML file that needs nothing else: numbers, figures and thumbnails stand in it.

Everything that comes from outside (names of files, generators and detectors, errors) passes through the template's
escaping, and what cannot be seen of it is spelt out; only figures, which Matplotlib has escaped, are put in as they
are.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from apn.calibration import ECE_BINS
from apn.report import figures, series, views
from apn.report.canvas import legend_svg, save_png, svg
from apn.report.curves import Curve, measure_curves, write_curves
from apn.report.environment import environment
from apn.report.folder import FIGURES
from apn.report.mistakes import Mistake, worst
from apn.report.results import ONE_SCORE, Report, Table
from apn.scoretable import Scores
from apn.version import __version__
from apn.words import printable, probability_words

if TYPE_CHECKING:
    from apn.report.explained import Explained, Explainer

_SHOWN_HISTOGRAMS = 2  # the others are folded away


class Drawing(NamedTuple):
    """A figure as it stands in the page, and what it shows in words."""

    alt: str
    svg: Markup


class GroupBlock(NamedTuple):
    by: Literal["generator", "scene"]
    explanation: str
    table: views.View
    figures: list[Drawing]


class CurveBlock(NamedTuple):
    title: str
    legend: Markup
    table: views.View
    figures: list[Drawing]


class MistakeBlock(NamedTuple):
    title: str
    alarms: list[Mistake]
    misses: list[Mistake]
    explained: list["Explained"]
    note: str  # why none is explained, though it was asked for


def write_page(
    report: Report,
    scores: Sequence[Scores],
    folder: Path,
    *,
    command: str = "",
    explained: int = 0,
    explain_weights: Sequence[str] = (),
) -> list[Path]:
    """Writes index.html, figures/*.png and, with degraded images, robustness.md and .csv; returns all, the page first.

    scores: those the report was built from, in the same order. command: what was typed, for the section on the
    environment. explained: so many false alarms and misses of each detector get an explanation figure, where PyTorch is
    installed and their checkpoint is found; explain_weights: where to look for it. Opens the images of the worst
    mistakes; one that is gone is shown as a note.
    """
    draw = Draw(folder / FIGURES)
    curves = _curves(report, scores)
    tables = write_curves(curves, folder) if curves else []
    context: dict[str, Any] = {
        "report": report,
        "version": __version__,
        "bins": ECE_BINS,
        "shown": _SHOWN_HISTOGRAMS,
        "title": f"Evaluation of {views.listed([one.label for one in report.detectors])}",
        "subtitle": views.subtitle(report),
        "keys": views.keys(report),
        "thresholds": views.thresholds(report),
        "one_score": ONE_SCORE,
        "warnings": views.warnings(report),
        "headline": [views.side_by_side(report), *views.comparisons(report)],
        "by_group": list(_group_blocks(report, draw)),
        "curves": list(_curve_drawings(report, scores, draw)),
        "robustness": list(_curve_blocks(curves, draw)),
        "histograms": list(_histograms(report, scores, draw)),
        "mistakes": list(_mistake_blocks(report, scores, explained, explain_weights)),
        "probe": views.probe(report),
        "full": [views.full(table) for table in report.tables],
        "paired": views.paired(report),
        "failures": views.failures(report),
        "environment": environment(report, scores, command),
    }
    context["sections"] = list(_sections(context))
    path = folder / "index.html"
    path.write_text(_template().render(context), encoding="utf-8")
    return [path, *tables, *draw.written]


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(loader=loader, autoescape=True, finalize=_seen, **options)
    environment.filters["probability"] = probability_words
    return environment.get_template("page.html")


def _seen(value: Any) -> Any:
    """Texts with what is hidden in them spelt out; figures and what the template made are markup already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _sections(context: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(id, title) of what the page has, for its navigation."""
    yield "summary", "Summary"
    for block in context["by_group"]:
        yield f"by-{block.by}", f"AUC by {block.by}"
    yield "curves", "ROC and reliability"
    if context["robustness"]:
        yield "robustness", "Robustness"
    yield "histograms", "Scores by generator"
    yield "mistakes", "Worst mistakes"
    yield "probe", "Shortcut probe"
    yield "metrics", "All metrics"
    if context["paired"].rows:
        yield "paired", "Detectors compared"
    if context["failures"].rows:
        yield "failures", "Files without a score"
    yield "environment", "Environment"


# Figures --------------------------------------------------------------------------------------------------------------


class Draw:
    """Puts a figure into the page as SVG and into the folder as PNG, each under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.used, self.written = folder, set[str](), list[Path]()
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, title: str, figure: Figure, alt: str) -> Drawing:
        name = self._name(title)
        drawn = Markup(svg(figure, name))
        figure.set_layout_engine("none")  # it is laid out now, and that takes longer than drawing it
        self.written.append(self.folder / f"{name}.png")
        save_png(figure, self.written[-1])
        return Drawing(alt, drawn)

    def _name(self, title: str) -> str:
        """Letters, digits and dashes; a number behind it where another title gave the same."""
        plain = name = slug(title)
        number = 1
        while name in self.used:
            number += 1
            name = f"{plain}-{number}"
        self.used.add(name)
        return name


def slug(text: str) -> str:
    """Letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _group_blocks(report: Report, draw: Draw) -> Iterator[GroupBlock]:
    kinds: tuple[Literal["generator", "scene"], ...] = ("generator", "scene")
    for by in kinds:
        tables = [table for table in report.tables if table.by == by and len(table.rows) > 1]
        if not tables:
            continue
        drawings = []
        for detector in dict.fromkeys(table.detector for table in tables):
            own = [table for table in tables if table.detector == detector]
            names, dots = series.auc_by_group(own)
            title = f"AUC by {by}: {detector}"
            protocols = views.listed([one.protocol for one in own])
            alt = f"{title}, a row a {by}, a mark a protocol ({protocols}); the numbers are in the table."
            drawings.append(draw(f"auc-by-{by}-{detector}", figures.dot_figure(names, dots, title), alt))
        explanation = views.GROUP_EXPLANATIONS[by]
        yield GroupBlock(by, explanation, views.by_group(report, tables), drawings)


def _curve_drawings(report: Report, scores: Sequence[Scores], draw: Draw) -> Iterator[Drawing]:
    """ROC and reliability, each with all detectors, protocol by protocol."""
    tables = list(series.overall_tables(report))
    for protocol in dict.fromkeys(table.protocol for _, table in tables):
        own = [(scores[number], table) for number, table in tables if table.protocol == protocol]
        rocs = [curve for curve in (series.roc(*pair) for pair in own) if curve is not None]
        title = f"ROC: {protocol}"
        alt = f"{title}. True positive rate over false positive rate; AUC: {_aucs(table for _, table in own)}."
        yield draw(f"roc-{protocol}", figures.roc_figure(rocs, title), alt)
        title = f"Reliability: {protocol}"
        alt = f"{title}. Share of generated images over predicted probability, in {ECE_BINS} bins."
        reliabilities = [series.reliability(*pair) for pair in own]
        yield draw(f"reliability-{protocol}", figures.reliability_figure(reliabilities, title), alt)


def _aucs(tables: Iterator[Table]) -> str:
    return ", ".join(f"{table.detector} {views.words(table.rows[0].metrics.auc)}" for table in tables)


def _histograms(report: Report, scores: Sequence[Scores], draw: Draw) -> Iterator[Drawing]:
    for number, table in series.overall_tables(report):
        threshold = table.threshold.value if table.threshold.on == "probability" else None
        title = f"Scores of {table.detector}: {table.protocol}"
        figure = figures.histogram_figure(series.histograms(scores[number], table), threshold, title)
        alt = f"{title}. A histogram of probabilities for the real images and for each generator."
        yield draw(f"scores-{table.detector}-{table.protocol}", figure, alt)


def _mistake_blocks(
    report: Report, scores: Sequence[Scores], explained: int, weights: Sequence[str]
) -> Iterator[MistakeBlock]:
    """Of each detector under its last protocol: aligned, where that was scored."""
    last, why = dict(series.overall_tables(report)), _explainer(weights) if explained else ""
    for number, table in last.items():
        alarms, misses = worst(scores[number], table)
        title = f"{table.detector}, {table.protocol}: threshold {table.threshold.origin}"
        found, note = [], why if isinstance(why, str) else ""
        if not isinstance(why, str):
            try:
                found = why(scores[number], table, explained)
            except ValueError as error:
                note = f"No explanation figures: {error}."
        yield MistakeBlock(title, alarms, misses, found, note)


def _explainer(weights: Sequence[str]) -> "Explainer | str":
    """What explains, or a sentence on why nothing can here: the page is made without it then."""
    try:
        from apn.report.explained import Explainer
    except ModuleNotFoundError as error:
        return f'No explanation figures: they need {error.name}, pip install "apn[explain]".'
    return Explainer(weights)


# Robustness -----------------------------------------------------------------------------------------------------------


def _curves(report: Report, scores: Sequence[Scores]) -> list[Curve]:
    curves: list[Curve] = []
    for number, detector in enumerate(report.detectors):
        threshold = next(table.threshold for table in report.tables if table.detector == detector.label)
        options = {"resamples": report.resamples, "seed": report.seed}
        curves += measure_curves(scores[number], detector.label, threshold, **options)
    return curves


def _legend(lines: Sequence[str], name: str) -> Markup:
    entry = Markup("<li>{}{}</li>")
    entries = [entry.format(Markup(legend_svg(number, name)), line) for number, line in enumerate(lines)]
    return Markup('<ul class="legend" aria-hidden="true">{}</ul>').format(Markup("").join(entries))


def _curve_blocks(curves: Sequence[Curve], draw: Draw) -> Iterator[CurveBlock]:
    for detector, protocol in dict.fromkeys((curve.detector, curve.protocol) for curve in curves):
        own = [curve for curve in curves if (curve.detector, curve.protocol) == (detector, protocol)]
        title = f"{detector}, {protocol}"
        panels = [series.panel(curve) for curve in own]
        draw(f"robustness-{title}", figures.panels_figure(panels, f"Robustness of {title}"), "")
        legend = _legend([line.label for line in panels[0].lines], slug(title))
        drawings = [
            draw(f"robustness-{title}-{panel.title}", figures.panel_figure(panel), views.panel_words(panel, title))
            for panel in panels
        ]
        yield CurveBlock(title, legend, views.robustness(own, f"Robustness of {title}"), drawings)
