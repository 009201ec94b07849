"""What the documents say of the project is so: links, names of modules and tests, commands, refusals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqkit import errors
from sqkit.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "data/README.md", "reports/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def page_names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings as GitHub makes them, and explicit ids."""
    text = prose(page)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=page_names)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link names a file that is there, and a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_every_module_has_its_row() -> None:
    """Section 7 of the architecture names each module of hall, production room and command line, and no other."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    tables = text.split("## 7. Modules")[1].split("## Section 17")[0]
    hall, rest = tables.split("### Production")
    production, research = rest.split("### Research")

    assert named(hall) == modules("sqkit") | modules("sqkit/cli")
    assert named(production) == modules("sqkit/production")
    assert named(research) <= modules("sqkit/research")


def named(table: str) -> set[str]:
    return {name.removeprefix("cli/") for name in re.findall(r"`([a-z_/]+\.py)`", table)}


def modules(folder: str) -> set[str]:
    return {path.name for path in (ROOT / folder).glob("*.py") if not path.name.startswith("__")}


@pytest.mark.parametrize("page", PAGES, ids=page_names)
def test_modules_and_tests_that_are_named_exist(page: Path) -> None:
    """A Python file or test function in backticks is one of the project's."""
    files = {
        path.name for folder in ("sqkit", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    }
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    functions = set(re.findall(r"\bdef (test_\w+)\(", written))
    text = prose(page)

    for name in re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", text):
        assert name in files | GIVEN, name
    for name in re.findall(r"`(test_\w+)`", text):
        assert name in functions, name


GIVEN = frozenset(("config.py", "teacher_student.py", "train_student.py", "f.py"))
"""Files that the user's text names, and one of an example."""


def commands(page: Path) -> Iterator[list[str]]:
    """Every ``sqkit ...`` in backticks, and every line of a block that begins with it, in words."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^(?:\$ )?(sqkit [a-z].*)$", block, re.MULTILINE):
            yield [word.rstrip(",;:") for word in line.split("#")[0].split()[1:]]
    for words in re.findall(r"`(sqkit [a-z][^`]*)`", prose(page)):
        yield [word.rstrip(",;:") for word in words.split()[1:]]


@pytest.mark.parametrize("page", PAGES, ids=page_names)
def test_every_command_that_is_named_exists(page: Path) -> None:
    """A command and each of its options are those of the command line."""
    for words in commands(page):
        here, left = app, list(words)
        while left and re.fullmatch(r"[a-z-]+", left[0]) and left[0] in here:
            here = here[left.pop(0)]
        assert here is not app, words
        takes = here.assemble_argument_collection() if here.default_command else ()
        known = {name for one in takes for name in one.names}
        options = {re.match(r"--[a-z-]+", word) for word in left if word.startswith("--")}
        for option in options:
            assert option is not None, words
            assert option[0] in known | {"--help", "--debug"}, words


def test_every_refusal_of_the_production_room_has_a_next_step() -> None:
    """A class of refusal that the production room raises has its row in docs/promotion.md, with its exit code."""
    rows = [
        line.split("|")
        for line in (ROOT / "docs/promotion.md").read_text(encoding="utf-8").splitlines()
        if re.match(r"\| `[A-Z]\w+`", line)
    ]
    said = {name: row[2] for row in rows for name in re.findall(r"`([A-Z]\w+)`", row[1])}
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "sqkit/production").glob("*.py"))
    raised = {
        name
        for name in re.findall(r"\braise (\w+)\(|return (\w+)\(\n?\s*f\"", written)
        for name in name
        if isinstance(getattr(errors, name, None), type)
    }

    assert raised
    for name in raised:
        assert name in said, name
        assert str(getattr(errors, name).exit_code) in said[name], name
    assert not [name for name in said if not hasattr(errors, name)]
