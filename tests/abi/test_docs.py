"""The pages are true where a machine can tell: links lead somewhere, and the commands of the README exist."""
import re

import pytest

from imgtk_test import ROOT, imgtk

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_commands_of_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    shell = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S))
    used = set(re.findall(r"^imgtk (\w+)", shell, flags=re.M))
    known = set(re.findall(r"^  (\w+) ", imgtk("--help").out, flags=re.M))
    assert used and used <= known


def test_the_readme_has_exactly_two_commands_of_setup():
    assert re.findall(r"^\./setup.*", (ROOT / "README.md").read_text(), flags=re.M) == ["./setup demo", "./setup test"]
