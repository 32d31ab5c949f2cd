"""The README and docs/cli.md say what is true of the commands."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lbproc.cli import main
from lbproc.cli.group import COMMANDS

ROOT = Path(__file__).parents[2]
CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def leaves() -> list[tuple[str, click.Command]]:
    """Every command that does something, by its full name."""
    found = []
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", leaf) for inner, leaf in command.commands.items()]
        elif command is not None:
            found.append((name, command))
    return found


@pytest.mark.parametrize(("name", "command"), leaves(), ids=[name for name, _ in leaves()])
def test_page_has_a_section_with_every_option(name: str, command: click.Command) -> None:
    _, _, section = CLI_PAGE.partition(f"\n## lbproc {name}\n")
    usage = section.split("```")[1]
    assert f"lbproc {name}" in usage
    for parameter in command.params:
        assert (
            any(option in usage for option in parameter.opts)
            or (parameter.metavar or parameter.name.upper()) in usage
        )


def test_page_has_no_command_that_is_not_there() -> None:
    sections = re.findall(r"^## lbproc (.+)$", CLI_PAGE, re.MULTILINE)
    assert sections == [name for name, _ in leaves()]


@pytest.mark.parametrize("number", range(README.count("```toml")))
def test_configurations_of_the_readme_can_be_used(number: int, tmp_path: Path) -> None:
    text = README.split("```toml\n")[number + 1].split("```")[0]
    path = tmp_path / "lbproc.toml"
    path.write_text(text)
    result = CliRunner().invoke(main, ["check", "-c", str(path)], env={})
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/README.md",
        "docs/cli.md",
        "docs/development.md",
        "docs/status.md",
        "docs/threat-model.md",
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
