"""The package as a whole: its public names, what it imports, and that the base install is enough to detect."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import apn

ROOT = Path(__file__).parent.parent
IMAGE = ROOT / "demo" / "images" / "photo-cat.jpg"
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "sklearn",
    "scipy",
    "pandas",
    "fastapi",
    "uvicorn",
    "onnx",
    "matplotlib",
    "rich",
}
RUN = """
from apn.cli import app
def run(*arguments):
    try:
        app(arguments)
    except SystemExit as stopped:
        assert not stopped.code
"""


def loaded_modules(code: str) -> set[str]:
    """Modules that a fresh interpreter holds after running the code."""
    report = "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def packages(modules: set[str]) -> set[str]:
    """Top-level names, without those of the standard library and of an interpreter that runs nothing."""
    tops = {name.split(".")[0] for name in modules} - {name.split(".")[0] for name in loaded_modules("")}
    return {name for name in tops - sys.stdlib_module_names if not name.startswith(("_cython", "cython"))}


def test_every_public_name_is_there_and_documented():
    for name in apn.__all__:
        assert hasattr(apn, name)
        if name != "__version__":
            assert getattr(apn, name).__doc__
    assert set(dir(apn)) == set(apn.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="expected one of"):
        _ = apn.detekt


@pytest.mark.parametrize(("name", "extra"), [("load_model", "torch"), ("explain", "explain")])
def test_a_name_that_needs_an_extra_says_which(name: str, extra: str):
    code = f"import sys; sys.modules['torch'] = None\nimport apn\ntry: apn.{name}\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"apn.{name} needs torch: pip install 'apn[{extra}]'\n"


def test_importing_apn_imports_nothing_heavy():
    assert packages(loaded_modules("import apn")) == {"apn"}


def test_detecting_imports_the_light_runtime_only():
    """A cold start is mostly imports: what is not here must stay away. (Typer brings pydantic, 60 ms together.)"""
    loaded = loaded_modules(f"{RUN}run('detect', {str(IMAGE)!r})")
    assert packages(loaded) == {"apn", "numpy", "onnxruntime", "PIL"}
    assert not loaded & {
        "numpy.random",
        "numpy.fft",
        "asyncio",
        "multiprocessing",
        "urllib.request",
        "PIL.TiffImagePlugin",
    }


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("detect", "--help"), ("train", "--help")])
def test_help_imports_nothing_of_what_the_commands_need(arguments):
    assert not packages(loaded_modules(f"{RUN}run(*{arguments!r})")) & {
        *HEAVY - {"rich"},
        "numpy",
        "PIL",
        "onnxruntime",
    }


def test_the_extra_scan_brings_what_opens_addresses_of_the_web():
    """Where aiohttp is missing, fsspec knows no http:// and no https://: every row of a table of such would fail."""
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert any(one.startswith("fsspec[http]") for one in facts["project"]["optional-dependencies"]["scan"])


@pytest.mark.slow
def test_a_base_install_detects_without_torch(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", ROOT], check=True)
    elsewhere = {"cwd": tmp_path, "capture_output": True, "text": True, "env": {**os.environ, "PYTHONPATH": ""}}
    done = subprocess.run([python.with_name("apn"), "detect", "--json", IMAGE], **elsewhere, check=True)
    row = json.loads(done.stdout)
    assert row["error"] is None
    assert 0 < row["probability"] < 1
    missing = subprocess.run([python, "-c", "import torch"], **elsewhere)
    assert missing.returncode == 1
    assert "ModuleNotFoundError" in missing.stderr
    trained = subprocess.run([python.with_name("apn"), "train", ROOT / "configs" / "apn-mini.toml"], **elsewhere)
    assert trained.returncode == 1
    assert "pip install 'apn[torch]'" in trained.stderr
    served = subprocess.run([python.with_name("apn"), "serve"], **elsewhere)
    assert (served.returncode, "pip install 'apn[server]'" in served.stderr) == (1, True)
