"""What a shell offers for a line that is begun: by imgtk itself, then through the scripts of bash, zsh and fish."""
import json
import os
import pty
import re
import select
import subprocess
import time

import pytest

from help_texts import COMMANDS, section
from imgtk_test import IMGTK, ROOT, environment, execute, imgtk, missing, tool

SCRIPTS = ROOT / "conf/completion"


def offered(*words):
    """The words that may end the line, or ":files PREFIX" and the like."""
    return [line.split("\t")[0] for line in imgtk("help", "--complete", *words).out.splitlines()]


def formats(able):
    return [module["name"] for module in json.loads(imgtk("formats", "--output=json").out) if module.get(able)]


def option_names(name):
    return re.findall(r"(?m)^  (\w+)=<", imgtk("create", "-f", name, "-o", "help").out)


# ---- imgtk's own answers


def test_commands():
    assert set(offered("")) == {*COMMANDS, "help", "--help", "--version"}
    assert offered("conv") == ["convert"]
    assert offered("help", "conv") == ["convert"]
    assert offered("nonsense", "") == []


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_those_of_the_help(command):
    rows = re.split(r"(?m)^  (?=-)", "\n".join(section(command, "Options")))[1:]
    names = {row: {name for name in re.match(r"(?:(-\w)(?:, | ))?(--[a-z-]+)?", row).groups() if name} for row in rows}
    everything = set().union(*names.values())
    old = set().union(*(names[row] for row in rows if "accepted for" in row))
    assert everything - old <= {name.rstrip("=") for name in offered(command, "-")} <= everything
    assert {"-h", "--help"} <= everything - old


def test_formats_are_the_installed_ones(tmp_path):
    assert offered("convert", "-O", "") == formats("write")
    assert offered("convert", "-pO", "v") == [name for name in formats("write") if name[0] == "v"]
    assert offered("info", "-f", "") == formats("read")
    assert offered("convert", "--target-format=vd") == ["--target-format=vdi"]
    assert offered("convert", "-Ovd") == ["-Ovdi"]
    empty = environment(IMGTK_MODULE_PATH=tmp_path)
    assert imgtk("help", "--complete", "convert", "-O", "q", env=empty).out == ""


@pytest.mark.parametrize("name", ["raw", "qcow2", "vdi", "vhdx", "vmdk", "vpc"])
def test_format_options(name):
    assert offered("create", "-f", name, "-o", "") == [f"{option}=" for option in option_names(name)]


@pytest.mark.parametrize("words, expected", [
    (["create", "-o", "compression_type="], []),
    (["create", "-f", "qcow2", "-o", "compression_type="], ["compression_type=zlib", "compression_type=zstd"]),
    (["create", "-fqcow2", "-ocluster_size=64k,lazy_refcounts=o"],
     ["-ocluster_size=64k,lazy_refcounts=on", "-ocluster_size=64k,lazy_refcounts=off"]),
    (["create", "--format=vmdk", "--options=subformat=mono"],
     ["--options=subformat=monolithicSparse", "--options=subformat=monolithicFlat"]),
    (["create", "disk.vhdx", "-o", "log"], ["log_size="]),
    (["convert", "-f", "qcow2", "-o", ""], ["preallocation="]),
    (["convert", "-f", "qcow2", "disk", "o.vdi", "-o", "st"], ["static="]),
    (["create", "-f", "qcow2", "-o", "backing_fmt=vd"], ["backing_fmt=vdi"]),
    (["create", "-f", "qcow2", "-o", "backing_file="], [":files backing_file="]),
    (["create", "-f", "nonsense", "-o", ""], []),
    (["info", "--output", ""], ["human", "json"]),
    (["info", "--output=j"], ["--output=json"]),
    (["map", "--output=j"], ["--output=json", "--output=jsonl"]),
    (["check", "-r", "l"], ["leaks"]),
    (["checksum", "-a", "sha2"], ["sha256"]),
    (["map", "--references=b"], ["--references=beneath"]),
    (["map", "--allow-dir", "/"], [":folders "]),
    (["create", "-b"], ["-b"]),
    (["create", "-b", "ba"], [":files "]),
    (["create", "-bba"], [":files -b"]),
    (["create", "--backing=ba"], [":files --backing="]),
    (["convert", "--progress", ""], [":files "]),
    (["info", "--", "-"], [":files "]),
    (["formats", ""], []),
])
def test_arguments(words, expected):
    assert offered(*words) == expected


def test_storage_options():
    assert "connections=" in offered("convert", "--storage-opts", "timeout=5,conn".partition(",")[2])
    assert "timeout=5,connections=" in offered("convert", "--storage-opts", "timeout=5,conn")


# ---- The shells


@pytest.fixture
def folder(tmp_path):
    work = tmp_path / "work"
    (work / "folder").mkdir(parents=True)
    (work / "disk.raw").touch()
    (work / "two words.raw").touch()
    return work


def shell_environment(**changes):
    return environment(PATH=f"{IMGTK.parent}:{os.environ['PATH']}", LC_ALL="C.UTF-8", TERM="dumb", **changes)


