"""The commands as their users type them: rows, files and exit codes."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import typer
from labelled import labelled_folder

from apn.cli import COMMANDS, Command

DEMO = Path(__file__).parent.parent / "demo" / "images"
CAT = DEMO / "photo-cat.jpg"


def test_detect_prints_a_row_an_image_and_exits_0(apn):
    code, out, _ = apn("detect", "--no-stability", DEMO)
    lines = [line for line in out.splitlines()[1:] if not line.startswith(" ")]
    assert code == 0
    assert [line.split()[-1] for line in lines] == [str(path) for path in sorted(DEMO.iterdir())]
    assert {line.split()[0] for line in lines} <= {"generated", "real", "unsure"}


def test_a_failed_image_is_a_row_the_others_are_scored_and_the_exit_code_is_1(apn, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("not an image")
    code, out, err = apn("detect", "--json", "--no-stability", bad, CAT, tmp_path / "gone.jpg")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [row["path"] for row in rows] == [str(bad), str(CAT), str(tmp_path / "gone.jpg")]
    assert [row["error"] is None for row in rows] == [False, True, False]
    assert 0 < rows[1]["probability"] < 1
    assert "2 of 3 images could not be scored" in err
    assert "Traceback" not in out + err


def test_wrong_usage_exits_2_and_says_what_was_expected(apn, tmp_path):
    code, _, err = apn("detect", tmp_path)
    assert (code, "expected image files or folders" in err) == (2, True)
    code, _, err = apn("detect", "--csv", tmp_path / "no" / "such.csv", CAT)
    assert (code, "cannot write" in err) == (2, True)
    assert apn("detect", "--no-such-option", CAT)[0] == 2
    assert apn("detekt")[0] == 2


@pytest.mark.parametrize("taken", ["other.jpg", "named like a table.csv", "link.csv"])
def test_the_table_never_replaces_an_image(apn, tmp_path, taken):
    """`--csv *.jpg` makes the first photograph the table."""
    for name in ("other.jpg", "named like a table.csv"):
        shutil.copy(CAT, tmp_path / name)
    (tmp_path / "link.csv").symlink_to("named like a table.csv")
    code, _, err = apn("detect", "--csv", tmp_path / taken, CAT, tmp_path / "named like a table.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert f"--csv {tmp_path / taken}: expected a file for the table, found an image" in err
    assert (tmp_path / taken).read_bytes() == CAT.read_bytes()


def test_an_image_that_is_not_there_is_not_made_a_table(apn, tmp_path):
    assert apn("detect", "--csv", tmp_path / "new.PNG", CAT)[0] == 2
    assert not (tmp_path / "new.PNG").exists()


def test_an_image_that_cannot_even_be_looked_for_is_a_row_where_the_table_is_there_already(apn, tmp_path):
    (tmp_path / "table.csv").write_text("of an earlier run")
    nowhere = tmp_path / f"{'long' * 100}.jpg"  # as in a folder that is closed to us, asking for it is an error
    code, _, err = apn("detect", "--no-stability", "--csv", tmp_path / "table.csv", nowhere, CAT)
    assert (code, err) == (1, "apn: 1 of 2 images could not be scored\n")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [row["error"] for row in rows] == ["the file cannot be read (File name too long)", ""]


def test_an_empty_name_is_not_the_folder_we_are_in(apn, tmp_path, monkeypatch):
    """`apn detect "$PICTURE"` where the variable is not set."""
    shutil.copy(CAT, tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = apn("detect", "--no-stability", "")
    assert (code, out) == (2, "")
    assert "expected the name of an image or folder, found an empty one" in err


@pytest.fixture
def full() -> Path:
    """A file that has no room for a byte."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    return Path("/dev/full")


def test_a_table_that_cannot_be_written_is_one_line(apn, full):
    code, _, err = apn("detect", "--no-stability", "--csv", full, CAT)
    assert (code, err) == (1, "apn: /dev/full: No space left on device\n")


