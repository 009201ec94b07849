"""Reports need nothing but themselves, read well, and their manifest knows every byte of them."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sqkit.artifacts import CHECKLIST_FILE
from sqkit.errors import ArtifactChanged, ConflictError, ReportIncomplete, UsageError
from sqkit.files import read_json
from sqkit.report_manifest import MANIFEST, run_naming, verify_manifest
from sqkit.research.manifest import (
    NotebookRun,
    carry_page,
    next_run_number,
    training_report_folder,
    write_manifest,
)
from sqkit.research.notebooks import read_records, run_notebook
from sqkit.research.report_index import SUMMARY_RECORD, build_index
from sqkit.research.reports import github_markdown, prose_html, render_html, render_markdown, write_report

NOTEBOOKS = Path(__file__).parent / "notebooks"
SAMPLE = NOTEBOOKS / "sample_report.ipynb"
SUMMARY = {
    "strategy": "swing",
    "window": "2011-01-03 to 2012-12-31",
    "symbols": ["ALPHA", "BETA"],
    "recommendation": "REJECT",
    "reason": "precision uplift 1.2% < 2.0% | and <more>",
    "grade": "weak",
    "trials": {"n_trials": 1, "ledger_lines": 2, "ledger_head": "a" * 64},
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample notebook, run once with one parameter changed, and its pages."""
    folder = tmp_path_factory.mktemp("report")
    run_notebook(SAMPLE, folder / "validate.ipynb", {"threshold": 0.55}, cwd=folder)
    names = write_report(folder / "validate.ipynb", folder, "validate", links={"Training": "train.html"})
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == names
    return folder


