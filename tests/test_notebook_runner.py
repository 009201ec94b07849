"""The notebook runner accepts whole runs only, and says in one line why it refuses the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqkit.errors import NotebookFailed, OutputError, ReportIncomplete, SqkitError, UsageError, WindowOverlap
from sqkit.research import display
from sqkit.research.notebooks import (
    absolute_paths_in,
    check_stored,
    clean_stored,
    coerce_parameters,
    main,
    parse_parameters,
    read_records,
    run_notebook,
)

NOTEBOOKS = Path(__file__).parent / "notebooks"
EVERY_TYPE = NOTEBOOKS / "every_type.ipynb"
GIVEN: dict[str, Any] = {
    "name": "O'HARA {x}",
    "seed": "42",
    "threshold": 1,
    "full": "true",
    "symbols": ("X", "Y"),
    "lags": [np.int64(3)],
    "weights": {"X": 1},
    "end": "2019-12-31",
    "limit": "2.5",
}
WANTED = {
    "name": "O'HARA {x}",
    "seed": 42,
    "threshold": 1.0,
    "full": True,
    "symbols": ["X", "Y"],
    "lags": [3],
    "weights": {"X": 1.0},
    "end": "2019-12-31",
    "limit": 2.5,
}


def notebook_with(folder: Path, parameters: str) -> Path:
    """A notebook whose parameters cell has this source."""
    notebook = json.loads((NOTEBOOKS / "missing_record.ipynb").read_text())
    next(cell for cell in notebook["cells"] if cell["id"] == "parameters")["source"] = parameters
    path = folder / "some.ipynb"
    path.write_text(json.dumps(notebook))
    return path


def test_parameters_cell_is_the_schema() -> None:
    """Names, types, defaults and help come from the cell, also over several lines and with | None."""
    parameters = {parameter.name: parameter for parameter in parse_parameters(EVERY_TYPE)}
    assert list(parameters) == list(WANTED)
    assert parameters["name"].default == "RELIANCE"
    assert parameters["name"].help == 'symbol, "a # b" is fine in text'
    assert parameters["weights"].annotation == "dict[str, float]"
    assert parameters["weights"].help == "of each symbol"
    assert parameters["limit"].annotation == "float | None"
    assert parameters["limit"].default is None
    assert parameters["full"].help == ""


def test_values_are_coerced_by_their_annotation() -> None:
    """Text as typed and NumPy scalars become plain values of the declared type."""
    coerced = coerce_parameters(EVERY_TYPE, GIVEN)
    assert coerced == WANTED
    assert [type(value) for value in coerced.values()] == [type(value) for value in WANTED.values()]
    assert type(coerced["lags"][0]) is int


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("symbols", "RELIANCE TCS", ["RELIANCE", "TCS"]),
        ("symbols", '["A B", "C"]', ["A B", "C"]),
        ("lags", "1,2", [1, 2]),
        ("weights", '{"A": 0.25}', {"A": 0.25}),
        ("full", "false", False),
        ("name", "007", "007"),
        ("end", None, None),
    ],
)
def test_text_of_a_command_line(name: str, text: Any, value: Any) -> None:
    """What papermill's own command line gets wrong (false, 007, lists) is read by annotation."""
    assert coerce_parameters(EVERY_TYPE, {name: text})[name] == value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sed": 7}, "unknown parameter sed"),
        ({"seed": "1e3"}, "int wanted"),
        ({"seed": 7.0}, "int wanted"),
        ({"seed": True}, "int wanted"),
        ({"seed": None}, "None given"),
        ({"threshold": float("nan")}, "not a finite number"),
        ({"threshold": "nan"}, "not a finite number"),
        ({"limit": float("inf")}, "not a finite number"),
        ({"weights": {"A": float("nan")}}, "not a finite number"),
        ({"weights": {1: 0.5}}, "dict[str, float] wanted"),
        ({"weights": "A=1"}, "not JSON"),
        ({"full": "maybe"}, "bool wanted"),
        ({"symbols": [1]}, "str wanted"),
        ({"symbols": 5}, "list[str] wanted"),
        ({"name": 5}, "str wanted"),
    ],
)
def test_bad_parameters_are_refused_before_a_kernel(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    """Unknown names, ill-typed values and NaN are bad input (exit 2), and nothing is written."""
    with pytest.raises(UsageError) as refusal:
        run_notebook(EVERY_TYPE, tmp_path / "out" / "some.ipynb", values, cwd=tmp_path)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("seed = 7", "write name: type = default"),
        ("seed: int", "write name: type = default"),
        ("import os", "write name: type = default"),
        ("seed: complex = 7", "complex is no type of a parameter"),
        ("seed: int = 7\nseed: int = 8", "declared twice"),
        ("seed: int = int('7')", "no plain value"),
        ("seed: int = 7.5", "int wanted"),
        ("seed: int = ", "not Python"),
    ],
)
def test_a_parameters_cell_that_is_no_schema_is_refused(tmp_path: Path, source: str, said: str) -> None:
    """The cell holds typed lines with plain defaults and nothing else."""
    with pytest.raises(UsageError, match=r"some\.ipynb: ") as refusal:
        parse_parameters(notebook_with(tmp_path, source))
    assert said in str(refusal.value)


