"""`stalling.py CONFIG OUT`: trains as `apn train` does, and stalls for ever before step STALL, for a test to kill."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import apn.train
from apn.cli import main

step_of = apn.train.training_step


def stalling_step(*arguments: Any, **options: Any) -> dict[str, float]:
    if arguments[-1] == int(os.environ["STALL"]) and os.environ["RANK"] == "1":
        mark = Path(sys.argv[-1]) / "stalled.unfinished"
        mark.write_text(str(os.getpid()))
        mark.rename(mark.with_name("stalled.1"))
        time.sleep(600)
    return step_of(*arguments, **options)


apn.train.training_step = stalling_step
config, out = sys.argv[1:]
sys.argv = ["apn", "train", config, "--device", "cpu", "--out", out]
main()
