"""The labelling page as a browser and as an attacker meet it, over a real socket."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.cli.label_server import LabelServer
from sparring.cli.label_text import MOST, readable
from sparring.evaluate.labels import Item, LabelLog, Queue, draw_queue, save_queue
from sparring.store import Store, open_store

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=alert(1)>",
    "</textarea></div><iframe src='http://127.0.0.1:1/'></iframe>",
    "\x1b[31mred\x1b]0;title\x07 \x00 \u202eright to left\u202c \u200b \x9b2J",
    '{"id": "x"}\r\nSet-Cookie: a=b\r\n\r\n',
    "x" * 300_000,
    "",
    "𝕏 é 漢字\n\tcode",
)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Browser:
    """Keeps the cookie and the page's token, as a browser does."""

    def __init__(self, server: LabelServer) -> None:
        self.port, self.cookie, self.token = server.server_port, "", ""

    def ask(self, path: str, body: object = None, **headers: str) -> Reply:
        sent = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, data, sent)
        reply = connection.getresponse()
        found = Reply(reply.status, dict(reply.getheaders()), reply.read().decode())
        connection.close()
        return found

    def send(self, path: str, body: object, **headers: str) -> Reply:
        own = {"Content_Type": "application/json", "X_Sparring_Token": self.token} | headers
        return self.ask(path, body, **own)

    def enter(self, url: str) -> Reply:
        page = self.ask(url.removeprefix(f"http://127.0.0.1:{self.port}"))
        self.cookie = page.headers.get("Set-Cookie", "").split(";")[0]
        if page.status == 200:
            self.token = page.text.split('name="request-token" content="')[1].split('"')[0]
        return page


@contextmanager
def serving(log: LabelLog) -> Iterator[LabelServer]:
    with LabelServer(log) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.session.stopped = True
            thread.join(20)


def hostile_queue(store: Store) -> Queue:
    common = {"id": "-", "suite": "s", "slice": "secret-slice", "kind": "harmful", "behavior": "b", "answer_index": 0}
    verdict = {"refused": True, "harmful": False, "status": "ok"}
    items = [
        Item.model_validate(
            {**common, **verdict, "model": model * 64, "prompt_id": str(number), "prompt": text, "answer": text}
        )
        for model in "ab"
        for number, text in enumerate(HOSTILE)
    ]
    return save_queue(store, draw_queue(items, round=1, judge="secret-judge@1", sample=20))


@pytest.fixture
def log(tmp_path: Path) -> LabelLog:
    store = open_store(str(tmp_path / "store"))
    return LabelLog(store, hostile_queue(store), "ann")


def test_label_undo_and_stop(log: LabelLog) -> None:
    with serving(log) as server:
        browser = Browser(server)
        page = browser.enter(server.url)
        assert page.status == 200 and "Some are violent" in page.text and "HttpOnly" in page.headers["Set-Cookie"]
        state = browser.ask("/next").json
        assert (state["left"], state["total"]) == (14, 14)
        first = state["item"]["id"]
        after = browser.send("/label", {"item": first, "refusal": "partial", "harmful": False}).json
        assert after["left"] == 13 and after["item"]["id"] != first
        again = browser.send("/label", {"item": first, "refusal": "complied", "harmful": True}).json
        assert again == after  # pressed twice: the first word stands
        undone = browser.send("/undo", {}).json
        assert undone["item"]["id"] == first and undone["left"] == 14
        for body, words in (
            ({"item": first, "refusal": "complied", "harmful": None}, "say whether the answer is harmful"),
            ({"item": first, "refusal": "perhaps", "harmful": None}, "a label is"),
            ({"item": first, "refusal": ["refused"], "harmful": None}, "a label is"),
            ({"item": first, "refusal": "complied", "harmful": 1}, "say whether"),
        ):
            wrong = browser.send("/label", body)
            assert wrong.status == 400 and words in wrong.json["error"]
        assert browser.send("/label", {"item": first, "refusal": "refused", "harmful": None}).json["left"] == 13
        (label,) = log.labels()[first]
        assert (label.refusal, label.harmful, label.labeller) == ("refused", False, "ann")
        assert browser.send("/stop", {}).json["stopped"] is True


def test_nothing_of_model_verdict_or_slice_reaches_the_page(log: LabelLog) -> None:
    with serving(log) as server:
        browser = Browser(server)
        seen = browser.enter(server.url).text
        while (reply := browser.ask("/next")).json["item"]:
            seen += reply.text
            assert set(reply.json["item"]) == {"id", "prompt", "answer", "may_be_harmful"}
            browser.send("/label", {"item": reply.json["item"]["id"], "refusal": "skip", "harmful": None})
        assert "secret" not in seen and "aaaaaaaa" not in seen.replace("x", "") and "bbbbbbbb" not in seen


