"""What the Python tests share: running imgtk and the tools it is compared with, making images, comparing files.

The environment says what is tested: IMGTK is the path of the program in its build folder (default: the release
build), IMGTK_MODULE_PATH the folder of its modules (default: those of the same build). A tool that is missing skips
a test, with the reason; with CI=true it fails it instead.
"""
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
IMGTK = Path(os.environ.get("IMGTK", ROOT / "build-release/bin/imgtk")).resolve()
MODULES = Path(os.environ.get("IMGTK_MODULE_PATH", IMGTK.parent.parent / "modules")).resolve()
BUILD = IMGTK.parent.parent
CI = os.environ.get("CI", "") == "true"

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


def build_option(name):
    """The value of a CMake option in the build under test, "" where it cannot be told (an installed imgtk)."""
    try:
        found = re.search(rf"(?m)^{name}:\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text())
    except OSError:
        return ""
    return found.group(1) if found else ""


SANITIZE = build_option("IMGTK_SANITIZE")
# Before the name of a program that was built for another machine.
EMULATOR = [word for word in build_option("CMAKE_CROSSCOMPILING_EMULATOR").split(";") if word]

# Not 1 or 2, which mean something as imgtk's own exit codes; see check_sanitizers().
SANITIZER_EXIT = 99
SANITIZER_REPORT = re.compile(r"(ERROR|WARNING|SUMMARY): \w+Sanitizer|runtime error:")


class Result:
    """A finished command: code, out and err (text)."""

    def __init__(self, command, code, out, err):
        self.command, self.code, self.out, self.err = command, code, out, err

    def __repr__(self):
        line = " ".join(str(word) for word in self.command)
        return f"$ {line}\nexit {self.code}\nstdout: {self.out[-2000:]}\nstderr: {self.err[-2000:]}"


def missing(reason):
    """Skips the running test because of `reason`; where everything must be there (CI), fails it."""
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)


def tool(name):
    """The path of a tool that a test needs."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        missing(f"{name} is not installed")
    return path


def environment(**changes):
    """imgtk's environment: no configuration, no translation, the modules under test; a value of None removes."""
    env = dict(os.environ, LC_ALL="C", IMGTK_MODULE_PATH=str(MODULES), IMGTK_CONFIG=str(TESTS / "empty.yaml"))
    # SIGBUS is imgtk's own, whose handler the sanitizers would keep it from installing.
    env.setdefault("ASAN_OPTIONS", f"exitcode={SANITIZER_EXIT}:detect_stack_use_after_return=1:handle_sigill=1:handle_sigbus=0")
    # The leak checker of gcc 12 crashes on the thread-local data of libraries that came with dlopen() (libnbd's gnutls).
    env.setdefault("LSAN_OPTIONS", "use_tls=0:print_suppressions=0")
    env.setdefault("UBSAN_OPTIONS", f"exitcode={SANITIZER_EXIT}:print_stacktrace=1:handle_sigbus=0")
    env.setdefault("TSAN_OPTIONS", f"exitcode={SANITIZER_EXIT}:second_deadlock_stack=1:handle_sigbus=0")
    for name, value in changes.items():
        env.pop(name, None)
        if value is not None:
            env[name] = str(value)
    return env


def limited(command, memory):
    """
    The command with a bound on its address space. Not by preexec_fn, for which subprocess would copy the whole test
    run each time. The sanitizers reserve terabytes and cannot be bounded.
    """
    return command if memory is None or SANITIZE else [tool("prlimit"), f"--as={memory}", *command]


def check_sanitizers(result):
    """Fails the running test when a sanitizer reported something, whatever the test expects of the command."""
    if result.code == SANITIZER_EXIT or SANITIZER_REPORT.search(result.err):
        pytest.fail(f"a sanitizer reports:\n{result!r}", pytrace=False)
    return result


