"""A small shop that a desktop serves to itself; what it was told is written to orders.json."""

from __future__ import annotations

import http.server
import json
import urllib.parse

GOODS = {"1": ("Red kettle", 30), "2": ("Blue kettle", 35), "3": ("Teapot", 20)}
TOLD: dict[str, object] = {"cart": [], "coupon": None}
STYLE = """<meta charset=utf-8><style>body{font:16px sans-serif;margin:20px}
button,input,a{font:inherit;margin:4px}</style>"""


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query))
        if path == "/login" or "user=" not in self.headers.get("Cookie", ""):
            return self._page(
                "Log in",
                """<form method=post action=/login><label>User <input name=user></label>
                <label>Password <input type=password name=password></label>
                <button>Log in</button></form>""",
            )
        if path == "/":
            found = "".join(
                f"<li>{name}, {price} EUR <a href='/goods/{id_}'>{name}</a></li>"
                for id_, (name, price) in GOODS.items()
                if asked.get("q", "").lower() in name.lower()
            )
            return self._page(
                "Shop",
                f"""<form><label>Search <input name=q></label><button>Find</button></form>
                <main><h1>Goods</h1><ul>{found}</ul></main><a href=/cart>Cart</a>""",
            )
        if path.startswith("/goods/"):
            name, price = GOODS[path.rpartition("/")[2]]
            return self._page(
                name,
                f"""<h1>{name}</h1><p>{price} EUR</p><form method=post action=/cart>
                <input type=hidden name=id value={path.rpartition("/")[2]}>
                <button>Add to cart</button></form>""",
            )
        if path == "/cart":
            lines = "".join(f"<li>{each}</li>" for each in TOLD["cart"])  # type: ignore[attr-defined]
            return self._page(
                "Cart",
                f"""<h1>Cart</h1><ul>{lines}</ul><form method=post action=/upload
                enctype=multipart/form-data><label>Coupon <input type=file name=file></label>
                <button>Send coupon</button></form><a href=/invoice.txt download>Invoice</a>
                <form method=post action=/order onsubmit="return confirm('Buy it?')">
                <button>Check out</button></form>""",
            )
        if path == "/invoice.txt":
            return self._send(200, b"invoice", "text/plain")
        self._page("Nothing", "Nothing is here.", 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        given = dict(urllib.parse.parse_qsl(body.decode("utf-8", "replace")))
        if self.path == "/login":
            is_right = given.get("password") == "open sesame"
            return self._to("/" if is_right else "/login", "user=ada" if is_right else "")
        if self.path == "/cart":
            TOLD["cart"].append(GOODS[given["id"]][0])  # type: ignore[attr-defined]
            return self._to("/cart")
        if self.path == "/upload":
            TOLD["coupon"] = b"TEN-OFF" in body
            return self._to("/cart")
        with open("orders.json", "a") as file:
            file.write(json.dumps(TOLD) + "\n")
        TOLD["cart"], TOLD["coupon"] = [], None
        self._page("Thanks", "<h1>Thank you, Ada</h1><a href=/login>Again</a>")

    def _page(self, title: str, body: str, status: int = 200) -> None:
        page = f"<!doctype html><title>{title}</title>{STYLE}{body}"
        self._send(status, page.encode(), "text/html; charset=utf-8")

    def _to(self, path: str, cookie: str = "") -> None:
        self.send_response(303)
        self.send_header("Location", path)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Shop).serve_forever()