@pytest.mark.parametrize("arguments", [("detect", "--no-stability", CAT), ("detect", "-h"), ("--version",)])
def test_output_that_cannot_be_written_is_one_line(full, arguments):
    command = [sys.executable, "-m", "apn", *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # where it is set, the error cannot say which output it was
    with full.open("w") as nowhere:
        done = subprocess.run(command, stdout=nowhere, stderr=subprocess.PIPE, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (1, "apn: standard output: No space left on device\n")


def test_a_name_that_the_encoding_of_the_output_lacks_is_spelt_out(tmp_path):
    """As in a pipe of Windows, whose code page has few letters: the images after it are scored all the same."""
    for name in ("a \u7167.jpg", "b \xe9.jpg"):
        shutil.copy(CAT, tmp_path / name)
    command = [sys.executable, "-m", "apn", "detect", "--no-stability", tmp_path, tmp_path / "\u7247.jpg"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (1, b"apn: 1 of 3 images could not be scored\n")
    out = done.stdout.decode("cp1252")
    assert [name in out for name in ("a \\u7167.jpg", "b \xe9.jpg", "\\u7247.jpg")] == [True] * 3


def test_a_closed_output_is_no_reason_to_fail(tmp_path):
    command = [
        "sh",
        "-c",
        '"$0" -m apn detect --no-stability --csv "$1" "$2" >&-',
        sys.executable,
        tmp_path / "t.csv",
        CAT,
    ]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "photo-cat" in (tmp_path / "t.csv").read_text()


def test_an_error_of_the_system_without_a_file_is_one_line(apn, monkeypatch):
    def command() -> None:
        raise OSError(110, "Connection timed out")

    monkeypatch.setattr("apn.commands.export.export", command)
    assert apn("export")[::2] == (1, "apn: Connection timed out\n")


def test_ctrl_c_is_one_line_and_exit_code_130(apn, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def interrupted_command() -> None:
        raise KeyboardInterrupt

    def interrupted_import(*_: object, **__: object) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    for stop in (interrupted, interrupted_import):
        monkeypatch.setattr("apn.detector.Detector.detect_many", stop)
        assert apn("detect", CAT) == (130, "", "apn: stopped\n")
    monkeypatch.setattr("apn.commands.export.export", interrupted_command)
    assert apn("export") == (130, "", "apn: stopped\n")


def test_unknown_weights_are_one_line_and_exit_code_1(apn):
    code, _, err = apn("detect", "--weights", "nowhere", CAT)
    assert code == 1
    assert err.strip().splitlines() == ["apn: no weights 'nowhere': expected a checkpoint folder or one of apn-mini"]


def test_csv_holds_the_numbers_of_json(apn, tmp_path):
    _, out, _ = apn("detect", "--json", "--no-stability", "--csv", tmp_path / "rows.csv", CAT)
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    fields = json.loads(out)
    assert row["path"] == fields["path"]
    assert (float(row["logit"]), int(row["width"])) == (fields["logit"], fields["width"])
    assert (row["error"], row["verdict"]) == ("", fields["verdict"])


def test_an_error_on_the_terminal_hides_nothing_of_a_name(apn):
    code, _, err = apn("detect", CAT, "--csv", "a\u202egpj.png")
    assert (code, r"--csv a\u202egpj.png: expected" in err) == (2, True)


def test_a_reader_that_leaves_early_causes_no_complaint():
    command = [sys.executable, "-m", "apn", "detect", "--json", "--no-stability", *map(str, DEMO.iterdir())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ.copy())
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert err == b""
    assert process.returncode == 1


@pytest.mark.parametrize("arguments", [("--json", CAT), (CAT, "gone.jpg"), ("--csv", "no/such.csv", CAT), ("-h",), ()])
def test_the_process_prints_and_exits_as_the_function_does(apn, arguments):
    """`apn detect` ends its process early; nothing may be lost. Standard output is a pipe here, so it is buffered."""
    arguments = ("detect", "--no-stability", *map(str, arguments))
    command = [sys.executable, "-m", "apn", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "80"})
    code, out, err = apn(*arguments)
    moment = re.compile(r'(?<="judged": ")[0-9T:-]+Z')  # a second or more apart
    assert len(moment.findall(done.stdout)) == len(moment.findall(out)) == ("--json" in arguments)
    assert (done.returncode, moment.sub("", done.stdout), done.stderr) == (code, moment.sub("", out), err)


def test_options_may_come_between_the_images(apn, tmp_path):
    dashed = tmp_path / "-cat.jpg"
    shutil.copy(CAT, dashed)
    code, out, _ = apn("detect", CAT, "--json", dashed, "--no-stability")
    assert code == 0
    assert [json.loads(line)["path"] for line in out.splitlines()] == [str(CAT), str(dashed)]
    assert apn("detect", "--no-stability", "--", CAT)[0] == 0


@pytest.mark.parametrize("wrong", [("--batch-size", "0"), ("--max-pixels", "-1"), ("--backend", "tf"), ("--stab",)])
def test_option_values_out_of_range_exit_2(apn, wrong):
    code, out, err = apn("detect", CAT, *wrong)
    assert (code, out) == (2, "")
    assert wrong[0] in err


def test_a_number_that_is_none_is_told_in_plain_words(apn):
    code, _, err = apn("detect", CAT, "--max-pixels", "1e6")
    assert (code, "--max-pixels: expected a whole number of at least 1, found '1e6'" in err) == (2, True)


def test_score_report_and_failed_rows(apn, tmp_path):
    data, table = labelled_folder(tmp_path / "data", 3), tmp_path / "scores.parquet"
    (data / "real" / "broken.png").write_text("no")
    code, out, err = apn("score", "--data", data, "--protocol", "both", "--out", table)
    assert (code, "12 images scored, 2 failed" in out) == (1, True)
    assert err.count(f"apn: {data / 'real' / 'broken.png'}: not an image") == 1  # though it failed under two protocols
    code, out, _ = apn("score", data, "--protocol", "both", "--out", table)  # the same data, the older way to name it
    assert (code, "14 of 14 rows were there from an earlier run" in out) == (1, True)
    (data / "real" / "broken.png").write_bytes((data / "real" / "0.png").read_bytes())
    assert apn("score", data, "--protocol", "both", "--out", table, "--retry-errors")[0] == 0
    code, out, _ = apn("report", table, "--resamples", 20, "--out", tmp_path / "report", "--no-page")
    assert code == 0
    titles = "native (files as they are) and aligned (160 px centre, JPEG q96)"
    assert f"## apn-mini, {titles}, by generator" in out
    assert "| all | 4 + 3 |" in out
    assert "shortcut probe" in out
    assert "frozen with the weights at 5 % FPR" in out
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"tables.md", "metrics.csv", "summary.json"}


def test_score_takes_settings_of_the_protocol_and_parts_of_the_data(apn, tmp_path):
    data, table = labelled_folder(tmp_path / "data", 4), tmp_path / "scores.parquet"
    options = ("--protocol", "aligned", "--codec", "webp", "--quality", 70, "--limit", 5, "--seed", 1, "--no-probe")
    assert apn("score", data, *options, "--out", table)[0] == 0
    out = apn("report", table, "--resamples", 5)[1]
    assert "aligned (160 px centre, WebP q70)" in out
    assert "shortcut probe |" not in out
    code, _, err = apn("score", data, *options[:-3], "--seed", 2, "--out", table)
    assert (code, "holds scores of something else" in err) == (1, True)
    code, _, err = apn("score", data, "--generator", "adm", "--out", tmp_path / "b.parquet")
    assert (code, "no generator" in err and "no sample says its generator" in err) == (1, True)
    code, _, err = apn("score", "--out", tmp_path / "b.parquet")
    assert (code, "no data: expected --data" in err) == (2, True)
    code, _, err = apn("score", data, "--data", f"folder:{data}", "--out", tmp_path / "b.parquet")
    assert (code, "expected each image once" in err) == (1, True)


def test_thresholds_are_frozen_on_a_validation_table_when_asked(apn, tmp_path):
    data, table = labelled_folder(tmp_path / "data", 5), tmp_path / "scores.parquet"
    apn("score", data, "--out", table, "--no-probe")
    code, out, _ = apn("report", table, "--threshold-from", table, "--target-fpr", 0.2, "--resamples", 5)
    assert (code, "at 20 % FPR on 5 validation scores of real images" in out) == (0, True)
    code, _, err = apn("report", table, "--threshold-from", table, "--target-fpr", 0.01)
    assert (code, "expected at least 99 validation scores" in err) == (1, True)


@pytest.mark.slow
def test_export_writes_a_graph_that_detect_can_use(apn, tmp_path):
    weights = Path(__file__).parent.parent / "apn" / "weights" / "apn-mini"
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.safetensors", "config.json", "training.json", "calibration.json"):
        shutil.copy(weights / name, copy)
    code, out, _ = apn("export", copy, "--out", copy / "model.onnx", "--images", CAT)
    assert code == 0
    assert "largest difference from PyTorch on 1 crops" in out
    ours, shipped = (
        json.loads(apn("detect", "--json", "--no-stability", "--weights", folder, CAT)[1]) for folder in (copy, weights)
    )
    assert ours["probability"] == pytest.approx(shipped["probability"], abs=1e-4)


def test_serve_refuses_other_machines_without_a_token(apn):
    code, _, err = apn("serve", "--host", "0.0.0.0")
    assert code == 1
    assert "token" in err


def test_serve_says_how_a_list_and_a_time_are_set(apn):
    code, _, err = apn("serve", "--set", "allowed_hosts=check.example")
    assert (code, err.count("\n")) == (1, 1)
    assert """--set 'allowed_hosts=["check.example"]'""" in err
    code, _, err = apn("serve", "--set", "timeout_s=inf")
    assert (code, "timeout_s: Input should be less than or equal to 86400" in err) == (1, True)


def test_train_that_was_stopped_says_with_which_settings_to_go_on(apn, tmp_path, monkeypatch):
    from apn.train import TrainResult

    monkeypatch.setattr("apn.train.train", lambda *_, **__: TrainResult(3, True, {}))
    (tmp_path / "a.toml").write_text("")
    options = ["--set", "data.train=genimage:my data", "--out", tmp_path / "run", "--device", "cpu"]
    code, _, err = apn("train", tmp_path / "a.toml", *options)
    assert code == 130
    again = f"train {tmp_path}/a.toml --set 'data.train=genimage:my data' --device cpu --resume {tmp_path}/run"
    assert f"stopped after step 3; go on with: apn {again}\n" in err
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    _, _, err = apn("train", tmp_path / "a.toml", *options)
    assert f"go on with: torchrun --nnodes 2 --nproc-per-node 2 -m apn {again}\n" in err


def test_train_names_the_setting_that_is_wrong(apn, tmp_path):
    (tmp_path / "a.toml").write_text("[model]\nband_cout = 3\n")
    code, _, err = apn("train", tmp_path / "a.toml")
    assert code == 1
    assert "model.band_cout" in err


def test_help_lists_every_command_with_the_first_line_of_its_docstring(apn):
    code, out, _ = apn("--help")
    listing = " ".join(out.replace("│", " ").split())
    assert code == 0
    for name, command in COMMANDS.items():
        target = command.load()
        documented = target.info.help if isinstance(target, typer.Typer) else target.__doc__
        assert f"{name} {command.help}" in listing
        assert command.help == documented.splitlines()[0]


def test_help_breaks_no_line_where_the_source_did(apn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    _, out, _ = apn("purification", "--help")
    assert "tell label, generator and source, and how much information they still have in common (CLUB," in out
    _, out, _ = apn("matrix", "--help")
    assert "the same command goes on where it was, in the middle of a training or of a table of scores." in out


@pytest.mark.parametrize("command", ["embed", "plot", "purification"])
def test_help_names_no_probe_where_there_is_none(apn, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "400")
    code, out, _ = apn(command, "--help")
    assert (code, "--seed" in out, "shortcut probe" in out) == (0, True, False)


def test_a_command_whose_module_is_missing_is_not_listed(apn, monkeypatch):
    monkeypatch.setitem(COMMANDS, "later", Command("apn.commands.no_such_module", "later", "Not yet."))
    assert "later" not in apn("--help")[1]
    assert apn("later")[0] == 2


def test_a_group_of_commands_is_one_entry(apn, monkeypatch):
    group = typer.Typer(help="Two of a kind.")
    group.command("first")(lambda: typer.echo("first ran"))
    group.command("second")(lambda: typer.echo("second ran"))
    module = ModuleType("apn.commands.two")
    module.app, module.__spec__ = group, ModuleSpec("apn.commands.two", None)
    monkeypatch.setitem(sys.modules, "apn.commands.two", module)
    monkeypatch.setitem(COMMANDS, "two", Command("apn.commands.two", "app", "Two of a kind."))
    assert apn("two", "second")[:2] == (0, "second ran\n")
    assert "Two of a kind." in apn("--help")[1]


def test_a_missing_extra_is_one_line_that_says_what_to_install(apn, monkeypatch):
    for package, extra in {"sklearn": "evaluate", "torch": "torch"}.items():

        def command(package: str = typer.Option(package)) -> None:
            raise ModuleNotFoundError(f"No module named '{package}.part'", name=f"{package}.part")

        monkeypatch.setattr("apn.commands.export.export", command)
        assert apn("export")[::2] == (1, f'apn: this command needs {package}.part: pip install "apn[{extra}]"\n')


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("python_multipart", ("serve", "--port", "0"), "server"),
        ("pyarrow", ("scan", "photos", "--out", "scan"), "scan"),  # also in `evaluate`, which would not be enough
        ("matplotlib", ("plot", "e.parquet", "--out", "plots"), "plot"),
        ("timm", ("explain", "photo.jpg", "--out", "figures"), "explain"),
        ("torch", ("purification", "e.parquet"), "plot,torch"),
        ("pyarrow", ("embed", "--data", "photos", "--out", "e.parquet"), "explain"),
        ("pyarrow", ("matrix", "--train", "photos", "--out", "matrix"), "torch"),
    ],
)
def test_the_extra_that_is_named_is_enough_for_the_command(apn, monkeypatch, package, arguments, extra):
    def command(arguments: list[str]) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    name = arguments[0]
    module = ModuleType("apn.commands.lacking")
    module.command = command
    monkeypatch.setitem(sys.modules, "apn.commands.lacking", module)
    monkeypatch.setitem(COMMANDS, name, Command("apn.commands.lacking", "command", "", plain=True))
    assert apn(*arguments)[::2] == (1, f'apn: this command needs {package}: pip install "apn[{extra}]"\n')


def test_a_file_that_is_not_there_is_one_line(apn, tmp_path):
    code, _, err = apn("report", tmp_path / "none.csv")
    assert (code, err) == (1, f"apn: {tmp_path / 'none.csv'}: No such file or directory\n")