def test_without_parameters_cell_or_notebook(tmp_path: Path) -> None:
    """A notebook without the cell, a missing file and another file are one line each."""
    (tmp_path / "text.ipynb").write_text("no JSON")
    for path, said in (
        (NOTEBOOKS / "no_parameters_cell.ipynb", "no cell tagged 'parameters'"),
        (tmp_path / "absent.ipynb", "No such file"),
        (tmp_path / "text.ipynb", "no Jupyter notebook"),
    ):
        with pytest.raises(UsageError, match=said):
            run_notebook(path, tmp_path / "out.ipynb", {}, cwd=tmp_path)


def test_given_values_reach_the_kernel_and_come_back(tmp_path: Path) -> None:
    """The kernel sees the coerced values; scrapbook and our reader read the same records."""
    folder = tmp_path / "with {braces} and spaces"
    folder.mkdir()
    before = EVERY_TYPE.read_bytes()
    records = run_notebook(EVERY_TYPE, folder / "executed.ipynb", GIVEN, cwd=folder)
    assert records == {"values": WANTED}
    assert read_records(folder / "executed.ipynb") == records
    assert EVERY_TYPE.read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["executed.ipynb"]
    import scrapbook

    read = scrapbook.read_notebook(str(folder / "executed.ipynb"))
    assert {name: json.loads(json.dumps(value)) for name, value in read.scraps.data_dict.items()} == {
        **records,
        display.SENTINEL: True,
    }
    assert read.parameters == WANTED


@pytest.mark.parametrize(
    ("notebook", "kind", "said"),
    [
        ("raising_cell", NotebookFailed, "cell body: ZeroDivisionError: division by zero"),
        ("failing_assert", NotebookFailed, "cell body: AssertionError: seed is too small"),
        ("sys_exit_zero", NotebookFailed, "cell body: SystemExit: 0"),
        ("dead_kernel", NotebookFailed, "cell body: the kernel died"),
        ("dead_in_last_cell", NotebookFailed, "cell record: the kernel died"),
        ("tagged_exception", NotebookFailed, "cell body: ValueError: hidden by a tag"),
        ("skipped_cell", ReportIncomplete, "cell body: did not run"),
        ("missing_finish", ReportIncomplete, "did not reach its end"),
        ("recorded_twice", ReportIncomplete, "cell body: value is recorded twice"),
        ("absolute_path", ReportIncomplete, "cell body names the place"),
        ("memory_address", ReportIncomplete, "cell body shows an object by its memory address"),
    ],
)
def test_a_run_that_is_not_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], notebook: str, kind: type[SqkitError], said: str
) -> None:
    """One line names notebook, cell and cause, with exit code 6; no file, no noise, no process is left."""
    with pytest.raises(kind) as refusal:
        run_notebook(NOTEBOOKS / f"{notebook}.ipynb", tmp_path / "executed.ipynb", {}, cwd=tmp_path)
    message = str(refusal.value)
    assert message.startswith(f"{notebook}.ipynb")
    assert said in message
    assert "\n" not in message
    assert refusal.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_refusal_of_sqkit_keeps_its_class_and_code(tmp_path: Path) -> None:
    """What a cell refuses comes back as itself: an overlapping window is exit 4, in one line."""
    with pytest.raises(WindowOverlap) as refusal:
        run_notebook(NOTEBOOKS / "refused_window.ipynb", tmp_path / "executed.ipynb", {}, cwd=tmp_path)
    assert str(refusal.value) == "the window starts 2010-01-04 but the model saw 2010-12-31"
    assert refusal.value.exit_code == 4
    assert "WindowOverlap" in refusal.value.values["traceback"]


def test_a_full_disk_in_a_cell_is_bad_output(tmp_path: Path) -> None:
    """What the file system refuses a cell is exit 2 and says what to do, not a failed notebook."""
    with pytest.raises(
        OutputError, match=r"cell body: .*No space left on device; free some space"
    ) as refusal:
        run_notebook(NOTEBOOKS / "full_disk.ipynb", tmp_path / "executed.ipynb", {}, cwd=tmp_path)
    assert refusal.value.exit_code == 2


