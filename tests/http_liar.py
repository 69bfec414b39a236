"""A small HTTP server that goes wrong in a chosen way, in a thread of the test: Liar(content, how) and its `url`.

`how` is the name of one of Answer's methods; `after` so many good answers it begins. Good answers take `pause` seconds.
`seen` has the headers of every request, with its path and its peer.
"""
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ETAG, OTHER_ETAG = '"one"', '"two"'


class Liar(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, content, how, after=0, elsewhere=None, pause=0):
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.how, self.after, self.elsewhere, self.pause = content, how, after, elsewhere, pause
        self.seen, self.lock, self.busy, self.busiest = [], threading.Lock(), 0, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/disk"

    def end(self):
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up on a liar is right."""


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        with server.lock:
            number = len(server.seen)
            server.seen.append(dict(self.headers, path=self.path, peer=self.client_address))
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            if number < server.after:
                self.part()
            else:
                getattr(self, server.how)()
        finally:
            with server.lock:
                server.busy -= 1

    # ---- What answers are made of

    def wanted(self):
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        return int(first), min(int(last) + 1, len(self.server.content))

    def head(self, code, length, **headers):
        """Headers as Content_Range="..."; None leaves one out."""
        fields = {"ETag": ETAG, "Content_Length": length, **headers}
        self.send_response(code)
        for name, value in fields.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def range_text(self, first, end):
        return f"bytes {first}-{end - 1}/{len(self.server.content)}"

    def part(self, **headers):
        """The good answer, but for the headers that are given."""
        time.sleep(self.server.pause)
        first, end = self.wanted()
        self.head(206, end - first, **{"Content_Range": self.range_text(first, end), **headers})
        self.wfile.write(self.server.content[first:end])

    def half(self):
        """The good head, and half of what it promises."""
        first, end = self.wanted()
        self.head(206, end - first, Content_Range=self.range_text(first, end))
        self.wfile.write(self.server.content[first:first + (end - first) // 2])
        self.wfile.flush()

    # ---- Ways to answer

    def too_long(self):
        first, end = self.wanted()
        self.head(206, end - first + 1000, Content_Range=self.range_text(first, end))
        self.wfile.write(self.server.content[first:end] + bytes(1000))

    def endless(self):
        first, end = self.wanted()
        self.head(206, None, Content_Range=self.range_text(first, end), Transfer_Encoding="chunked")
        while not self.server.over.is_set():
            self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")

    def too_short(self):
        first, end = self.wanted()
        self.head(206, 10, Content_Range=self.range_text(first, end))
        self.wfile.write(bytes(10))

    def other_range(self):
        first, end = self.wanted()
        self.part(Content_Range=self.range_text(first + 512, end + 512))

    def backward_range(self):
        self.part(Content_Range=f"bytes 5-4/{len(self.server.content)}")

    def huge_range(self):
        self.part(Content_Range="bytes 0-32767/99999999999999999999999999")

    def no_range(self):
        self.part(Content_Range=None)

    def no_total(self):
        first, end = self.wanted()
        self.part(Content_Range=f"bytes {first}-{end - 1}/*")

    def shrunk(self):
        first, end = self.wanted()
        self.part(Content_Range=f"bytes {first}-{end - 1}/{len(self.server.content) - 512}")

    def gone_beyond(self):
        self.head(416, 0, Content_Range="bytes */1000")

    def other_etag(self):
        self.part(ETag=OTHER_ETAG)

    def other_date(self):
        self.part(ETag=None, Last_Modified=f"Mon, 01 Jan 2024 00:00:{len(self.server.seen) % 60:02} GMT")

    def condition_failed(self):
        self.head(412, 0)

    def whole(self):
        self.head(200, len(self.server.content))
        self.wfile.write(self.server.content)

    def whole_without_length(self):
        self.head(200, None, Connection="close")
        self.wfile.write(self.server.content)
        self.close_connection = True

    def whole_cut(self):
        self.head(200, len(self.server.content))
        self.wfile.write(self.server.content[:len(self.server.content) // 2])
        self.close_connection = True

    def whole_cut_at_first(self):
        (self.whole_cut if len(self.server.seen) == 1 else self.whole)()

    def endless_whole(self):
        self.head(200, None, Transfer_Encoding="chunked")
        while not self.server.over.is_set():
            self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")

    def encoded(self):
        self.part(Content_Encoding="gzip")

    def odd_status(self):
        self.head(299, 5)
        self.wfile.write(b"hello")

    def nothing(self):
        self.head(204, None)

    def not_there(self):
        self.head(404, 0)

    def forbidden(self):
        self.head(403, 0)

    def broken(self):
        self.head(500, 0)

    def garbage(self):
        self.wfile.write(b"\0\1\2\3" * 1000)
        self.close_connection = True

    def endless_headers(self):
        self.send_response(206)
        while not self.server.over.is_set():
            self.send_header("X-More", "x" * 4000)
            self.flush_headers()

    def endless_continue(self):
        while not self.server.over.is_set():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\nX-More: " + b"x" * 4000 + b"\r\n\r\n")

    def loop(self):
        self.head(302, 0, Location=self.path + "x")

    def other_protocol(self):
        self.head(302, 0, Location="ftp://127.0.0.1/disk")

    def to_a_file(self):
        self.head(302, 0, Location="file:///etc/passwd")

    def redirect(self):
        self.head(302, 0, Location=self.server.elsewhere)

    def silent(self):
        self.server.over.wait(30)
        self.close_connection = True

    def silent_at_the_end(self):
        """To whoever asks for the last byte."""
        (self.silent if self.wanted()[1] == len(self.server.content) else self.part)()

    def refuses_much(self):
        first, end = self.wanted()
        (self.broken if end - first > 1 << 19 else self.part)()

    def silent_in_the_middle(self):
        self.half()
        self.silent()

    def dripping(self):
        first, end = self.wanted()
        self.head(206, end - first, Content_Range=self.range_text(first, end))
        while not self.server.over.wait(0.2):
            self.wfile.write(b"x")
            self.wfile.flush()

    def cut(self):
        self.half()
        self.close_connection = True

    def hangup(self):
        self.close_connection = True

    def every_second_is_cut(self):
        (self.cut if len(self.server.seen) % 2 == 0 else self.part)()

    def busy(self):
        self.head(503, 0, Retry_After=60)

    def busy_at_first(self):
        if len(self.server.seen) <= self.server.after + 1:
            self.head(503, 0, Retry_After=1)
        else:
            self.part()

    def signed(self):
        """Redirects to an address that is good for two requests."""
        if self.path == "/disk":
            self.head(302, 0, Location=f"/signed/{len(self.server.seen)}")
            return
        uses = sum(request["path"] == self.path for request in self.server.seen)
        (self.part if uses <= 2 else self.forbidden)()
