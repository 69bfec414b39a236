"""The manual pages tell all that the tables in the code hold, and are sound man(7)."""
import json
import re

import pytest

from help_texts import COMMANDS, exit_codes, section, spellings
from imgtk_test import BUILD, ROOT, execute, imgtk, missing, tool

PAGES = sorted(page.name[:-len(".in")] for page in (ROOT / "docs/man").glob("*.in"))


def page_path(page):
    path = BUILD / "man" / page
    if not path.exists():
        missing(f"{path} is not there: an installed imgtk is tested")
    return path


def manual(page):
    return page_path(page).read_text().replace("\\-", "-").replace("\\(aq", "'")


def tagged(page):
    """The lines that begin a paragraph with a tag."""
    return re.findall(r"(?m)^\.TP\n(\..*)$", manual(page))


@pytest.mark.parametrize("page", PAGES)
def test_page_is_sound(page):
    result = execute([tool("mandoc"), "-T", "lint", "-W", "warning", page_path(page)], code=None)
    assert (result.code, result.out) == (0, "")
    assert not re.search(r"@[A-Z_]+@", manual(page))


@pytest.mark.parametrize("command", COMMANDS)
def test_page_has_every_option_and_exit_code(command):
    tags = tagged(f"imgtk-{command}.1")
    bold = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+|-[A-Za-z])(?![\w-])", "\n".join(tags)))
    assert set(spellings(command)) <= bold
    assert {f".B {code}" for code in exit_codes(command)} <= set(tags)
    assert all(line.strip() in manual(f"imgtk-{command}.1") for line in section(command, "Examples"))


def test_main_page_has_every_command():
    text = manual("imgtk.1")
    assert all(text.count(f".BR imgtk-{command} (1)") >= 2 for command in COMMANDS)


def test_configuration_page_has_every_key():
    shipped = (ROOT / "conf/imgtk.yaml").read_text()
    keys = set(re.findall(r"(?m)^#?([a-z_]+):", shipped))
    assert keys == set(re.findall(r"(?m)^\.BR ([a-z_]+) \": ", manual("imgtk.yaml.5")))


def test_formats_page_has_every_option_of_every_module():
    chapters = dict(re.findall(r"(?ms)^\.SS (\w+)\n(.*?)(?=^\.S[SH])", manual("imgtk-formats.5")))
    modules = json.loads(imgtk("formats", "--output=json").out)
    assert set(chapters) == {module["name"] for module in modules if module["kind"] != "digest"}
    for module in modules:
        if module.get("write"):
            names = re.findall(r"(?m)^  (\w+)=<", imgtk("create", "-f", module["name"], "-o", "help").out)
            assert set(names) <= set(re.findall(r"(?m)^\.BI ([\w-]+)= ", chapters[module["name"]])), module["name"]


@pytest.mark.parametrize("header, table", [("driver.h", "imgtk_driver"), ("storage.h", "imgtk_storage_ops"),
                                           ("digest.h", "imgtk_digest")])
def test_module_page_has_every_member(header, table):
    text = (ROOT / "core/include/imgtk" / header).read_text()
    body = re.search(rf"(?ms)^struct {table} {{\n(.*?)^}};", text).group(1)
    members = re.findall(r"(?m)^    [^/*\n][^/\n(;]*?(?:\(\*(\w+)\)\(|\b(\w+);)", body)
    names = {one or other for one, other in members}
    assert len(names) > 8
    bold = " ".join(line for line in manual("imgtk-module.7").splitlines() if line.startswith((".B", "edit_", '", ')))
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", bold)] == []
