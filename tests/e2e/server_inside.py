"""A server for tests, run inside a desktop: says what it was asked, and echoes over a WebSocket."""

import base64
import hashlib
import http.server
import json
import sys
import time

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket" and self.path != "/moved":
            return self.echo()
        if self.path == "/page":
            return self.answer(PAGE.encode(), "text/html")
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/asked")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path == "/stream":
            return self.stream()
        if self.path == "/garbage":
            self.wfile.write(b"garbage\r\n\r\n")
            self.close_connection = True
            return None
        return self.do_POST()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        told = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        self.answer(json.dumps(told).encode(), "application/json")

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Set-Cookie", "mine=1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        for number in range(300):
            self.wfile.write(f"data: {number}\n\n".encode())
            time.sleep(0.1)

    def echo(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + GUID
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2:
            length = head[1] & 127  # short ones only
            mask, data = self.rfile.read(4), self.rfile.read(length)
            plain = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
            if head[0] & 15 == 8:
                return
            self.wfile.write(bytes([0x81, len(plain)]) + plain)


PAGE = """<!doctype html><title>Inside</title><h1 id=said>asking</h1><script>
const socket = new WebSocket(`ws://${location.host}/echo`);
socket.onopen = () => socket.send("hello");
socket.onmessage = message => said.textContent = `echo: ${message.data}`;
socket.onerror = () => said.textContent = "no socket";
</script>"""

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
