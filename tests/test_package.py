"""The package as a whole: its public names, what it imports, and that the base install is enough to detect."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
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
    assert done.stdout == f'apn.{name} needs torch: pip install "apn[{extra}]"\n'


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


def test_detecting_tells_nobody_and_leaves_nothing_in_the_home_folder(tmp_path: Path):
    """ONNX Runtime would keep an identifier of the machine there, and send it with the model's name."""
    clean = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}  # without CI, where ONNX Runtime keeps silent by itself
    subprocess.run([sys.executable, "-m", "apn", "detect", IMAGE], env=clean, check=True, capture_output=True)
    assert not list(tmp_path.rglob("*"))


def test_who_wants_the_telemetry_of_onnx_runtime_keeps_it():
    code = "import os, apn; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    wanted = {**os.environ, "ORT_DISABLE_TELEMETRY": "0", "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=wanted, capture_output=True, text=True).stdout == "0\n"


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
    assert 'pip install "apn[torch]"' in trained.stderr
    served = subprocess.run([python.with_name("apn"), "serve"], **elsewhere)
    assert (served.returncode, 'pip install "apn[server]"' in served.stderr) == (1, True)


def test_what_is_built_holds_all_of_the_package_and_no_tests(tmp_path: Path):
    """By the listed packages of pyproject.toml alone, a file of another kind that is added would stay behind."""
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("apn", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    wanted = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "apn").rglob("*") if path.is_file()}
    code = "from setuptools import build_meta as b; b.build_wheel('out'); b.build_sdist('out')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    with zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted
    with tarfile.open(next((tmp_path / "out").glob("*.tar.gz"))) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in files if name.startswith(("apn/", "tests/"))} == wanted
