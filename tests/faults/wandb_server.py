"""A W&B server in a thread: answers as much as `wandb.init` and uploads need, or no more than it is told to."""

import gzip
import http.server
import json
import threading


class WandbServer(http.server.ThreadingHTTPServer):
    """Serves on a port of its own; with `silent` set, requests are taken and never answered.

    Args:
        silent_paths: beginnings of paths that are never answered.
    """

    daemon_threads = True

    def __init__(self, silent_paths=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.silent_paths = tuple(silent_paths)
        self.bodies = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()

    def go_silent(self):
        self.silent_paths = ("/",)

    def history(self):
        """Rows of history that were uploaded."""
        files = [body["files"] for body in self.bodies if "files" in body]
        return [json.loads(row) for file in files for row in file.get("wandb-history.jsonl", {}).get("content", [])]


class _Handler(http.server.BaseHTTPRequestHandler):
    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if any(self.path.startswith(path) for path in self.server.silent_paths):
            self.server.over.wait()
            return
        answer = {}
        if self.path.startswith(("/graphql", "/files")):
            body = json.loads(body)
            self.server.bodies.append(body)
            answer = _data(body.get("query", ""), body.get("variables", {}))
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815

    def log_message(self, *_):
        pass


def _data(query, variables):
    if "UpsertBucket" in query:
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "somebody"}}
        bucket = {"id": "b", "name": variables["name"], "displayName": variables["displayName"], "config": "{}"}
        return {"data": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}}
    if "CreateRunFiles" in query:
        return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}}
    return {"data": {}}
