"""Every program, command and option that a page mentions is there, and every page that another one links to."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from orionfs.config.load import load_spec
from orionfs.errors import OrionError
from orionfs.tools.options import parse_options
from orionfs.tools.orionctl.main import COMMANDS, command_parser, load

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("mountpoints/*/README.md")])
EXAMPLES = sorted(path.parent for path in ROOT.glob("mountpoints/*/orionfs.toml"))

#: Code in a page: indented or fenced lines, and what stands between backquotes.
_CODE = re.compile(r"^ {4,}(?:[$#] )?(.+)$|`([^`\n]+)`", re.MULTILINE)


def code_in(page: Path) -> list[str]:
    text = re.sub(
        r"^```\w*\n(.*?)^```$", lambda m: re.sub("^", "    ", m[1], flags=re.M), page.read_text(), flags=re.M | re.S
    )
    return [block or inline for block, inline in _CODE.findall(text)]


def commands_in(page: Path, program: str) -> list[list[str]]:
    """The calls of *program* in the code of *page*, as words."""
    found = []
    for code in code_in(page):
        for part in re.split(r"\s*(?:&&|;|\||\$\()\s*", code):
            if part.split(" ")[0] == program:
                found.append(shlex.split(re.split(r"  +", part.rstrip(")"))[0])[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_orionctl_command_in_a_page_is_understood(page):
    for words in commands_in(page, "orionctl"):
        if not words or words[0].startswith("-"):
            continue
        assert words[0] in COMMANDS, words
        if len(words) > 1:
            parser = command_parser(words[0], load(words[0]))
            try:
                parser.parse_args(words[1:])
            except OrionError as error:
                pytest.fail(f"orionctl {shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_tool_and_link_in_a_page_is_there(page):
    for code in code_in(page):
        tool = code.split(" ")[0]
        if re.fullmatch(r"tools/[a-z-]+", tool):
            assert os.access(ROOT / tool, os.X_OK), tool
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fstab_line_in_a_page_has_options_that_exist(page):
    for code in code_in(page):
        fields = code.split()
        if len(fields) == 6 and fields[2] == "orionfs":
            parse_options(fields[3])


def test_the_first_screen_of_the_readme_has_the_two_commands():
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:24])
    assert "\n    tools/quickstart\n" in screen
    assert "\n    tools/run-tests\n" in screen


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_has_a_page_and_a_configuration_without_problems(folder):
    spec = load_spec(folder)
    assert spec.arrays
    page = (folder / "README.md").read_text()
    assert f"orionctl init mountpoints/{folder.name}\n" in page


def test_there_are_examples():
    assert {folder.name for folder in EXAMPLES} >= {"first-raid5", "first-mirror", "first-raid0", "nested"}