def test_a_cell_that_never_ends(tmp_path: Path) -> None:
    """The kernel is stopped at the time limit and leaves no process."""
    with pytest.raises(NotebookFailed, match="cell body: ran longer than 1 s"):
        run_notebook(
            NOTEBOOKS / "endless_cell.ipynb", tmp_path / "executed.ipynb", {}, cwd=tmp_path, timeout_seconds=1
        )
    assert not process_exists(int((tmp_path / "started").read_text()))
    assert not (tmp_path / "executed.ipynb").exists()


def process_exists(number: int) -> bool:
    """Whether a process of that number is there and not only waiting to be collected."""
    try:
        return (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"required_records": ["metrics"]}, "record metrics"),
        ({"required_figures": ["equity.png"]}, "figure equity.png"),
    ],
)
def test_a_required_value_that_is_absent(tmp_path: Path, wanted: dict[str, Any], said: str) -> None:
    """Clean cells are not enough: what the report needs must have been recorded and shown."""
    with pytest.raises(ReportIncomplete, match=f"the {said} is missing"):
        run_notebook(
            NOTEBOOKS / "missing_record.ipynb", tmp_path / "executed.ipynb", {}, cwd=tmp_path, **wanted
        )
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_machine_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign kernelspec, a shadowing python3 kernelspec, a startup file and an unwritable HOME change nothing."""
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "first.py").write_text("open('startup_ran', 'w').close()")
    shadow = tmp_path / "jupyter" / "kernels" / "python3"
    shadow.mkdir(parents=True)
    (shadow / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("HOME", "/proc/no_home")
    monkeypatch.setenv("EXPECTED_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONHASHSEED", "99")
    work = tmp_path / "work"
    work.mkdir()
    said: list[str] = []
    records = run_notebook(
        NOTEBOOKS / "private_place.ipynb", work / "a.ipynb", {}, cwd=work, progress=said.append
    )
    assert records == {"hash_seed": "0", "same_interpreter": True, "startup_ran": False}
    assert said == ["private_place: Private place", "private_place: noise"]
    assert "noise" not in (work / "a.ipynb").read_text().replace('\\"noise\\"', "")
    records = run_notebook(NOTEBOOKS / "foreign_kernelspec.ipynb", work / "b.ipynb", {}, cwd=work)
    assert records == {"same_interpreter": True, "value": 7}


@pytest.mark.slow
def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle ends the kernel and leaves neither output nor temporary files."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    code = (
        "import sys; from pathlib import Path; from sqkit.research.notebooks import run_notebook\n"
        "try: run_notebook(Path(sys.argv[1]), Path('executed.ipynb'), {}, cwd=Path.cwd())\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(NOTEBOOKS / "endless_cell.ipynb")],
        cwd=work,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(NOTEBOOKS.parents[1])},
    )
    started = work / "started"
    deadline = time.monotonic() + 60
    while not (started.is_file() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    kernel = int(started.read_text())
    assert process_exists(kernel)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(timeout=30) == 130
    assert not process_exists(kernel)
    assert [path.name for path in work.iterdir()] == ["started"]
    assert list(temporary.iterdir()) == []


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    """A folder that is a file is bad output (exit 2), said before any cell runs."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        run_notebook(
            NOTEBOOKS / "endless_cell.ipynb",
            tmp_path / "file" / "below" / "executed.ipynb",
            {},
            cwd=tmp_path,
            timeout_seconds=5,
        )
    assert not (tmp_path / "started").exists()


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    """Two runs in two processes and two folders write identical notebook, pages and figures."""
    code = (
        "import sys; from pathlib import Path\n"
        "from sqkit.research.notebooks import run_notebook\n"
        "from sqkit.research.reports import write_report\n"
        "run_notebook(Path(sys.argv[1]), Path('validate.ipynb'), {'seed': 3}, cwd=Path.cwd(), staging=Path('s'))\n"
        "write_report(Path('validate.ipynb'), Path.cwd(), 'validate')"
    )
    contents = []
    for number in range(2):
        folder = tmp_path / f"run {number}"
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", code, str(NOTEBOOKS / "sample_report.ipynb")],
            cwd=folder,
            check=True,
            env={
                **os.environ,
                "PYTHONPATH": str(NOTEBOOKS.parents[1]),
                "TZ": ["UTC", "Asia/Kolkata"][number],
            },
        )
        contents.append(
            {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}
        )
    assert len(contents[0]) == 7
    assert contents[0] == contents[1]
    import nbformat

    notebook = nbformat.reads(contents[0]["validate.ipynb"].decode(), as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])] == [
        "injected-parameters"
    ]


