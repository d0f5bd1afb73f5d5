"""Memory of this process, in MB. The peak can be forgotten on Linux, so that what loading took does not count."""

import ctypes
import gc
import resource
import sys
from pathlib import Path

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> float:
    """Now."""
    return _field("VmRSS")


def forget_peak() -> None:
    """The peak starts anew, without what is free; where the system cannot do that, it is that of the whole process."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed, of a network that was dropped for instance
    if FORGET.exists():
        FORGET.write_text("5")


def peak() -> float:
    """Most since `forget_peak`, or since the start."""
    return _field("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _field(name: str) -> float:
    if not STATUS.exists():
        return 0.0
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(fields[name].split()[0]) / 1024