class Page(HTMLParser):
    """Tags with their attributes, and the text in reading order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the text, not the style sheet."""
        if data.strip() and (not self.tags or self.tags[-1][0] != "style"):
            self.texts.append(data.strip())

    def named(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of every tag of that name."""
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    """The HTML page, parsed."""
    return Page((report / "validate.html").read_text())


def test_html_stands_alone(report: Path, page: Page) -> None:
    """No script, nothing loaded from anywhere, and small enough for a repository."""
    text = (report / "validate.html").read_text()
    assert len(text) < 400_000
    assert not page.named("script")
    assert not page.named("link")
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.named("img"))
    assert not re.findall(r"(?:src|href)=[\"']https?:", text)
    assert "url(" not in text
    assert "@import" not in text


def test_html_opens_with_the_verdict(page: Page) -> None:
    """The recommendation and its reason come before the title, and name the tab."""
    assert page.texts[0] == "REJECT · Validation of a sample model"
    assert page.texts[1] == "REJECT"
    assert page.texts[2].startswith("precision uplift 1.2% < 2.0%")
    assert page.texts.index("Validation of a sample model") > 2
    assert any(attributes.get("class") == "verdict reject" for attributes in page.named("div"))


def test_html_has_figures_with_words_and_code_folded(page: Page) -> None:
    """Four figures with alternative text; code only inside closed details; cells are anchors."""
    assert page.named("img")[0]["alt"] == (
        "Growth of one unit and drawdown of candidate, baseline and buy-and-hold"
    )
    assert len(page.named("img")) == 4
    assert all(image["alt"] for image in page.named("img"))
    assert not any("open" in attributes for attributes in page.named("details"))
    assert len(page.named("details")) == 4
    sections = [section["id"] for section in page.named("section")]
    assert {"verdict", "equity", "calls", "symbols", "limits"} <= set(sections)
    assert not {"imports", "record", "injected-parameters"} & set(sections)


def test_tables_are_aligned_and_absent_values_named(page: Page, report: Path) -> None:
    """Numbers to the right with separators; None reads n/a; what was changed is marked."""
    text = (report / "validate.html").read_text()
    assert '<td class="number">12,345.68</td>' in text
    assert "<td>ALPHA</td>" in text
    assert '<td class="number">n/a</td>' in text
    assert '<tr class="changed"><td><code>threshold</code></td><td>0.55</td><td>0.6</td>' in text
    assert text.count('class="changed"') == 1


def test_dollars_stay_dollars(report: Path) -> None:
    """ "$5 and $6" is money on both pages, never maths; code is left alone."""
    assert (
        "Costs were $5 and $6 a trade; the code <code>$HOME</code> stays."
        in (report / "validate.html").read_text()
    )
    assert r"Costs were \$5 and \$6 a trade; the code `$HOME` stays." in (report / "validate.md").read_text()


def test_markdown_reads_on_github(report: Path) -> None:
    """Verdict first; figures are files that exist; no data address, style or HTML table; links lead to pages."""
    text = (report / "validate.md").read_text()
    lines = text.splitlines()
    assert lines[0] == "**REJECT**: precision uplift 1.2% < 2.0%, missed by 0.8 points."
    for forbidden in ("data:", "<style", "<table", "<script", "show_figure("):
        assert forbidden not in text
    figures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert [path for _, path in figures] == [
        f"figures/validate-{name}.png"
        for name in ("equity_and_drawdown", "confidence", "calibration", "confusion")
    ]
    for words, path in figures:
        assert words
        with Image.open(report / path) as picture:
            assert picture.width == 990
    assert "| Symbol | Sessions | Hit ratio | Net P&L | Sharpe |\n| --- | ---: | ---: | ---: | ---: |" in text
    assert "[equity](validate.md#equity)" in text
    assert "[Training](train.md)" in text
    assert '<a id="equity"></a>' in text
    assert "- [ ] Costs are a schedule" in text
    assert "250 sessions, 2 symbols" in text


def test_markdown_figures_are_the_pages_figures(report: Path) -> None:
    """The files beside the Markdown are byte for byte the pictures inside the HTML."""
    import base64

    inside = re.findall(r"data:image/png;base64,([^\"]+)", (report / "validate.html").read_text())
    beside = re.findall(r"\((figures/[^)]+)\)", (report / "validate.md").read_text())
    assert [base64.b64decode(picture) for picture in inside] == [
        (report / name).read_bytes() for name in beside
    ]


def executed(*outputs: dict[str, Any], source: str = "show()") -> dict[str, Any]:
    """A small executed notebook with these outputs."""
    code = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "shown",
        "metadata": {},
        "outputs": list(outputs),
        "source": source,
    }
    return {"cells": [code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def shown(**data: str) -> dict[str, Any]:
    """A display output of ``text_html`` and the like."""
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {name.replace("_", "/"): value for name, value in data.items()},
    }


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("**PROMOTE**: every criterion passed", "promote"),
        ("INSUFFICIENT_EVIDENCE: 12 of 60 session days", "insufficient_evidence"),
        ("# REJECT\n\nmore", "reject"),
        ("The candidate may PROMOTE itself", None),
        ("PROMOTED", None),
    ],
)
def test_a_verdict_is_recognised_at_the_beginning_only(text: str, word: str | None) -> None:
    """Only a recommendation that opens the first output becomes the banner, and it is shown once."""
    notebook = executed(shown(text_markdown=text, text_plain=text), shown(text_markdown="PROMOTE: later"))
    found = re.findall(r'<div class="verdict (\w+)"', render_html(notebook))
    assert found == ([word] if word else [])


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        "<img src='https://example.org/x.png'>",
        "<link rel='stylesheet' href='x.css'>",
        "<p style='background: url(//example.org/x)'>x</p>",
    ],
)
def test_a_page_that_would_load_something_is_refused(html: str) -> None:
    """An output with a script or an outside picture stops the report instead of slipping in."""
    with pytest.raises(ReportIncomplete, match="load something from outside"):
        render_html(executed(shown(text_html=html, text_plain="x")))


def test_hostile_text_is_text() -> None:
    """Markup in plain output, prose and code is shown, not obeyed; fences cannot be broken out of."""
    notebook = executed(
        {"output_type": "stream", "name": "stdout", "text": "<script>alert(1)</script>\n```\n# no heading"},
        shown(text_markdown="<script>alert(2)</script>", text_plain="x"),
        source="'<script>alert(3)</script>'",
    )
    assert not Page(render_html(notebook)).named("script")
    assert (
        "````text\n<script>alert(1)</script>\n```\n# no heading\n````"
        in render_markdown(notebook, name="x")[0]
    )


def test_prose_is_markdown() -> None:
    """Tables, task lists and code survive; links to pages change for Markdown only when relative."""
    assert '<input class="task-list-item-checkbox" type="checkbox" disabled/>' in prose_html("- [ ] later")
    assert '<td style="text-align:right">' in prose_html("| a |\n| ---: |\n| 1 |")
    assert github_markdown("[a](b.html#c) [d](https://e.org/f.html) \\$1") == (
        "[a](b.md#c) [d](https://e.org/f.html) \\$1"
    )


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def counting_proxy() -> Iterator[tuple[int, list[str]]]:
    """A proxy that answers nothing and keeps the first line of every request."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        asked.append(connection.recv(4096).decode("latin1").split("\r\n")[0])

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)


