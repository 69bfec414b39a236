"""The pages are true where a machine can tell: links lead somewhere, and the commands of the README exist."""
import re

import pytest

from imgtk_test import ROOT, imgtk

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def text_of(page):
    """Without what stands between code marks, which is no link."""
    return re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", "", page.read_text())


def anchors(page):
    """The fragments by which the headings of a page can be reached."""
    titles = re.findall(r"(?m)^#+ (.+?)\s*$", re.sub(r"(?ms)^```.*?^```", "", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def is_broken(page, link):
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    assert [link for link in links if "://" not in link and is_broken(page, link)] == []


def test_broken_links_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One title, `code`\n")
    assert not is_broken(page, "#one-title-code") and not is_broken(page, "page.md")
    assert is_broken(page, "#two-titles") and is_broken(page, "page.md#two-titles") and is_broken(page, "other.md")


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", ROOT / "docs/architecture.md", ROOT / "docs/testing.md"],
                         ids=lambda page: page.name)
def test_files_that_are_spoken_of_exist(page):
    """`core/opts.c` and the like; a name with NAME, a star or a build folder in it stands for others."""
    names = re.findall(r"`((?:cli|conf|core|digests|docs|formats|serve|storage|tests)/[\w./-]+)`", page.read_text())
    assert names and [name for name in names if "NAME" not in name and not (ROOT / name).exists()] == []


def test_commands_of_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    shell = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S))
    used = set(re.findall(r"^imgtk (\w+)", shell, flags=re.M))
    known = set(re.findall(r"^  (\w+) ", imgtk("--help").out, flags=re.M))
    assert used and used <= known


def test_the_readme_has_exactly_two_commands_of_setup():
    assert re.findall(r"^\./setup.*", (ROOT / "README.md").read_text(), flags=re.M) == ["./setup demo", "./setup test"]
