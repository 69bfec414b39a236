"""Options whose fault must be told with the place where it is."""
import os

import pytest

from imgtk_test import MIB, environment, imgtk, make_raw


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_raw("disk.raw", MIB, [(0, b"data")])
    return tmp_path


@pytest.mark.parametrize("words", [["create", "-f", "qcow2", "new", "1M"], ["convert", "-O", "qcow2", "disk.raw", "new"]],
                         ids=lambda words: words[0])
def test_an_unknown_option_of_the_configuration(folder, words):
    (folder / "own.yaml").write_text("format_options:\n  qcow2: {nonsense: 3}\n")
    result = imgtk(*words, code=1, env=environment(IMGTK_CONFIG=folder / "own.yaml"))
    assert result.err.startswith("imgtk: configuration: format_options: qcow2: unknown option 'nonsense' (known: ")
    assert not os.path.exists("new")


@pytest.mark.parametrize("name", ["../disk", "a b", "a/b", "-", "Q"])
def test_no_package_is_proposed_for_what_cannot_be_one(folder, name):
    err = imgtk("info", f"--format={name}", "disk.raw", code=1).err
    assert f"Unknown file format '{name}'" in err and "package" not in err


def test_a_package_is_proposed_for_a_format_that_could_be_one(folder):
    assert "imgtk-format-other" in imgtk("info", "-f", "other", "disk.raw", code=1).err


def test_a_module_that_probing_skips_is_told(folder):
    (folder / "modules").mkdir()
    (folder / "modules/broken.so").write_text("no module")
    env = environment(IMGTK_MODULE_PATH=folder / "modules")
    assert imgtk("convert", "disk.raw", "quiet.raw", env=env).err == ""
    err = imgtk("convert", "-v", "disk.raw", "new.raw", env=env).err
    assert "modules/broken.so is skipped: not a module" in err
