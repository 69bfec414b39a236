"""Runs that are slow enough to be disturbed at a chosen call."""
import subprocess
import time

from imgtk_test import IMGTK, environment


def start_slowly(shim, folder, *words, delay=3000, calls="pwrite,copy_file_range,fsync,linkat,rename,ftruncate", **changes):
    """imgtk in `folder`, where each of the calls takes `delay` microseconds longer and puts a byte into the file log."""
    env = environment(LD_PRELOAD=shim, FAULT_DELAY=delay, FAULT_CALLS=calls, FAULT_LOG=folder / "log", **changes)
    return subprocess.Popen([IMGTK, *map(str, words)], cwd=folder, env=env, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE)


def wait_for_calls(process, log, count):
    while process.poll() is None and (not log.exists() or log.stat().st_size < count):
        time.sleep(0.001)
