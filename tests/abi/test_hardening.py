"""How the programs and libraries that ship are linked, read from the ELF files themselves."""
import re

import pytest

from imgtk_test import BUILD, IMGTK, MODULES, execute, tool

ELF_FILES = [IMGTK, *sorted((BUILD / "lib").glob("libimgtk.so.*.*")), *sorted(MODULES.rglob("*.so")),
             *sorted((BUILD / "nbdkit").glob("*.so"))]
names = pytest.mark.parametrize("path", ELF_FILES, ids=lambda path: path.name)


def readelf(*words):
    return execute([tool("readelf"), "-W", *words]).out


@names
def test_libraries_are_never_searched_for_in_the_current_folder(path):
    for found in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", readelf("-d", path)):
        for folder in found.split(":"):
            assert folder.startswith(("/", "$ORIGIN/")), found


@pytest.mark.unsanitized
@names
def test_is_hardened(path):
    dynamic, segments, header, symbols = (readelf(flag, path) for flag in ("-d", "-l", "-h", "-s"))
    assert re.search(r"BIND_NOW|FLAGS_1.*NOW", dynamic) and "GNU_RELRO" in segments
    assert re.search(r"GNU_STACK.*RW ", segments)
    assert "TEXTREL" not in dynamic
    assert "__stack_chk_fail" in symbols
    assert re.search(r"Type: +DYN", header)
    if "X86-64" in header:  # the property that turns it on needs a C library that has it, too
        assert "endbr64" in execute([tool("objdump"), "-d", "--section=.text", path]).out


@pytest.mark.unsanitized
def test_library_calls_are_fortified():
    assert "_chk@" in "".join(readelf("-s", path) for path in ELF_FILES)
