"""The rooms: who may import whom, and what the production side must never bring in."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sqkit"


def test_every_module_of_the_hall_stands_in_both_contracts() -> None:
    """A new module in the hall cannot slip past the import contracts."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    hall = {f"sqkit.{path.stem}" for path in PACKAGE.glob("*.py")} - {"sqkit.__init__", "sqkit.cli"}

    for contract in contracts[1:]:
        assert set(contract["source_modules"]) - {"sqkit.production"} == hall, contract["name"]


def _modules_after(code: str) -> set[str]:
    """Names of all modules loaded after running `code` in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(run.stdout.split())


def test_the_production_side_and_the_whole_hall_bring_in_no_research_library() -> None:
    """Importing all of it loads neither pandas nor scikit-learn, matplotlib or anything of Jupyter."""
    hall = [f"sqkit.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem not in {"__init__", "cli"}]

    loaded = _modules_after(f"import sqkit.production, {', '.join(hall)}")

    heavy = {
        "pandas",
        "sklearn",
        "matplotlib",
        "pyarrow",
        "onnx",
        "papermill",
        "nbconvert",
        "IPython",
        "jupyter_client",
    }
    assert not heavy & loaded


def test_the_command_line_loads_a_room_only_when_it_runs() -> None:
    """``sqkit --help`` needs neither numba nor onnxruntime nor pandas."""
    loaded = _modules_after("import sqkit.cli")

    assert not {"numba", "onnxruntime", "pandas", "sklearn", "pydantic"} & loaded


def test_no_market_data_of_a_vendor_is_named_in_the_package() -> None:
    """Neither a symbol nor a file of the test data stands in the package's code or data."""
    words = ("RELIANCE", "HINDALC", "NIFTY", "bhavcopy", "kaggle", "INFY", "TCS")

    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix in {".py", ".json", ".csv", ".j2", ".css"}:
            text = path.read_text(encoding="utf-8")
            found = [word for word in words if word in text]
            assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_nothing_is_unpickled() -> None:
    """No module of the package calls a function that runs code from a file."""
    banned = (
        "pickle.load",
        "joblib.load",
        "cloudpickle.load",
        "allow_pickle=True",
        "read_pickle",
        "yaml.load(",
    )

    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found = [word for word in banned if word in text]
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_the_wheel_holds_the_notebooks_and_the_package_data(tmp_path: Path) -> None:
    """An installed sqkit finds the notebooks, the session tables and the templates inside itself."""
    import zipfile

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())

    for wanted in (
        "sqkit/py.typed",
        "sqkit/notebooks/03_validate.ipynb",
        "sqkit/research/templates/report.html.j2",
    ):
        assert wanted in names
    assert any(name.startswith("sqkit/data_files/") for name in names)