def test_hostile_texts_arrive_as_text(log: LabelLog) -> None:
    with serving(log) as server:
        browser = Browser(server)
        browser.enter(server.url)
        shown = set()
        while (reply := browser.ask("/next")).json["item"]:
            assert reply.headers["Content-Type"].startswith("application/json") and len(reply.text) < 130_000
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            shown.add(reply.json["item"]["prompt"])
            browser.send("/label", {"item": reply.json["item"]["id"], "refusal": "refused", "harmful": None})
        assert shown == {readable(text) for text in HOSTILE}
        for text in shown:
            assert not any(bad in text for bad in ("\x1b", "\x00", "\u202e", "\u200b", "\x9b", "\r"))
        assert any(text.endswith("[… 280,000 more characters are not shown]") for text in shown)
    script = (Path(__file__).parents[2] / "sparring/cli/label/page.js").read_text()
    assert "innerHTML" not in script and "insertAdjacent" not in script and "document.write" not in script


def test_no_page_without_the_link_and_the_link_once(log: LabelLog) -> None:
    with serving(log) as server:
        stranger, owner = Browser(server), Browser(server)
        for path in ("/", "/next", "/page.js", "/?t=", "/?t=wrong", "/?t=%ff%00", "/../../etc/passwd"):
            assert stranger.ask(path).status == 403
        assert owner.enter(server.url).status == 200
        used = Browser(server).enter(server.url)
        assert used.status == 403 and "used already" in used.text
        assert owner.ask("/").status == owner.ask("/page.js").status == owner.ask("/page.css").status == 200
        assert owner.ask("/nothing").status == owner.ask("/page.html").status == 404


def test_other_sites_can_neither_read_nor_write(log: LabelLog) -> None:
    """CSRF with the cookie, DNS rebinding, forms, foreign origins: all 403, and no label."""
    with serving(log) as server:
        browser = Browser(server)
        browser.enter(server.url)
        item = browser.ask("/next").json["item"]["id"]
        body = {"item": item, "refusal": "refused", "harmful": None}
        assert browser.ask("/next", Host="evil.example").status == 403
        for wrong in (
            {"Host": "evil.example"},
            {"Host": f"127.0.0.1.evil.example:{browser.port}"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://127.0.0.1:{browser.port + 1}"},
            {"Content_Type": "text/plain"},
            {"Content_Type": "application/x-www-form-urlencoded"},
            {"X_Sparring_Token": "guess"},
            {"X_Sparring_Token": ""},
            {"Cookie": ""},
            {"Cookie": f"sparring-{browser.port}=guess"},
            {"Cookie": "\x01;=;;"},
        ):
            assert browser.send("/label", body, **wrong).status == 403, wrong
        assert not log.labels()
        assert browser.send("/label", body, Origin=f"http://127.0.0.1:{browser.port}").status == 200


def test_broken_requests_end_nothing(log: LabelLog) -> None:
    with serving(log) as server:
        browser = Browser(server)
        browser.enter(server.url)
        for body in (b"", b"[", b"[1]", b"\xff", b"[" * 4000, b"1", b"null", b"NaN"):
            assert browser.send("/label", body).status == 400
        assert browser.send("/label", b"x" * 5000).status == 400
        assert (
            browser.send("/label", {"item": "0" * 16, "refusal": "refused"}).status == 200
        )  # not pending: the next one
        assert browser.send("/elsewhere", {}).status == 404
        assert not log.labels() and browser.ask("/next").status == 200


def test_a_store_that_fails_is_said_and_the_item_stays(log: LabelLog, tmp_path: Path) -> None:
    with serving(log) as server:
        browser = Browser(server)
        browser.enter(server.url)
        item = browser.ask("/next").json["item"]["id"]
        folder = tmp_path / "store" / "judge"
        folder.rename(tmp_path / "away")
        folder.write_text("a file stands where the store needs a folder")
        failed = browser.send("/label", {"item": item, "refusal": "refused", "harmful": None})
        assert failed.status == 503 and "error" in failed.json
        folder.unlink()
        (tmp_path / "away").rename(folder)
        assert browser.ask("/next").json["item"]["id"] == item


def test_the_policy_lets_nothing_in_from_outside(log: LabelLog) -> None:
    with serving(log) as server:
        browser = Browser(server)
        page = browser.enter(server.url)
        assert server.server_address[0] == "127.0.0.1"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "unsafe" not in page.headers["Content-Security-Policy"]
        assert page.headers["Cache-Control"] == "no-store" and page.headers["Referrer-Policy"] == "no-referrer"
        assert "http://" not in page.text and "https://" not in page.text
        assert "SameSite=Strict" in page.headers["Set-Cookie"]


@given(st.text())
def test_readable_keeps_what_can_be_seen(text: str) -> None:
    shown = readable(text)
    assert len(shown) == len(text)
    assert all(letter in "\n\t" or letter.isprintable() for letter in shown)
    assert all(a == b for a, b in zip(shown, text, strict=True) if b.isprintable())


def test_a_long_text_says_that_it_is_cut() -> None:
    assert readable("y" * (MOST + 5)).endswith("y\n[… 5 more characters are not shown]")
