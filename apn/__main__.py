"""`python -m apn`, and the `apn` command. `apn detect ONE.jpg` is a short process, which two things here keep short."""

import os
import sys
from contextlib import suppress

from apn.cli import main as run


def main() -> None:
    """Runs `apn.cli.main`, and ends the process."""
    if sys.argv[1:2] != ["detect"]:
        run()
        return
    # Detection uses no BLAS; the threads that NumPy would start for it spin on the cores that open the graph.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        run()
    except SystemExit as stopped:
        with suppress(OSError):  # nobody reads any more, and there is nowhere to say so
            sys.stderr.flush()
        os._exit(int(stopped.code or 0))  # taking ONNX Runtime down in order would take a tenth of the time


if __name__ == "__main__":
    main()