def screenshot(page: Path, picture: Path, profile: Path) -> list[str]:
    """Open a page in headless Chromium; the requests it made."""
    assert CHROMIUM is not None
    with counting_proxy() as (port, asked):
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += ["--disable-features=NetworkTimeServiceQuerying"]  # the browser's own clock
        command += [f"--user-data-dir={profile}", f"--proxy-server=http://127.0.0.1:{port}"]
        command += [f"--screenshot={picture}", "--window-size=1100,3000", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return asked


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_chromium_draws_the_page_without_the_network(report: Path, tmp_path: Path) -> None:
    """A real browser asks nobody for anything and draws banner and figures; a page that asks is noticed."""
    picture = tmp_path / "page.png"
    asked = screenshot(report / "validate.html", picture, tmp_path / "profile")
    assert [line for line in asked if line.startswith("GET")] == []
    with Image.open(picture) as drawn:
        assert drawn.size == (1100, 3000)
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert (0xB3, 0x26, 0x1E) in colours  # the banner's edge
    assert (0x00, 0x72, 0xB2) in colours  # the candidate's line
    (tmp_path / "asking.html").write_text("<img src='http://example.org/x.png'>")
    asked = screenshot(tmp_path / "asking.html", picture, tmp_path / "profile")
    assert "GET http://example.org/x.png HTTP/1.1" in asked


def manifest_of(reports: Path, report: Path, project: Path, number: int = 1) -> Path:
    """A published run folder with its manifest, and its artifacts in the project."""
    folder = reports / f"20200101_000000-v{number}"
    shutil.copytree(report, folder)
    student = project / "data" / "models" / "20200101_000000" / "student"
    (student / "validation_telemetry").mkdir(parents=True, exist_ok=True)
    (student / "validation_results.json").write_text('{"a": 1}')
    (student / "validation_telemetry" / "ALPHA.parquet").write_bytes(b"rows")
    write_manifest(
        folder,
        version="20200101_000000",
        notebooks={"validate": NotebookRun(SAMPLE, {"threshold": 0.55})},
        artifacts_folder=student,
        artifacts_name="data/models/20200101_000000/student",
        artifacts=["validation_results.json", "validation_telemetry/ALPHA.parquet"],
        summary=SUMMARY,
    )
    return folder


def test_manifest_holds_every_digest_and_no_place(report: Path, tmp_path: Path) -> None:
    """Same report, same bytes, wherever it lies; pages, figures, artifacts, source and package are in it."""
    one = manifest_of(tmp_path / "a", report, tmp_path / "a")
    two = manifest_of(tmp_path / "b" / "deeper", report, tmp_path / "b")
    assert (one / MANIFEST).read_bytes() == (two / MANIFEST).read_bytes()
    manifest = read_json(one / MANIFEST)
    assert set(manifest["files"]) == {str(path.relative_to(report)) for path in report.rglob("*.*")}
    assert manifest["summary"] == SUMMARY
    assert manifest["notebooks"]["validate"]["source"] == "sample_report.ipynb"
    assert len(manifest["package"]) == 64
    assert str(tmp_path) not in (one / MANIFEST).read_text()
    assert verify_manifest(one, tmp_path / "a") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f, s: (f / "validate.html").write_text("x"), "validate.html: changed"),
        (lambda f, s: (f / "validate.md").unlink(), "validate.md: missing"),
        (lambda f, s: (f / "extra.html").write_text("x"), "extra.html: not in the manifest"),
        (lambda f, s: (s / "validation_results.json").write_text("{}"), "validation_results.json: changed"),
        (lambda f, s: (s / "validation_telemetry" / "ALPHA.parquet").unlink(), "ALPHA.parquet: missing"),
        (
            lambda f, s: (f / MANIFEST).write_text((f / MANIFEST).read_text().replace("0.55", "0.5")),
            "parameters of validate differ",
        ),
    ],
)
def test_every_change_after_the_run_is_found(
    report: Path, tmp_path: Path, change: Callable[[Path, Path], Any], said: str
) -> None:
    """One changed, missing or added file, or a changed parameter, is named in one line."""
    folder = manifest_of(tmp_path / "reports", report, tmp_path)
    change(folder, tmp_path / "data" / "models" / "20200101_000000" / "student")
    differences = verify_manifest(folder, tmp_path)
    assert len(differences) == 1
    assert said in differences[0]


