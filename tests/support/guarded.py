"""A bucket on loopback that requires credentials. Requests and responses contain planted secrets."""

import base64
import http.server
import re
import threading
from contextlib import contextmanager
from pathlib import Path

KEY, SECRET = "AKIAPLANTED0PLANTED0", "hunter2secret"
PLANTED = (KEY, SECRET, base64.b64encode(f"{KEY}:{SECRET}".encode()).decode())


class Bucket:
    """Serves the files of a folder as ``{url}/bucket/...`` to authenticated clients, of S3 or plain HTTP.

    ``refusal`` is an S3 error code for every request, or None. The server computes no signature. A request must contain
    the planted key.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.refusal, self.requests = folder, None, []
        self.url = ""

    def find(self, path: str) -> Path:
        return self.folder / path.partition("?")[0].removeprefix("/bucket").lstrip("/")


@contextmanager
def serve(folder: Path):
    """Serve a folder for the duration of a context."""
    bucket = Bucket(Path(folder))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            bucket.requests.append(self.path)
            shown, file = self.headers.get("Authorization", ""), bucket.find(self.path)
            if bucket.refusal or not any(text in shown for text in PLANTED):
                return self.refuse(403, bucket.refusal or "AccessDenied")
            if not file.is_file():
                return self.refuse(404, "NoSuchKey")
            content, wanted = file.read_bytes(), re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            size = len(content)
            self.send_response(206 if wanted else 200)
            if wanted:
                start, stop = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
                content = content[start : stop + 1]
                self.send_header("Content-Range", f"bytes {start}-{stop}/{size}")
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            return self.answer(content)

        do_HEAD = do_GET  # noqa: N815  the name in the standard library

        def refuse(self, status, code):
            self.send_response(status)
            text = f"<Error><Code>{code}</Code><Message>{KEY} may not</Message><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>"
            self.answer(f"<?xml version='1.0'?>{text}".encode())

        def answer(self, content):
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        bucket.url = f"http://127.0.0.1:{web.server_port}"
        yield bucket
        web.shutdown()
        thread.join()
