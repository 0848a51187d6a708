"""What the documents point at is there: files, headings, commands with their flags, targets of make, modules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from gateway.cli import app
from tests.support.gatewayprocess import ROOT

UsageError = typer.BadParameter.__mro__[1]  # typer brings a click of its own
COMMAND = typer.main.get_command(app)
WITH_DOCUMENTS = ("bench", "docs", "ext")


def documents() -> list[str]:
    found = [*ROOT.glob("*.md"), *(path for folder in WITH_DOCUMENTS for path in (ROOT / folder).rglob("*.md"))]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def anchors(document: Path) -> set[str]:
    """Its headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """Words of each `gateway ...` that stands on an indented line or begins a piece of code."""
    lines = re.findall(r"^ {4,}(?:later +)?(?:\.venv/bin/)?gateway ([a-z].*)$", text, re.MULTILINE)
    for line in lines:
        if not line.startswith("is ready"):  # what it says, not what it is asked
            yield shlex.split(re.split(r" {3,}", line)[0], comments=True)
    for code in re.findall(r"`gateway ([a-z][^`\n]*)`", text):
        yield [word for word in code.split() if not re.fullmatch(r"\.\.\.|\[.*|.*\]", word)]


def check(words: list[str]) -> None:
    """UsageError: there is no such command, or it has no such flag."""
    command = COMMAND
    context = typer.Context(command)
    while hasattr(command, "commands") and words:
        name, *words = words
        if "|" in name:
            for each in name.split("|"):
                assert each in command.commands, f"no command {each!r}"
            return
        if name.startswith("-"):
            break
        assert name in command.commands, f"no command {name!r}, expected one of {', '.join(command.commands)}"
        command = command.commands[name]
        context = typer.Context(command, parent=context)
    if not hasattr(command, "commands"):
        command.make_parser(context).parse_args([word for word in words if word != "--help"])


@pytest.mark.parametrize("document", documents())
def test_every_link_of_a_document_leads_somewhere(document: str) -> None:
    path = ROOT / document
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), f"{document}: {target} is not there"
        assert not anchor or anchor in anchors(there), f"{document}: {target}: no such heading"


@pytest.mark.parametrize("document", documents())
def test_every_command_in_a_document_exists_with_its_flags(document: str) -> None:
    for words in commands((ROOT / document).read_text()):
        try:
            check(list(words))
        except (UsageError, AssertionError) as error:
            raise AssertionError(f"{document}: gateway {' '.join(words)}: {error}") from None


@pytest.mark.parametrize("document", documents())
def test_every_target_and_module_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]*)", text, re.MULTILINE):
        assert target in targets, f"{document}: make {target}"
    for module in re.findall(r"python3? -m ((?:demo|bench|gateway)[.a-z_]*)", text):
        where = ROOT / module.rstrip(".").replace(".", "/")
        assert where.with_suffix(".py").exists() or (where / "__main__.py").exists(), f"{document}: python -m {module}"


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    """In one step or several: nobody finds the others."""
    reached, fresh = set(), [ROOT / "README.md"]
    while fresh:
        page = fresh.pop()
        reached.add(page)
        linked = re.findall(r"\]\(([^)\s#]+\.md)(?:#[^)]*)?\)", page.read_text())
        fresh += [
            there for name in linked if (there := (page.parent / name).resolve()) not in reached and there.exists()
        ]
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= {path.name for path in reached}


@pytest.mark.parametrize(
    "words", [["rute", "set"], ["route", "put"], ["predict", "wine", "--file", "x"], ["rollout", "plan|begin"]]
)
def test_a_command_that_is_not_there_is_found(words: list[str]) -> None:
    with pytest.raises((UsageError, AssertionError)):
        check(words)
