"""Help, version and manual tell about everything that the parser takes."""
import os
import re

import pytest

from imgtk_test import BUILD, IMGTK, ROOT, environment, execute, imgtk, missing

REAL = ["convert", "create", "map", "info", "check", "compare", "measure", "resize", "rebase", "commit", "snapshot", "bitmap",
        "formats"]


def spellings(command):
    """Every option in a command's help, as "-f" and "--format"."""
    options = imgtk(command, "--help").out.split("Options:")[1].split("\n\n")[0]
    lines = [line for line in options.splitlines() if line.startswith("  -")]
    return sorted({word for line in lines for word in re.findall(r"(?<![\w-])(--[a-z][a-z-]+|-[A-Za-z])(?![\w-])",
                                                               re.split(r"\s{2,}", line.strip())[0])})


def test_every_command_is_tested_here():
    listed = re.findall(r"(?m)^  (\w+) +", imgtk("--help").out.split("Examples:")[0])
    assert listed == [*REAL, "help"]


@pytest.mark.parametrize("command", REAL)
def test_help_has_two_names(command):
    text = imgtk("help", command).out
    assert text == imgtk(command, "--help").out == imgtk(command, "-h").out
    assert text.startswith(f"Usage: imgtk {command} ")
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("command", REAL)
def test_every_option_in_help_is_taken(command):
    for option in spellings(command):
        err = imgtk(command, option, code=None).err
        assert "unrecognized" not in err, option


@pytest.mark.parametrize("command", REAL)
def test_manual_has_every_option(command):
    text = manual(f"imgtk-{command}.1")
    bold = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+|-[A-Za-z])(?![\w-])",
                          "\n".join(line for line in text.splitlines() if line.startswith(".B "))))
    assert set(spellings(command)) <= bold
    assert "@" not in text


def test_version():
    lines = imgtk("--version").out.splitlines()
    assert re.fullmatch(r"imgtk \d+\.\d+\.\d+", lines[0])
    assert any(line.strip().startswith("jansson ") for line in lines)
    assert imgtk("-V").out.splitlines() == lines


@pytest.mark.parametrize("words, message", [
    ([], "Not enough arguments"),
    (["covnert"], "Command not found: covnert; did you mean 'convert'?"),
    (["xyzzy"], "Command not found: xyzzy"),
    (["--nonsense"], "unrecognized option '--nonsense'"),
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


def test_formats():
    import json
    modules = {module["name"]: module for module in json.loads(imgtk("formats", "--output=json").out)}
    assert modules["raw"]["path"] == "(built in)"
    assert modules["qcow2"]["read"] is True and modules["qcow2"]["path"].endswith("/qcow2.so")
    text = imgtk("formats").out
    assert all(f"{name}: " in text for name in modules)


def manual(page):
    path = BUILD / "man" / page
    if not path.exists():
        missing(f"{path} is not there: an installed imgtk is tested")
    return path.read_text().replace("\\-", "-")


def test_manual_has_every_command():
    text = manual("imgtk.1")
    assert all(text.count(f".BR imgtk-{command} (1)") >= 2 for command in REAL)


def test_manual_has_every_key_of_the_configuration():
    shipped = (ROOT / "conf/imgtk.yaml").read_text()
    keys = set(re.findall(r"(?m)^#?([a-z_]+):", shipped))
    assert keys == set(re.findall(r"(?m)^\.BR ([a-z_]+) \": ", manual("imgtk.yaml.5")))
