"""Run within a network namespace of its own: an Envoy, a workload, and a client of addresses.

    python in_namespace.py ENVOY BOOTSTRAP ADDRESS...

Prints what a GET of each address, port 80, is answered. What leads connections to Envoy is done by
whoever starts this. Only the standard library: it is another process's namespace.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

READY_S = 30.0


class Workload(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the workload")

    def log_message(self, *args: object) -> None:
        pass


def main(envoy: str, bootstrap: str, *addresses: str) -> None:
    server = HTTPServer(("127.0.0.1", 8080), Workload)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    process = subprocess.Popen(
        [envoy, "-c", bootstrap, "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    )
    try:
        _wait_ready()
        print(json.dumps({address: _get(address) for address in addresses}))
    finally:
        process.terminate()
        process.wait()


def _wait_ready() -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s:
        try:
            urllib.request.urlopen("http://127.0.0.1:9901/ready", timeout=1).read()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("Envoy is not ready")


def _get(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    try:
        return str(urllib.request.urlopen(f"http://{host}/", timeout=3).read().decode())
    except OSError as error:
        return str(getattr(error, "reason", error))


if __name__ == "__main__":
    main(*sys.argv[1:])
