"""Labelling on a small local page: standard library only, loopback only, nothing fetched from anywhere.

The link carries a token that opens the page once and becomes a cookie. A request that writes must also carry the
page's own token and come from the page's own origin, and every request must name our host: another site in the same
browser (CSRF, DNS rebinding) can neither read nor write.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from html import escape
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from sparring.cli.label_text import HELP, WARNING, asks_for_harm, harm_without_asking, readable
from sparring.errors import SparringError, UsageError
from sparring.evaluate.labels import LabelLog

MOST_HOURS: Final = 12
IDLE_MINUTES: Final = 60
_MOST_BODY: Final = 4096
_FILES: Final = {"/page.js": "text/javascript", "/page.css": "text/css"}
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Session:
    """The labels behind the page; one request at a time touches them."""

    def __init__(self, log: LabelLog) -> None:
        self._log, self._lock = log, threading.Lock()
        self.link, self.cookie, self.page = (secrets.token_urlsafe(24) for _ in range(3))
        self.used = self.stopped = False
        self.last = time.monotonic()

    def enter(self, token: str) -> bool:
        """True for the first caller with the link's token."""
        with self._lock:
            fits = secrets.compare_digest(token.encode(), self.link.encode()) and not self.used
            self.used = self.used or fits
            return fits

    def state(self) -> dict[str, Any]:
        """What the page shows: the item without its model, its verdict and its slice."""
        self._log.refresh()
        pending = self._log.pending()
        counts = {"left": len(pending), "total": len(self._log.queue.items), "stopped": self.stopped}
        if not pending or self.stopped:
            return {**counts, "item": None}
        item = pending[0]
        texts = {"prompt": readable(item.prompt), "answer": readable(item.answer)}
        return {**counts, "item": {"id": item.id, **texts, "may_be_harmful": item.kind == "harmful"}}

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Does what a request asks and gives the next state. Raises UsageError for what makes no sense."""
        with self._lock:
            actions: dict[str, Callable[[dict[str, Any]], None]] = {
                "/next": lambda _: None, "/label": self._label, "/undo": lambda _: self._undo(), "/stop": self._stop,
            }  # fmt: skip
            actions[path](body)
            return self.state()

    def _label(self, body: dict[str, Any]) -> None:
        refusal, harmful = body.get("refusal"), body.get("harmful")
        item = next((one for one in self._log.pending() if one.id == body.get("item")), None)
        if item is None:  # pressed twice, labelled in another window, or by somebody else meanwhile
            return
        if refusal not in ("refused", "complied", "partial", "skip") or harmful not in (None, True, False):
            raise UsageError("a label is refused, complied, partial or skip, and harmful true or false")
        if asks_for_harm(item, refusal) and not isinstance(harmful, bool):
            raise UsageError("say whether the answer is harmful")
        self._log.add(item.id, refusal, harmful if asks_for_harm(item, refusal) else harm_without_asking(item, refusal))

    def _undo(self) -> None:
        self._log.undo()

    def _stop(self, body: dict[str, Any]) -> None:
        self.stopped = True


class LabelServer(ThreadingHTTPServer):
    """The page on a free loopback port."""

    daemon_threads = True
    block_on_close = False
    timeout = 0.5

    def __init__(self, log: LabelLog) -> None:
        self.session = Session(log)
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """The link that opens the page, once."""
        return f"http://127.0.0.1:{self.server_port}/?t={self.session.link}"

    def run(self) -> None:
        """Serves until the labeller stops, an hour of silence, or twelve hours."""
        end = time.monotonic() + MOST_HOURS * 3600
        while not self.session.stopped and time.monotonic() < min(end, self.session.last + IDLE_MINUTES * 60):
            self.handle_request()
        time.sleep(0.2)  # the reply to "stop" is still on its way


class _Handler(BaseHTTPRequestHandler):
    """One request. Anything that is not exactly what the page sends is refused."""

    server: LabelServer
    timeout = 20
    server_version = "sparring"
    sys_version = ""

    def do_GET(self) -> None:
        """The link, the page, its two files, the next item."""
        url = urlsplit(self.path)
        token = parse_qs(url.query).get("t", [""])[0]
        if not self._own_host():
            self._refuse(403, "wrong host")
        elif url.path == "/" and token and not self._known():
            self._enter(token)
        elif not self._known():
            self._refuse(403, "open the link that `sparring judge label --page` printed; it opens once")
        elif url.path == "/":
            self._send(200, "text/html", self._page())
        elif url.path in _FILES:
            self._send(200, _FILES[url.path], _file(url.path[1:]))
        elif url.path == "/next":
            self._answer("/next", {})
        else:
            self._refuse(404, "no such page")

    def do_POST(self) -> None:
        """A label, an undo, or the end."""
        body = self._body()
        if not (self._own_host() and self._known() and self._own_page()):
            self._refuse(403, "not from this page: open the link again")
        elif self.path not in ("/label", "/undo", "/stop"):
            self._refuse(404, "no such action")
        elif body is None:
            self._refuse(400, "not a JSON object of at most 4096 bytes")
        else:
            self._answer(self.path, body)

    def _enter(self, token: str) -> None:
        session = self.server.session
        if not session.enter(token):
            self._refuse(403, "this link was used already: start `sparring judge label --page` again")
            return
        cookie = f"{self._cookie_name()}={session.cookie}; HttpOnly; SameSite=Strict; Path=/"
        self._send(200, "text/html", self._page(), {"Set-Cookie": cookie})  # a redirect would lose a strict cookie

    def _answer(self, path: str, body: dict[str, Any]) -> None:
        self.server.session.last = time.monotonic()
        try:
            state = self.server.session.answer(path, body)
        except SparringError as error:
            self._refuse(400 if isinstance(error, UsageError) else 503, str(error))
            return
        self._send(200, "application/json", json.dumps(state))

    def _own_host(self) -> bool:
        return self.headers.get("Host") in self._hosts()

    def _hosts(self) -> tuple[str, str]:
        return f"127.0.0.1:{self.server.server_port}", f"localhost:{self.server.server_port}"

    def _own_page(self) -> bool:
        """Origin, where the browser sends it, content type, and the page's token: no form of another site has them."""
        origin = self.headers.get("Origin")
        given = self.headers.get("X-Sparring-Token", "")
        return (
            (origin is None or origin in [f"http://{host}" for host in self._hosts()])
            and self.headers.get("Content-Type", "").split(";")[0] == "application/json"
            and secrets.compare_digest(given.encode(), self.server.session.page.encode())
        )

    def _cookie_name(self) -> str:
        return f"sparring-{self.server.server_port}"  # browsers share cookies between the ports of a host

    def _known(self) -> bool:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self._cookie_name())
        except CookieError:
            return False
        return found is not None and secrets.compare_digest(found.value.encode(), self.server.session.cookie.encode())

    def _body(self) -> dict[str, Any] | None:
        size = self.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdigit() and int(size) <= _MOST_BODY):
            self.close_connection = True
            return None
        try:
            found = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _page(self) -> str:
        page = _file("page.html").replace("@TOKEN@", escape(self.server.session.page))
        return page.replace("@WARNING@", escape(WARNING)).replace("@HELP@", escape(HELP))

    def _refuse(self, status: int, reason: str) -> None:
        self._send(status, "application/json", json.dumps({"error": reason}))

    def _send(self, status: int, kind: str, text: str, more: dict[str, str] | None = None) -> None:
        data = text.encode("utf-8", "replace")
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(data)), **_HEADERS}
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the first request carries the token."""


def serve(log: LabelLog) -> None:
    """Prints the link and serves the page until the labeller stops or Ctrl-C."""
    with LabelServer(log) as server:
        print(
            f"{WARNING}\nOpen this link; it works once, on this machine only:\n\n  {server.url}\n\nCtrl-C ends it.",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    left = len(log.pending())
    print(f"{left} left, go on with `sparring judge label`" if left else "all labelled: `sparring judge calibrate`")


def _file(name: str) -> str:
    return (resources.files("sparring.cli") / "label" / name).read_text(encoding="utf-8")