def test_artifacts_of_an_earlier_validation_are_found_where_they_went(report: Path, tmp_path: Path) -> None:
    """A later validation moves artifacts to validations/v1; the first report still verifies, and still notices."""
    folder = manifest_of(tmp_path / "reports", report, tmp_path)
    student = tmp_path / "data" / "models" / "20200101_000000" / "student"
    earlier = student / "validations" / "v1"
    earlier.mkdir(parents=True)
    (student / "validation_results.json").rename(earlier / "validation_results.json")
    (student / "validation_telemetry").rename(earlier / "validation_telemetry")
    (student / "validation_results.json").write_text('{"a": 2}')
    assert verify_manifest(folder, tmp_path) == []
    (earlier / "validation_results.json").write_text("{}")
    assert verify_manifest(folder, tmp_path) == [
        "data/models/20200101_000000/student/validations/v1/validation_results.json: changed since the report was made"
    ]


def test_a_manifest_is_refused_over_half_a_report(report: Path, tmp_path: Path) -> None:
    """A page or artifact that is not there, a summary that is not whole, or a place of this run: no manifest."""
    folder = manifest_of(tmp_path / "reports", report, tmp_path)
    (folder / MANIFEST).unlink()
    student = tmp_path / "data" / "models" / "20200101_000000" / "student"
    right: dict[str, Any] = {
        "version": "v",
        "notebooks": {"validate": NotebookRun(SAMPLE, {})},
        "artifacts_folder": student,
        "artifacts_name": "data",
        "artifacts": [],
        "summary": SUMMARY,
    }
    for wrong, kind in (
        ({"notebooks": {"checklist": NotebookRun(SAMPLE, {})}}, ReportIncomplete),
        ({"artifacts": ["parity.json"]}, ReportIncomplete),
        ({"notebooks": {"validate": NotebookRun(SAMPLE, {"bars": f"{student}/x"})}}, ReportIncomplete),
        ({"summary": {"strategy": "swing"}}, UsageError),
    ):
        with pytest.raises(kind):
            write_manifest(folder, **{**right, **wrong})
        assert not (folder / MANIFEST).exists()
    (folder / MANIFEST).write_text("[]")
    with pytest.raises(ArtifactChanged, match="not a manifest"):
        verify_manifest(folder, tmp_path)


def test_run_numbers(report: Path, tmp_path: Path) -> None:
    """Training leaves v1 open, the first validation completes it, later ones count on; versions do not mix."""
    reports = tmp_path / "reports"
    assert next_run_number(reports, "20200101_000000") == 1
    assert training_report_folder(reports, "20200101_000000").name == "20200101_000000-v1"
    (reports / "20200101_000000-v1").mkdir(parents=True)
    (reports / "20200101_000001-v7").mkdir()
    assert next_run_number(reports, "20200101_000000") == 1
    (reports / "20200101_000000-v1").rmdir()
    manifest_of(reports, report, tmp_path)
    assert next_run_number(reports, "20200101_000000") == 2
    (reports / "20200101_000000-v10").mkdir()
    assert next_run_number(reports, "20200101_000000") == 11
    with pytest.raises(ConflictError, match="has been validated"):
        training_report_folder(reports, "20200101_000000")


