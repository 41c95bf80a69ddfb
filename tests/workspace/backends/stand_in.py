"""A daemon in desktopd's place: it answers commands and nothing else, and starts at once.

Isolation is the sandbox's business whatever runs in it, so most tests need no X and no desktop.
One request at a time, without a thread, so that it answers beside a fork bomb too.
It is run inside the sandbox as ``python3 -c``, with the standard library only.
"""

import json
import os
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

LISTEN, CONFIG, READY = 10, 11, 12


class Handler(BaseHTTPRequestHandler):
    token = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {self.token}":
            self._answer(401, {"code": "unauthorized", "message": "no", "hint": ""})
            return
        try:
            done = subprocess.run(
                ["choom", "-n", "500", "--", "bash", "-c", body["command"]],
                capture_output=True, text=True, timeout=body.get("timeout_seconds", 30),
                stdin=subprocess.DEVNULL, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self._answer(504, {"code": "command_timed_out", "message": "slow", "hint": ""})
            return
        except OSError as error:
            self._answer(500, {"code": "internal", "message": str(error), "hint": ""})
            return
        answer = {"exit_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        self._answer(200, answer)

    def _answer(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(HTTPServer):
    def __init__(self, listener: socket.socket) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        return self.socket.accept()[0], ("", 0)


def main() -> None:
    for fd in (LISTEN, CONFIG, READY):
        os.set_inheritable(fd, False)
    with open(CONFIG) as config:
        Handler.token = json.load(config)["token"]
    server = Server(socket.socket(fileno=LISTEN))
    with open(READY, "w") as ready:
        ready.write(sys.argv[1] + "\n" if len(sys.argv) > 1 else '{"ready": true}\n')
    server.serve_forever()


if __name__ == "__main__":
    main()
