"""A metadata server like that of a Google Cloud VM, on the loopback."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MetadataServer(ThreadingHTTPServer):
    """Plays the metadata server on the loopback: `answers` by key, `asked` counts what was answered well."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), MetadataAnswer)
        self.answers = {"preempted": "FALSE", "maintenance-event": "NONE"}
        self.status, self.flavor = 200, "Google"
        self.asked = {"preempted": 0, "maintenance-event": 0}
        self.host = f"127.0.0.1:{self.server_port}"


class MetadataAnswer(BaseHTTPRequestHandler):
    def do_GET(self):
        key = self.path.removeprefix("/computeMetadata/v1/instance/")
        status = self.server.status if self.headers["Metadata-Flavor"] == "Google" else 403
        status = status if key in self.server.answers else 404
        self.send_response(status)
        self.send_header("Metadata-Flavor", self.server.flavor)
        self.end_headers()
        if status == 200:
            self.wfile.write(self.server.answers[key].encode())
        self.server.asked[key] = self.server.asked.get(key, 0) + 1

    def log_message(self, *_):
        pass


@contextmanager
def metadata_server(monkeypatch):
    with MetadataServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("GCE_METADATA_HOST", server.host)
        yield server
        server.shutdown()
        thread.join()
