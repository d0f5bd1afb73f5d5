"""What a run says in the terminal: its data, its notes, and how far it is. A program that reads it gets whole lines."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from apn.trainingdata import Splits
from apn.words import hanging, printable


def say(console: Console, text: str, style: str | None = None) -> None:
    """A line as it is: a path's `[brackets]` are no markup, and further lines of a long one hang under its first."""
    width = console.width if console.is_terminal else None
    console.print(hanging(printable(text), width), style=style, markup=False, emoji=False, soft_wrap=True)


def say_data(console: Console, splits: Splits, notes: Sequence[str]) -> None:
    """How many images a run has, and what is wrong with them. notes: how a resumed run differs from what it was."""
    for name, part in zip(("train", "validation", "left out"), splits[:3], strict=True):
        generated = sum(sample.label for sample in part)
        say(console, f"{name}: {len(part) - generated} real, {generated} generated")
    if splits.validation and len({sample.label for sample in splits.validation}) < 2:
        note = "validation: images of one class have no AUC, so there will be no best/; hold out more of each"
        say(console, f"{note} (data.validation)", "yellow")
    for sample, reason in splits.quarantined:
        say(console, f"quarantined {sample.path}: {reason}", "yellow")
    for note in notes:
        say(console, f"resumed with a difference: {note}", "yellow")


def status(terms: Mapping[str, float], rate: float) -> str:
    """Beside the bar. rate: images a second."""
    return f"loss {terms['total']:.3f}  class {terms.get('classification', 0):.3f}  {rate:.1f} images/s"


def validation_words(metrics: Mapping[str, float]) -> str:
    """What validation found, one class of images or two."""
    if "auc" not in metrics:
        return f"no AUC of one class ({metrics['images']} images)"
    return f"AUC {metrics['auc']:.4f}, balanced accuracy {metrics['balanced_accuracy']:.4f}"


def bar(console: Console) -> Progress:
    """How much of the run is over: a task's `completed` of 1, with the fields `step` and `status`."""
    return Progress(
        BarColumn(),
        TextColumn("step {task.fields[step]}  {task.fields[status]}"),
        TimeRemainingColumn(),
        console=console,
    )
