"""The pages that people read: their links lead somewhere, and what they show is so."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_PAGE = re.compile(r"\bdocs/(?:operating|decisions|settings)\b[\w/-]*\.md\b")
NAMED_FILE = re.compile(r"`((?:docs|fleet|inventory|lab|tasks|templates|tests)/[\w./-]+)`")


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in names.splitlines() if (path := ROOT / name).is_file()]


PAGES = tracked("*.md")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: list[str] = []
    seen: Counter[str] = Counter()
    for heading in re.findall(r"(?m)^#+ +(.+?) *$", FENCE.sub("", text)):
        plain = LINK.sub(lambda match: match.group(0)[1:].partition("]")[0], heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return set(found)


def dead_links(page: Path) -> list[str]:
    """Links of a page into this repository that lead nowhere."""
    dead = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        path = page.parent / place if place else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One `two`, three\n\n# Again\n\n# Again\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#one-two-three) [b](other.md#again-1) [c](#here) [d](https://x.example)\n"
        "# Here\n```\n[in a listing](none.md)\n# No heading\n```\n`[code](none.md)`\n"
    )
    assert dead_links(page) == []
    page.write_text("[a](none.md) [b](other.md#two) [c](other.md#again-2) [d](#no-heading)\n")
    assert dead_links(page) == ["none.md", "other.md#two", "other.md#again-2", "#no-heading"]


def test_pages_that_code_and_messages_name_are_there() -> None:
    """An operator reads `docs/...md` in a refusal, where no link is followed."""
    missing = [
        f"{name_of(path)}: {name}"
        for path in tracked("*.md", "*.py", "*.j2", "Makefile", "pyproject.toml")
        for name in NAMED_PAGE.findall(path.read_text())
        if not (ROOT / name).exists()
    ]
    assert missing == []


def test_messages_name_the_page_that_answers() -> None:
    """... not the index of all pages, which its generator alone names."""
    paths = tracked("fleet", "tasks", "templates")
    naming = [name_of(path) for path in paths if "docs/operating.md" in path.read_text()]
    assert naming == ["fleet/docs.py"]


def test_files_that_pages_name_are_there() -> None:
    """The changelog alone tells of what was."""
    missing = [
        f"{name_of(page)}: {name}"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for name in NAMED_FILE.findall(page.read_text())
        if not (ROOT / name).exists()
    ]
    assert missing == []


OPERATING = sorted((ROOT / "docs" / "operating").glob("*.md"))


def test_each_capability_has_a_page_and_the_index_lists_all() -> None:
    capabilities = {path.stem for path in (ROOT / "tasks").glob("*.py")} - {"__init__"}
    assert capabilities <= {page.stem for page in OPERATING}
    index = LINK.findall((ROOT / "docs" / "operating.md").read_text())
    assert sorted(index) == [f"operating/{page.name}" for page in OPERATING]


@pytest.mark.parametrize("page", OPERATING, ids=lambda path: path.stem)
def test_page_says_what_it_answers(page: Path) -> None:
    """... for the index; the index itself has a sentence about what is no failure."""
    if page.stem != "not-a-failure":
        assert re.match(r"# \S.*\n\n> \S.*\.\n\n", page.read_text())


@pytest.mark.parametrize("page", DECISIONS, ids=lambda path: path.stem)
def test_decision_says_what_it_is(page: Path) -> None:
    """Its number is that of the file; one that was given up names the one that follows it."""
    status = r"(accepted|superseded by \[\d{4}\]\(\d{4}-[\w-]+\.md\))"
    head = rf"# {page.name[:4]} \S.*\n\n- Status: {status}\n- Date: \d{{4}}-\d\d-\d\d\n\n\S"
    assert re.match(head, page.read_text()), f"{page.name} has to begin so: {head}"


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [page.name.partition("-")[0] for page in DECISIONS]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]


def claims() -> set[tuple[str, str]]:
    """Capability and claim of each compliance check, as its table has them."""
    found = set()
    for path in (ROOT / "tests" / "compliance").glob("test_*.py"):
        for item in ast.walk(ast.parse(path.read_text())):
            if isinstance(item, ast.FunctionDef) and item.name.startswith("test_"):
                claim = (ast.get_docstring(item) or item.name).partition("\n")[0].rstrip(".")
                found.add((path.stem.removeprefix("test_"), claim))
    return found


def test_readme_shows_what_make_lab_prints() -> None:
    listing = re.search(r"(?m)^    (ok|skip) .*\n(    .*\n)+", (ROOT / "README.md").read_text())
    assert listing
    lines = [line.removeprefix("    ") for line in listing[0].splitlines()]
    rows = [
        re.fullmatch(r"(ok  |skip)  (\w+) +(.+?)  (\d+)/(\d+)(  .+)?", line) for line in lines[:-3]
    ]
    assert len(rows) > 5
    known = claims()
    for line, row in zip(lines, rows, strict=False):
        assert row, line
        mark, capability, claim, passed, total, _ = row.groups()
        assert (capability, claim) in known, line
        assert mark == ("ok  " if int(passed) else "skip"), line
        assert int(passed) <= int(total), line
    question = re.search(r"fleet chat inventory/lab\.py '(.+)'", (ROOT / "Makefile").read_text())
    assert question
    asked, answer, speed = lines[-3:]
    assert re.fullmatch(rf"\S+ at http://\S+ with the key 'lab': {re.escape(question[1])}", asked)
    assert answer.startswith(" ")
    assert re.fullmatch(r"first token after \d+ ms", speed)