BASH = """
. /usr/share/bash-completion/bash_completion
. "$1"
compopt() { local IFS=' '; options+=" $*"; }
while IFS=$'\\t' read -r COMP_LINE words; do
    COMP_POINT=${#COMP_LINE} options=
    eval "COMP_WORDS=($words)"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _imgtk imgtk
    (IFS=\\|; printf '%s\\t%s\\n' "${COMPREPLY[*]}" "$options")
done
"""


def test_bash(folder):
    if not os.path.exists("/usr/share/bash-completion/bash_completion"):
        missing("bash-completion is not installed")
    # The line, its words as readline cuts them, what is put in the place of the last one, what readline is told.
    cases = [
        ("imgtk conv", "imgtk conv", "convert", ""),
        ("imgtk info --form", "imgtk info --form", "--format=", " -o nospace"),
        ("imgtk convert -O vd", "imgtk convert -O vd", "vdi", ""),
        ("imgtk convert --target-format=vd", "imgtk convert --target-format = vd", "vdi", ""),
        ("imgtk create -f qcow2 -o cluster_size=64k,comp", "imgtk create -f qcow2 -o cluster_size = 64k,comp",
         "64k,compat=|64k,compression_level=|64k,compression_type=", ""),
        ("imgtk info ", "imgtk info ''", "disk.raw|two words.raw|folder", " -o filenames"),
        ("imgtk create --backing=d", "imgtk create --backing = d", "disk.raw", " -o filenames"),
        ("imgtk create -bd", "imgtk create -bd", "-bdisk.raw", " -o filenames"),
        ("imgtk map --allow-dir ", "imgtk map --allow-dir ''", "folder", " -o filenames"),
    ]
    lines = "".join(f"{line}\t{words}\n" for line, words, _, _ in cases)
    result = execute([tool("bash"), "--norc", "-c", BASH, "bash", SCRIPTS / "imgtk.bash"], input=lines.encode(),
                     cwd=folder, env=shell_environment())
    assert result.err == ""
    got = [line.split("\t") for line in result.out.splitlines()]
    assert [(sorted(words.split("|")), options) for words, options in got] == \
        [(sorted(words.split("|")), options) for _, _, words, options in cases]


def test_fish(folder):
    cases = {
        "imgtk conv": ["convert"],
        "imgtk info --form": ["--format="],
        "imgtk convert -O vd": ["vdi"],
        "imgtk create -f qcow2 -o cluster_size=64k,compression_t": ["cluster_size=64k,compression_type="],
        "imgtk info d": ["disk.raw"],
        "imgtk info two": ["two words.raw"],
        "imgtk create --backing=d": ["--backing=disk.raw"],
        "imgtk map --allow-dir=": ["--allow-dir=folder/"],
    }
    lines = "; ".join(f"complete -C '{line}'; echo end" for line in cases)
    env = shell_environment(XDG_CONFIG_HOME=folder.parent, XDG_DATA_HOME=folder.parent)
    result = execute([tool("fish"), "--no-config", "-c", f"source {SCRIPTS}/imgtk.fish; {lines}"], cwd=folder, env=env)
    answers = [[line.split("\t")[0] for line in answer.splitlines()] for answer in result.out.split("end\n")[:-1]]
    assert dict(zip(cases, answers)) == cases


# compinit looks into every file of the folders, so it gets few of them.
ZSH = f"""
all=($fpath)
fpath=({SCRIPTS} ${{(M)fpath:#*/Completion(|/Base)}})
autoload -U compinit; compinit -D -u
fpath=($all); autoload -U _files _path_files _list_files
show() {{ print -r -- "<$BUFFER>"; BUFFER= }}
zle -N show; bindkey -e; bindkey '^T' show
unsetopt auto_menu
print 'rea''dy'
"""


def read_until(terminal, pattern, seconds=60):
    """What the program at the terminal has written when it matches."""
    text, end = "", time.monotonic() + seconds
    while not (found := re.search(pattern, text)):
        assert time.monotonic() < end, text
        if select.select([terminal], [], [], 1)[0]:
            text += os.read(terminal, 4096).decode()
    return found


@pytest.mark.slow
def test_zsh(folder):
    cases = {
        "imgtk conv": "imgtk convert ",
        "imgtk info --form": "imgtk info --format=",
        "imgtk convert -O vd": "imgtk convert -O vdi ",
        "imgtk create -f qcow2 -o cluster_size=64k,compression_t":
            "imgtk create -f qcow2 -o cluster_size=64k,compression_type=",
        "imgtk info d": "imgtk info disk.raw ",
        "imgtk info two": "imgtk info two\\ words.raw ",
        "imgtk create --backing=d": "imgtk create --backing=disk.raw ",
        "imgtk map --allow-dir=": "imgtk map --allow-dir=folder/",
    }
    (folder / ".rc").write_text(ZSH)
    ours, theirs = pty.openpty()
    shell = subprocess.Popen([tool("zsh"), "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
                             env=shell_environment(), start_new_session=True)
    try:
        os.close(theirs)
        os.write(ours, b". ./.rc\n")
        read_until(ours, "ready\r")
        for line, expected in cases.items():
            os.write(ours, f"{line}\t\x14".encode())
            assert read_until(ours, "<(.*)>\r").group(1) == expected
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