def test_stored_notebooks_are_clean() -> None:
    """The test's own good notebooks pass the lint that the project's notebooks must pass."""
    assert check_stored(NOTEBOOKS / "sample_report.ipynb") == []
    assert check_stored(EVERY_TYPE) == []


def dirty_notebook(folder: Path) -> Path:
    """A notebook with everything the lint refuses."""
    notebook = json.loads((NOTEBOOKS / "every_type.ipynb").read_text())
    title, imports, parameters, kept, record = notebook["cells"]
    title["source"] = "The uplift was 3.2% on `0.5` and [page](x_0.7.html)."
    imports["id"] = "a1b2c3d4"
    imports["outputs"] = [{"name": "stdout", "output_type": "stream", "text": "x"}]
    kept["id"], kept["execution_count"] = "parameters", 3
    kept["source"] = "def uplift(a, b):\n    return a - b\n\nclass Model: ..."
    parameters["source"] = "seed = 7"
    record["source"] = "print(1)"
    path = folder / "dirty.ipynb"
    path.write_text(json.dumps(notebook))
    return path


def test_lint_names_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per fault, exit code 1; code and links in prose may hold numbers."""
    path = dirty_notebook(tmp_path)
    problems = check_stored(path)
    for said in (
        "the first cell must be the title",
        "'3.2%' looks like a result",
        "(a1b2c3d4): give the cell a meaningful id",
        "outputs are stored",
        "an execution count is stored",
        "the id is used twice",
        "def uplift",
        "class Model",
        "parameters cell, line 1",
        "must end with finish()",
    ):
        assert sum(said in problem for problem in problems) == 1, said
    assert not any("0.5" in problem or "0.7" in problem for problem in problems)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().out.splitlines() == problems
    assert main(["check", str(EVERY_TYPE)]) == 0
    assert main(["check"]) == 2


def test_cleaning_mends_what_a_machine_can(tmp_path: Path) -> None:
    """Outputs and counts go, sources, ids and the nbmake mock stay; cleaning twice changes nothing."""
    path = dirty_notebook(tmp_path)
    notebook = json.loads(path.read_text())
    notebook["cells"][2]["metadata"]["nbmake"] = {"mock": {"seed": 1}}
    path.write_text(json.dumps(notebook))
    assert clean_stored(path)
    assert not clean_stored(path)
    assert not [problem for problem in check_stored(path) if "stored" in problem]
    cleaned = json.loads(path.read_text())
    assert cleaned["cells"][2]["metadata"]["nbmake"] == {"mock": {"seed": 1}}
    assert ["".join(cell["source"]) for cell in cleaned["cells"]] == [
        "".join(cell["source"]) for cell in notebook["cells"]
    ]


def test_absolute_paths_are_found() -> None:
    """A place below a root is found as written; a longer name that only begins alike is not."""
    text = "read '/home/me/project/data/x.csv', /home/me/project2/y and /home/me/project"
    assert absolute_paths_in(text, ["/home/me/project"]) == [
        "/home/me/project/data/x.csv",
        "/home/me/project",
    ]
    assert absolute_paths_in(text, ["/", "relative"]) == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, TypeError),
        (float("nan"), ValueError),
        ({"a": [float("inf")]}, ValueError),
        (np.float64("nan"), ValueError),
        (np.zeros(2), TypeError),
        ({1: "a"}, TypeError),
        ({"a": {1, 2}}, TypeError),
        (Path("x"), TypeError),
    ],
)
def test_records_are_strict(value: Any, kind: type[Exception]) -> None:
    """What has no strict JSON form is refused where it is recorded, also outside a kernel."""
    with pytest.raises(kind, match="record sample"):
        display.record("sample", value)


def test_a_cell_says_the_same_outside_a_kernel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a kernel nothing fails: values are checked, texts and tables are printed."""
    display.record(
        "metrics", {"sharpe": np.float64(1.5), "win_rate": None, "n": np.int64(3), "ok": np.bool_(True)}
    )
    display.show_markdown("**REJECT**: too little")
    display.show_table([{"symbol": "A|B", "hit_ratio": 0.5}], formats={"hit_ratio": ".1%"})
    display.show_table([], columns=["symbol"])
    display.finish()
    assert capsys.readouterr().out.splitlines() == [
        "**REJECT**: too little",
        "Symbol  Hit ratio",
        "A|B         50.0%",
        "Symbol",
    ]
    monkeypatch.delenv(display.STAGING_VARIABLE, raising=False)
    assert display.staged("data/models/x") == Path("data/models/x")
    monkeypatch.setenv(display.STAGING_VARIABLE, "/somewhere")
    assert display.staged("data/models/x") == Path("/somewhere")
