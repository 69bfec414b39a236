"""What the library and the modules export, and whether the public headers stand alone."""
import re

import pytest

from imgtk_test import BUILD, MODULES, ROOT, execute, tool

HEADERS = sorted((ROOT / "core/include/imgtk").glob("*.h"))
MODULE_SYMBOLS = {"imgtk_driver_v1", "imgtk_storage_v1", "imgtk_digest_v1"}


def exported(path):
    """The names that a library exports, without the names of symbol versions."""
    lines = execute([tool("nm"), "-D", "--defined-only", path]).out.splitlines()
    return {words[2].split("@")[0] for words in map(str.split, lines) if words[1] != "A"}


def declared():
    """The functions that the public headers promise."""
    text = "".join(re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S) for path in HEADERS)
    return set(re.findall(r"^IMGTK_API\b[^;{]*?\b(imgtk_\w+)\(", text, flags=re.M)) - MODULE_SYMBOLS


def test_library_exports_what_the_headers_declare():
    found = exported(BUILD / "lib/libimgtk.so")
    assert len(declared()) > 40
    assert sorted(found - declared()) == [], "exported, but in no public header"
    assert sorted(declared() - found) == [], "in a public header, but not exported"


def listed():
    """The symbols of conf/libimgtk.symbols, each with its version, and the release that it came with."""
    lines = (ROOT / "conf/libimgtk.symbols").read_text().splitlines()
    assert lines[:2] == ["libimgtk.so.1 libimgtk1 #MINVER#", "* Build-Depends-Package: libimgtk-dev"]
    return dict(line.split() for line in lines[2:])


def test_exports_and_their_versions_are_those_of_the_list():
    lines = execute([tool("nm"), "-D", "--defined-only", BUILD / "lib/libimgtk.so"]).out.splitlines()
    found = {words[2].replace("@@", "@") for words in map(str.split, lines) if words[1] != "A"}
    versions = {f"{symbol.split('@')[1]}@{symbol.split('@')[1]}" for symbol in found}
    assert sorted((found | versions) - listed().keys()) == [], "exported, and not in conf/libimgtk.symbols"
    assert sorted(listed().keys() - found - versions) == [], "in conf/libimgtk.symbols, and not exported: the ABI is broken"


def test_the_list_is_sorted_and_names_releases():
    names, releases = list(listed()), listed().values()
    assert names == sorted(names)
    assert all(re.fullmatch(r"[0-9]+(\.[0-9]+)+", release) for release in releases)


@pytest.mark.parametrize("module", sorted(MODULES.rglob("*.so")), ids=lambda path: path.stem)
def test_module_exports_one_symbol(module):
    # The sanitizers' own begin with two underscores.
    found = {name for name in exported(module) if not name.startswith("__")}
    assert len(found) == 1 and found < MODULE_SYMBOLS, found


@pytest.mark.parametrize("compiler", [["cc", "-std=c11", "-xc"], ["c++", "-std=c++11", "-xc++"]],
                         ids=["c11", "c++11"])
@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_header_compiles_alone(header, compiler):
    execute([tool(compiler[0]), *compiler[1:], "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror",
             "-I", ROOT / "core/include", "-include", header, "/dev/null"])
