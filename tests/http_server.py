"""nginx on free ports of the loopback, with TLS, in a folder of its own: Nginx(folder) serves what is in folder/www.

    /x          with ranges, ETag and Last-Modified, as nginx does it
    /plain/x    without ranges
    /user/x     for user "alice" with password "geh@eim"
    /token/x    for the bearer token "geheim-token"
    /moved/x    redirects to /x, /down/x of the TLS port to the other port
"""
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

CONFIGURATION = """
{user}
worker_processes 1;
daemon off;
pid {folder}/pid;
events {{ worker_connections 256; }}
http {{
    {temporary}
    log_format all '$scheme $request_uri $status $bytes_sent $connection "$http_range" "$http_authorization"';
    access_log {folder}/log all;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        root {folder}/www;
        keepalive_requests 100000;
        location /plain/ {{ alias {folder}/www/; max_ranges 0; }}
        location /user/ {{ alias {folder}/www/; auth_basic "disks"; auth_basic_user_file {folder}/users; }}
        location /token/ {{
            alias {folder}/www/;
            if ($http_authorization != "Bearer geheim-token") {{ return 401; }}
        }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location /down/ {{ rewrite ^/down/(.*)$ http://127.0.0.1:{port}/$1 redirect; }}
    }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def openssl(openssl_path, *words, folder):
    subprocess.run([openssl_path, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_certificates(openssl_path, folder):
    """A CA, ca.pem, and a certificate for 127.0.0.1 that it has signed."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl(openssl_path, "req", "-x509", *curve, "-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem",
            folder=folder)
    openssl(openssl_path, "req", *curve, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr",
            folder=folder)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(openssl_path, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", "server.pem", folder=folder)


class Nginx:
    def __init__(self, folder, nginx_path, openssl_path):
        self.folder, self.www = folder, folder / "www"
        self.www.mkdir()
        self.port, self.tls_port = free_port(), free_port()
        self.ca = folder / "ca.pem"
        make_certificates(openssl_path, folder)
        (folder / "users").write_text("alice:{PLAIN}geh@eim\n")
        (folder / "configuration").write_text(CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "", folder=folder, port=self.port, tls_port=self.tls_port,
            temporary="".join(f"{name}_temp_path {folder}/{name}; " for name in TEMPORARY)))
        self.process = subprocess.Popen([nginx_path, "-p", folder, "-e", folder / "errors",
                                         "-c", folder / "configuration"])
        deadline = time.monotonic() + 20
        while not self.is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise RuntimeError("nginx did not start: " + (folder / "errors").read_text())
            time.sleep(0.01)

    def is_up(self):
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.tls_port)) == 0

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=20)

    def url(self, path, tls=False, user=""):
        scheme, port = ("https", self.tls_port) if tls else ("http", self.port)
        return f"{scheme}://{user}127.0.0.1:{port}/{path}"

    def log(self):
        """What was asked since the last call: (scheme, path, status, bytes sent, connection, range, authorization)."""
        mark = f"/mark-{time.monotonic_ns()}"
        try:
            urllib.request.urlopen(self.url(mark.lstrip("/")))
        except urllib.error.HTTPError:
            pass
        while mark not in (text := (self.folder / "log").read_text()):
            time.sleep(0.01)
        (self.folder / "log").write_bytes(b"")  # nginx appends, wherever it ends
        rows = [line.split(" ", 5) for line in text.splitlines() if "/mark-" not in line]
        return [(scheme, path, int(status), int(sent), connection, *more.strip('"').split('" "'))
                for scheme, path, status, sent, connection, more in rows]
