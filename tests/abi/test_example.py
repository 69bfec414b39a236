"""The example of docs/writing-a-format.md, built out of tree against an installed imgtk, and used like any format."""
import json
import os

import pytest

from imgtk_test import (BUILD, KIB, MIB, ROOT, SANITIZE, assert_same_bytes, compressible, environment, execute, imgtk,
                        imgtk_fails, make_raw, tool)

EXAMPLE = ROOT / "docs/examples/mini"


@pytest.fixture(scope="module")
def env(installed):
    """The environment for imgtk with the example's module, built in a folder of its own."""
    work = installed / "example"
    work.mkdir()
    for name in ["mini.c", "Makefile"]:
        (work / name).write_text((EXAMPLE / name).read_text())
    [folder] = {path.parent for path in installed.rglob("imgtk.pc")}
    flags = "-Wall -Wextra -Wconversion -Wshadow -Wpedantic -Werror"
    execute([tool("make"), "-C", work, "CC=cc", f"CFLAGS={flags}",
             f"LDFLAGS={f'-fsanitize={SANITIZE}' if SANITIZE else ''}"],
            env=environment(PKG_CONFIG_PATH=folder, PKG_CONFIG_SYSROOT_DIR=installed))
    return environment(IMGTK_MODULE_PATH=work)


def test_the_installation_is_whole(installed):
    found = {path.relative_to(installed).name for path in installed.rglob("*") if path.is_file()}
    assert {"imgtk", "imgtk.yaml", "imgtk.pc", "libimgtk.so.1", "qcow2.so", "driver.h"} <= found
    assert {path.name for path in (BUILD / "nbdkit").glob("*.so")} <= found


@pytest.mark.parametrize("size", [0, 512, 64 * KIB, 3 * MIB + 512])
def test_round_trip(env, tmp_path, size):
    pieces = [(0, compressible(1000)), (1 * MIB, compressible(300 * KIB)), (3 * MIB, b"end")]
    source = make_raw(tmp_path / "source", size, [(at, data) for at, data in pieces if at + len(data) <= size])
    imgtk("convert", "-f", "raw", "-O", "mini", source, tmp_path / "image.mini", env=env)
    imgtk("convert", "-f", "mini", "-O", "raw", tmp_path / "image.mini", tmp_path / "back", env=env)
    assert_same_bytes(source, tmp_path / "back")


def test_same_bytes_for_any_number_of_workers(env, tmp_path):
    source = make_raw(tmp_path / "source", 40 * MIB,
                      [(at, compressible(600 * KIB, at)) for at in range(0, 40 * MIB, 1 * MIB)])
    for workers in ["1", "8"]:
        imgtk("convert", "-m", workers, "-f", "raw", "-O", "mini", source, tmp_path / workers, env=env)
    assert_same_bytes(tmp_path / "1", tmp_path / "8")


def test_probe_map_and_info(env, tmp_path):
    source = make_raw(tmp_path / "source", 1 * MIB, [(128 * KIB, compressible(128 * KIB))])
    image = tmp_path / "image"
    imgtk("convert", "-f", "raw", "-O", "mini", source, image, env=env)
    info = json.loads(imgtk("info", "--output=json", image, env=env).out)
    assert info["format"] == "mini" and info["virtual-size"] == 1 * MIB and info["cluster-size"] == 64 * KIB
    assert info["format-specific"]["data"]["used-blocks"] == 2
    rows = json.loads(imgtk("map", "--output=json", image, env=env).out)
    assert [(row["start"], row["length"], row["data"], row.get("offset")) for row in rows] == [
        (0, 128 * KIB, False, None), (128 * KIB, 128 * KIB, True, 64 * KIB), (256 * KIB, 768 * KIB, False, None)]


def test_bad_images(env, tmp_path):
    source = make_raw(tmp_path / "source", 256 * KIB, [(0, compressible(256 * KIB))])
    image = tmp_path / "image"
    imgtk("convert", "-f", "raw", "-O", "mini", source, image, env=env)
    whole = image.read_bytes()
    for offset, patch, reason in [(8, b"\2", "version 2, not 1"), (23, b"\x7f", "exceeds the limit"),
                                  (24, b"\6", "block 0 ends at byte"), (0, b"X", "does not begin with MINIDISK")]:
        image.write_bytes(whole[:offset] + patch + whole[offset + len(patch):])
        imgtk_fails("map", "-f", "mini", image, match=reason, env=env)
    image.write_bytes(whole[:30])
    imgtk_fails("map", "-f", "mini", image, match="the table has 16 bytes, the whole file 30", env=env)
    os.truncate(image, 10)
    imgtk_fails("map", "-f", "mini", image, match="ends at byte 10", env=env)
