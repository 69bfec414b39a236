"""NBD servers for tests: on a Unix socket in the test's folder, ended with the test."""
import socket
import subprocess
import time

import pytest

from imgtk_test import environment


class Server:
    """One running server; `uri` leads to its default export."""

    def __init__(self, path, words):
        self.path = path
        self.uri = f"nbd+unix:///?socket={path}"
        path.unlink(missing_ok=True)
        self.process = subprocess.Popen([str(word) for word in words], env=environment(), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while not self.is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{words} did not start: {self.end()}")
            time.sleep(0.01)

    def is_up(self):
        with socket.socket(socket.AF_UNIX) as attempt:
            return attempt.connect_ex(str(self.path)) == 0

    def end(self):
        """Ends the server; what it wrote to stderr."""
        self.process.terminate()
        return self.process.communicate(timeout=20)[1].decode("utf-8", "replace")
