"""What is installed for development is enough to build a module and programs, and to test that module."""
import os
import shutil

import pytest

from imgtk_test import (KIB, MIB, ROOT, assert_same_bytes, compressible, environment, execute, imgtk, make_raw,
                        tool)

EXAMPLES = ROOT / "docs/examples"
pytestmark = pytest.mark.unsanitized  # the sanitizers' libraries would have to be linked, too


def prefix(installed):
    [program] = installed.rglob("bin/imgtk")
    return program.parent.parent


def build(installed, source, folder, **definitions):
    """Configures and builds an example by CMake, from a copy: nothing of this tree is seen."""
    shutil.copytree(source, folder / "source")
    flags = "-Wall -Wextra -Wshadow -Wpedantic -Werror"
    defined = dict(definitions, CMAKE_PREFIX_PATH=prefix(installed), CMAKE_C_FLAGS=flags, CMAKE_CXX_FLAGS=flags)
    execute([tool("cmake"), "-G", "Ninja", "-S", folder / "source", "-B", folder / "build",
             *[f"-D{name}={value}" for name, value in defined.items()]])
    execute([tool("cmake"), "--build", folder / "build"])
    return folder / "build"


@pytest.fixture(scope="module")
def module(installed, tmp_path_factory):
    """The folder with the example's module, built by find_package() and imgtk_add_format()."""
    folder = tmp_path_factory.mktemp("module")
    build(installed, EXAMPLES / "mini", folder)
    (folder / "build").chmod(0o755)
    return folder / "build"


def conformance(installed, module, *words, cwd, **options):
    """The suite that is installed, with the program that is."""
    env = environment(IMGTK_MODULE_PATH=module, TMPDIR=cwd)
    return execute([prefix(installed) / "bin/imgtk-conformance", *words], cwd=cwd, env=env, **options)


def test_the_module_is_found(module):
    assert "mini" in imgtk("formats", env=environment(IMGTK_MODULE_PATH=module)).out


def test_the_module_is_installed_where_imgtk_looks(installed, module, tmp_path):
    execute([tool("cmake"), "--install", module], env=environment(DESTDIR=tmp_path))
    [found] = tmp_path.rglob("mini.so")
    [other] = installed.rglob("qcow2.so")
    assert found.relative_to(tmp_path).parent == other.relative_to(installed).parent


def test_the_module_conforms(installed, module, tmp_path):
    result = conformance(installed, module, "mini", cwd=tmp_path)
    assert result.out == ("mini, a disk of everything: passed\nmini, an empty disk: passed\n"
                          "mini, a disk of one sector: passed\n")
    assert list(tmp_path.iterdir()) == []


def test_the_module_may_be_named_from_here(installed, module, tmp_path):
    result = conformance(installed, os.path.relpath(module, tmp_path), "mini", cwd=tmp_path)
    assert "mini, a disk of everything: passed" in result.out


def test_a_misspelt_format_is_told_once(installed, module, tmp_path):
    result = conformance(installed, module, "minni", cwd=tmp_path, code=1)
    assert result.out.count("Unknown file format 'minni'") == 1 and len(result.out.splitlines()) == 1


def test_an_image_that_is_given_conforms(installed, module, tmp_path):
    make_raw(tmp_path / "content", MIB, [(0, compressible(200 * KIB))])
    imgtk("convert", "-f", "raw", "-O", "mini", tmp_path / "content", tmp_path / "image",
          env=environment(IMGTK_MODULE_PATH=module))
    assert "passed" in conformance(installed, module, "mini", "image", "content", cwd=tmp_path).out
    make_raw(tmp_path / "content", MIB, [(0, b"other")])
    assert "FAILED" in conformance(installed, module, "mini", "image", "content", cwd=tmp_path, code=1).out


def test_a_driver_that_lies_is_found_out(installed, tmp_path):
    source = (EXAMPLES / "mini/mini.c").read_text()
    spoilt = source.replace("mini->table[block + i] = first + i + 1;", "mini->table[block + i] = first + i / 2 + 1;")
    assert spoilt != source
    (tmp_path / "mini.c").write_text(spoilt)
    [header] = installed.rglob("imgtk/driver.h")
    execute([tool("cc"), "-std=c11", "-shared", "-fPIC", "-fvisibility=hidden", "-I", header.parent.parent, "-o",
             tmp_path / "mini.so", tmp_path / "mini.c"])
    (tmp_path / "work").mkdir()
    result = conformance(installed, tmp_path, "mini", cwd=tmp_path / "work", code=1)
    assert "mini, a disk of everything: FAILED" in result.out and "[  FAILED  ]" in result.out


# ---- Programs ----

@pytest.fixture(scope="module")
def programs(installed, tmp_path_factory):
    return build(installed, EXAMPLES / "library", tmp_path_factory.mktemp("library"))


@pytest.fixture
def chain(tmp_path):
    """An overlay that holds 4 KiB of the disk, over a base; and the disk's bytes."""
    data = bytearray(compressible(128 * KIB) + bytes(MIB))
    make_raw(tmp_path / "base.raw", len(data), [(0, bytes(data[:128 * KIB]))])
    data[4 * KIB:8 * KIB] = b"t" * 4 * KIB
    (tmp_path / "new.raw").write_bytes(data)
    imgtk("convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", "-B", "base.raw", "-F", "raw",
          tmp_path / "new.raw", tmp_path / "top.qcow2", cwd=tmp_path)
    return tmp_path / "top.qcow2", bytes(data)


def run(programs, name, *words, **options):
    return execute([programs / name, *words], env=environment(), **options)


def test_extents_are_listed(programs, chain):
    image, data = chain
    lines = run(programs, "extents", image).out.splitlines()
    assert lines == ["0 4096 data 1", "4096 4096 data 0", f"8192 {120 * KIB} data 1", f"{128 * KIB} {MIB} zero 1",
                     f"4 extents, {len(data)} bytes"]
    assert "extents: Could not open" in run(programs, "extents", image.with_name("missing"), code=1).err


def test_sectors_of_a_chain_are_read(programs, chain):
    image, data = chain
    for number in (0, 8, 16, 300):
        printed = run(programs, "sector", image, number).out.split()
        assert bytes(int(byte, 16) for byte in printed) == data[number * 512:(number + 1) * 512]
    assert run(programs, "sector", image, len(data) // 512, code=1).err.startswith("sector: ")


def test_a_conversion_tells_how_far_it_is(programs, chain, tmp_path):
    image, data = chain
    lines = run(programs, "convert", image, tmp_path / "out.vdi", "vdi").out.splitlines()
    shown = [int(line.split()[1]) for line in lines if line.startswith("copy: ")]
    assert shown == sorted(set(shown)) and shown[-1] == 100
    imgtk("convert", "-O", "raw", tmp_path / "out.vdi", tmp_path / "out.raw")
    (tmp_path / "data").write_bytes(data)
    assert_same_bytes(tmp_path / "out.raw", tmp_path / "data")


def test_a_conversion_that_is_cancelled_leaves_nothing(programs, tmp_path):
    source = make_raw(tmp_path / "source", 64 * MIB, [(at, compressible(64 * KIB, at)) for at in range(0, 64 * MIB, MIB)])
    result = run(programs, "convert", source, tmp_path / "out", "qcow2", 30, code=1)
    assert result.err == "convert: given up\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    (tmp_path / "out").write_bytes(b"before")
    run(programs, "convert", source, tmp_path / "out", "qcow2", 30, code=1)
    assert (tmp_path / "out").read_bytes() == b"before"
