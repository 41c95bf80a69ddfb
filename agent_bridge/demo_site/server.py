"""The demo's web server, inside the desktop: serves a form and writes down what it is sent."""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

THANKS = """<!doctype html><meta charset="utf-8"><title>Thank you</title>
<h1>Thank you. Danke. 谢谢. 🎉</h1>
<script>requestAnimationFrame(() => requestAnimationFrame(() =>
  fetch("/thanked", { method: "POST", body: "true" })))</script>"""


def save(name: str, data: bytes) -> None:
    """Write a file that is there only when it is whole."""
    with open(name + ".part", "wb") as file:
        file.write(data)
    os.replace(name + ".part", name)


class Handler(BaseHTTPRequestHandler):
    timeout = 0.3  # one after the other: browsers connect in advance too, and say nothing then

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path != "/":
            return self.answer(404)
        with open("form.html", "rb") as file:
            self.answer(200, file.read())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path in ("/fields", "/filled", "/thanked"):  # what the pages tell of themselves
            save(self.path[1:] + ".json", body)
            return self.answer(204)
        sent = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        save("text", sent["text"].encode())
        save("result.json", json.dumps(sent, ensure_ascii=False).encode())
        self.answer(200, THANKS.encode())


server = HTTPServer(("127.0.0.1", 8000), Handler)
save("serving.json", b"true")
server.serve_forever()