def execute(command, *, code=0, input=None, timeout=120, env=None, cwd=None, memory=None):
    """Runs a command. `code` is the exit code that it must have; None: any (the caller looks)."""
    command = [str(word) for word in command]
    if EMULATOR and Path(command[0]).is_relative_to(BUILD):
        command = EMULATOR + command
    done = subprocess.run(limited(command, memory), input=input, stdin=subprocess.DEVNULL if input is None else None,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          env=env or environment(), cwd=cwd)
    result = Result(command, done.returncode, done.stdout.decode("utf-8", "replace"),
                    done.stderr.decode("utf-8", "replace"))
    result.raw = done.stdout
    check_sanitizers(result)
    if code is not None and result.code != code:
        pytest.fail(f"exit code {result.code}, not {code}:\n{result!r}", pytrace=False)
    return result


def imgtk(*args, **options):
    """Runs imgtk with these arguments; options as in execute()."""
    if not IMGTK.exists():
        pytest.fail(f"{IMGTK} is not built", pytrace=False)
    return execute([IMGTK, *args], **options)


def imgtk_fails(*args, code=1, match=None, **options):
    """Runs imgtk, which must fail with `code` and one line on stderr that `match` (a regular expression) is found in."""
    result = imgtk(*args, code=code, **options)
    lines = result.err.splitlines()
    assert len(lines) == 1, result
    assert lines[0].startswith("imgtk: "), result
    if match is not None:
        assert re.search(match, lines[0]), f"no {match!r} in {lines[0]!r}"
    return result


def catches(process, number):
    """Whether a process has its own handler for a signal by now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (number - 1) & 1


def imgtk_interrupted(*args, after=0.5):
    """A command that gets a SIGINT when it has been waiting for `after` seconds, and leaves within some more."""
    process = subprocess.Popen([IMGTK, *args], stderr=subprocess.PIPE, env=environment())
    while process.poll() is None and not catches(process, signal.SIGINT):
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=20)[1].decode()
    assert (process.returncode, err) == (1, "imgtk: interrupted by SIGINT\n")


def qemu_img(*args, **options):
    return execute([tool("qemu-img"), *args], **options)


def qemu_io(path, *commands, fmt=None):
    """Runs qemu-io's commands ("write -P 7 0 64k") on an image."""
    words = [tool("qemu-io")]
    if fmt is not None:
        words += ["-f", fmt]
    for command in commands:
        words += ["-c", command]
    result = execute([*words, path])
    # It exits 0 even when a command fails.
    assert "failed" not in result.out + result.err, result
    return result


# A child begins with the peak of the process that forked it, so a small one does that, not the whole test run.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


def peak_memory(*words, **options):
    """Bytes of resident memory at most, of one run of imgtk; options as in execute()."""
    return int(execute([sys.executable, "-c", MEASURE, IMGTK, *words], **options).out)


def make_image(path, size, fmt="qcow2", options="", backing=None, backing_fmt=None, writes=()):
    """An image made by qemu-img, with qemu-io commands run on it."""
    words = ["create", "-q", "-f", fmt]
    if options:
        words += ["-o", options]
    if backing is not None:
        words += ["-b", backing, "-F", backing_fmt]
    qemu_img(*words, path, *([] if size is None else [size]))
    if writes:
        qemu_io(path, *writes, fmt=fmt)
    return path


def compressible(length, seed=1):
    """Bytes that compress to about a third: words and a little noise. The same for the same seed."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randint(3, 12)) for _ in range(200)]
    out = bytearray()
    while len(out) < length:
        out += rng.choice(words)
        if rng.random() < 0.1:
            out += rng.randbytes(4)
    return bytes(out[:length])


def make_raw(path, size, pieces=()):
    """A sparse raw file of `size` bytes; pieces are (offset, bytes)."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


def digest(path):
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def assert_same_bytes(one, two):
    """Both files hold the same bytes; tells the first difference."""
    with open(one, "rb") as a, open(two, "rb") as b:
        offset = 0
        while True:
            x, y = a.read(1 << 20), b.read(1 << 20)
            if x != y:
                at = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
                pytest.fail(f"{one} and {two} differ at byte {offset + at} "
                            f"(sizes {os.path.getsize(one)} and {os.path.getsize(two)})", pytrace=False)
            if not x:
                return
            offset += len(x)


def allocated(path):
    """Bytes that a file occupies."""
    return os.stat(path).st_blocks * 512
