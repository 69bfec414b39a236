"""What --help says, for the tests of help, manual and completion."""
import re

from imgtk_test import ROOT, imgtk

# Every command that does something: each has its page, which gets its synopsis from the command.
COMMANDS = sorted(page.name[len("imgtk-"):-len(".1.in")] for page in (ROOT / "docs/man").glob("imgtk-*.1.in")
                  if "@SYNOPSIS@" in page.read_text())


def section(command, title):
    """The indented lines below a title in a command's help."""
    found = re.search(rf"(?ms)^{title}:\n(.*?)(?:\n\n|\Z)", imgtk(command, "--help").out)
    return found.group(1).splitlines() if found else []


def spellings(command):
    """Every option in a command's help, as "-f" and "--format"."""
    lines = [line for line in section(command, "Options") if line.startswith("  -")]
    return sorted({word for line in lines for word in re.findall(r"(?<![\w-])(--[a-z][a-z-]+|-[A-Za-z])(?![\w-])",
                                                                 re.split(r"\s{2,}", line.strip())[0])})


def exit_codes(command):
    """The numbers below "Exit codes"."""
    return [int(line.split()[0]) for line in section(command, "Exit codes")]