def test_a_page_is_carried_unchanged_if_it_speaks_of_the_same_model(tmp_path: Path, report: Path) -> None:
    """Pages and figures come along byte for byte; those of another model of the same version stay."""
    first = tmp_path / "reports" / "v-v1"
    (first / "figures").mkdir(parents=True)
    for name in ("train.html", "train.md", "validate.html", "figures/train-a.png", "figures/validate-a.png"):
        (first / name).write_text(name)
    shutil.copyfile(report / "validate.ipynb", first / "train.ipynb")
    recorded = {
        name: value for name, value in read_records(first / "train.ipynb").items() if isinstance(value, str)
    }
    name, value = next(iter(recorded.items()))

    carried = carry_page(tmp_path / "reports", "v", tmp_path / "staging", "train", {name: value})
    other = carry_page(tmp_path / "reports", "v", tmp_path / "other", "train", {name: "another"})

    assert sorted(carried) == ["figures/train-a.png", "train.html", "train.ipynb", "train.md"]
    assert all((tmp_path / "staging" / each).read_bytes() == (first / each).read_bytes() for each in carried)
    assert other == []
    assert not (tmp_path / "other").exists()


def test_the_index_lists_every_run_newest_first(report: Path, tmp_path: Path) -> None:
    """Validated runs with recommendation and reason, a training without manifest as such, working links, no script."""
    reports = tmp_path / "reports"
    manifest_of(reports, report, tmp_path)
    manifest_of(reports, report, tmp_path, number=10)
    manifest_of(reports, report, tmp_path, number=2)
    trained = reports / "20210101_000000-v1"
    trained.mkdir()
    record = {"name": SUMMARY_RECORD, "data": {"strategy": "intraday", "symbols": ["GAMMA"]}}
    output = {
        "output_type": "display_data",
        "data": {"application/scrapbook.scrap.json+json": record},
        "metadata": {},
    }
    (trained / "train.ipynb").write_text(json.dumps(executed(output)))
    (trained / "train.html").write_text("<p>trained</p>")
    (reports / ".20220101_000000-v1.x.staging").mkdir()
    runs = build_index(reports, tmp_path)
    assert [run["folder"] for run in runs] == [
        "20210101_000000-v1",
        "20200101_000000-v10",
        "20200101_000000-v2",
        "20200101_000000-v1",
    ]
    text, markdown = (reports / "index.html").read_text(), (reports / "index.md").read_text()
    page = Page(text)
    assert not page.named("script")
    targets = [str(link["href"]) for link in page.named("a")]
    assert targets
    assert all((reports / target).is_file() for target in targets)
    assert "precision uplift 1.2% < 2.0% | and <more>" in page.texts
    assert r"precision uplift 1.2% &lt; 2.0% \| and &lt;more> | [validate]" in markdown
    assert "trained, not validated yet" in page.texts
    assert "| intraday |" in markdown
    assert all(line.count(" | ") == 9 for line in markdown.splitlines() if line.startswith("| 20"))
    before = text, markdown
    build_index(reports, tmp_path)
    assert before == ((reports / "index.html").read_text(), (reports / "index.md").read_text())


def test_an_index_of_nothing(tmp_path: Path) -> None:
    """No run yet is said, with what to do."""
    assert build_index(tmp_path / "reports") == []
    assert "make validate" in (tmp_path / "reports" / "index.md").read_text()


def test_a_damaged_manifest_hides_no_other_run(tmp_path: Path) -> None:
    """What a broken report says of itself is nothing; the run that names the artifacts is still found."""
    digest = "a" * 64
    whole = {"artifacts": {"folder": "data/models/x/student", "files": {CHECKLIST_FILE: digest}}}
    for name, text in (
        ("20250101_000000-v1", json.dumps(whole)),
        ("20250102_000000-v1", "{}"),
        ("20250103_000000-v1", "[]"),
        ("20250104_000000-v1", "{not json"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text(text)

    found = run_naming(tmp_path, "data/models/x/student", digest)

    assert found == tmp_path / "20250101_000000-v1"
    assert run_naming(tmp_path, "data/models/y/student", digest) is None
