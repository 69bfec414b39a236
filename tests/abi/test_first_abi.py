"""Modules that were compiled against the first version of the interface, and never again: see docs/abi.md."""
import json
import os
import platform
import shutil

import pytest

from imgtk_test import FIXTURES, KIB, MIB, assert_same_bytes, compressible, environment, execute, imgtk, make_raw, tool

KEPT = FIXTURES / "abi1"
MODULES = ["first.so", "store.so", "digest/count.so"]
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="they were compiled for x86_64")


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """The environment with these modules, in a folder that nobody else can write, whatever a checkout's rights are."""
    folder = tmp_path_factory.mktemp("modules")
    folder.chmod(0o755)
    (folder / "digest").mkdir(mode=0o755)
    for module in MODULES:
        shutil.copyfile(KEPT / module, folder / module)
        os.chmod(folder / module, 0o755)
    return environment(IMGTK_MODULE_PATH=folder)


@pytest.fixture
def disk(tmp_path):
    return make_raw(tmp_path / "disk", 3 * MIB + 512, [(0, compressible(100 * KIB)), (2 * MIB, compressible(MIB, 2))])


@pytest.fixture
def image(env, disk, tmp_path):
    imgtk("convert", "-f", "raw", "-O", "first", disk, tmp_path / "image", env=env)
    return tmp_path / "image"


@pytest.mark.parametrize("module", MODULES)
def test_the_modules_ask_for_the_first_version_alone(module):
    text = execute([tool("readelf"), "-W", "--version-info", KEPT / module]).out
    versions = {word for word in text.split() if word.startswith("IMGTK_")}
    assert versions == {"IMGTK_1.0"}


def test_the_modules_load(env):
    found = json.loads(imgtk("formats", "--output=json", env=env).out)
    kept = {module["name"]: module for module in found if module["name"] in ("first", "store", "count")}
    assert len(kept) == 3 and not any("skipped" in module for module in kept.values()), found


def test_the_format_writes_and_reads(env, disk, image, tmp_path):
    imgtk("convert", "-O", "raw", image, tmp_path / "back", env=env)
    assert_same_bytes(disk, tmp_path / "back")
    imgtk("compare", image, disk, env=env)


def test_the_format_is_recognised_mapped_and_told_of(env, image):
    info = json.loads(imgtk("info", "--output=json", image, env=env).out)
    assert info["format"] == "first" and info["cluster-size"] == 64 * KIB
    assert info["format-specific"]["data"] == {"used-blocks": 2 + 16}
    rows = json.loads(imgtk("map", "--output=json", image, env=env).out)
    assert [(row["start"], row["data"]) for row in rows] == [(0, True), (128 * KIB, False), (2 * MIB, True),
                                                             (3 * MIB, False)]


def test_the_storage_is_read(env, disk, image, tmp_path):
    imgtk("convert", "-O", "raw", f"store:{image}", tmp_path / "back", env=env)
    assert_same_bytes(disk, tmp_path / "back")
    refused = imgtk("convert", "-n", "-O", "raw", disk, f"store:{disk}", code=1, env=env).err
    assert "Read-only file system" in refused


def test_the_digest_is_computed(env, tmp_path):
    disk = make_raw(tmp_path / "disk", MIB)
    assert imgtk("checksum", "--flat", "-a", "count", disk, env=env).out.split()[0] == f"{MIB:016x}"
