"""Help and version tell about everything that the parser takes, and mistakes are told with a hint."""
import json
import os
import re
import shutil

import pytest

from help_texts import COMMANDS, exit_codes, section, spellings
from imgtk_test import BUILD, IMGTK, MODULES, environment, execute, imgtk


def test_every_command_is_tested_here():
    listed = re.findall(r"(?m)^  (\w+) +", imgtk("--help").out.split("Examples:")[0])
    assert sorted(listed) == sorted([*COMMANDS, "help"])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_two_names(command):
    text = imgtk("help", command).out
    assert text == imgtk(command, "--help").out == imgtk(command, "-h").out
    assert text.startswith(f"Usage: imgtk {command} ")
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("words", [["map", "--help"], ["--help"]])
def test_help_fits_the_terminal(words):
    text = imgtk(*words, env=environment(COLUMNS=80)).out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert text != imgtk(*words).out and text.split() == imgtk(*words).out.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_in_help_is_taken(command):
    for option in spellings(command):
        err = imgtk(command, option, code=None).err
        assert "unrecognized" not in err, option


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_exit_codes_and_examples(command):
    assert exit_codes(command)[:2] == [0, 1]
    assert all(line.startswith(f"  imgtk {command}") for line in section(command, "Examples"))
    assert section(command, "Examples")


def test_version():
    lines = imgtk("--version").out.splitlines()
    assert re.fullmatch(r"imgtk \d+\.\d+\.\d+", lines[0])
    assert re.fullmatch(r"libraries: jansson [\d.]+, libyaml [\d.]+, (\w+ [\d.]+, )*\w+ [\d.]+", lines[1])
    modules = json.loads(imgtk("formats", "--output=json").out)
    assert lines[2:] == ["modules: " + ", ".join(module["name"] for module in modules)]
    assert imgtk("-V").out.splitlines() == lines


@pytest.mark.parametrize("words, message", [
    ([], "Not enough arguments"),
    (["covnert"], "Command not found: covnert; did you mean 'convert'?"),
    (["xyzzy"], "Command not found: xyzzy"),
    (["--verison"], "unrecognized option '--verison'; did you mean '--version'?"),
    (["-q", "info", "a"], "unrecognized option '-q'; those of a command stand behind it"),
    (["help", "inf"], "Command not found: inf; did you mean 'info'?"),
    (["convert", "--progess", "a", "b"], "unrecognized option '--progess'; did you mean '--progress'?"),
    (["convert", "-Z"], "unrecognized option '-Z'"),
    (["convert", "-f"], "missing argument for option '-f'"),
    (["map", "--max-length"], "missing argument for option '--max-length'"),
    (["map", "--force-share=1", "a"], "the option '--force-share' takes no argument"),
    (["map", "--references=some", "a"], "--references must be beneath, any or none, not 'some'"),
])
def test_mistakes(words, message):
    result = imgtk(*words, code=1)
    assert result.out == ""
    assert result.err.splitlines()[0] == f"imgtk: {message}"
    assert result.err.splitlines()[1].startswith("Try 'imgtk ")


def test_started_as_qemu_img(tmp_path):
    link = tmp_path / "qemu-img"
    link.symlink_to(IMGTK)
    env = environment(LD_LIBRARY_PATH=os.fspath(BUILD / "lib"))
    assert execute([link, "--version"], env=env).out.startswith("qemu-img version 10.0.2 (imgtk ")
    assert execute([link, "info", "nx"], env=env, code=1).err.startswith("qemu-img: Could not open 'nx': ")
    out = execute([link, "create", tmp_path / "a.qcow2", "1M"], env=env).out
    assert "fmt=raw" in out, "qemu-img does not look at the suffix"


def test_version_does_not_load_modules(tmp_path):
    shutil.copy(MODULES / "vdi.so", tmp_path)
    (tmp_path / "broken.so").write_text("no library")
    env = environment(IMGTK_MODULE_PATH=f"{tmp_path}:{MODULES}")
    names = imgtk("--version", env=env).out.splitlines()[2].split(": ")[1].split(", ")
    assert names[:3] == ["raw", "broken", "vdi"] and names.count("vdi") == 1 and "qcow2" in names
    (tmp_path / "imgtk.yaml").write_text("disabled_modules: [qcow2]\n")
    env = environment(IMGTK_CONFIG=tmp_path / "imgtk.yaml")
    assert "qcow2" not in imgtk("--version", env=env).out
    (tmp_path / "imgtk.yaml").write_text("nonsense: [qcow2]\n")
    result = imgtk("--version", env=env, code=1)
    assert result.out.startswith("imgtk ") and "nonsense" in result.err


def test_formats():
    modules = {module["name"]: module for module in json.loads(imgtk("formats", "--output=json").out)}
    assert modules["raw"]["path"] == "(built in)"
    assert modules["qcow2"]["read"] is True and modules["qcow2"]["path"].endswith("/qcow2.so")
    text = imgtk("formats").out
    assert all(f"{name}: " in text for name in modules)
