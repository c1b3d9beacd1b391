"""Who is told when a search is over, and what."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from data.faults import InputError
from sweep.orchestrator import notify
from sweep.orchestrator.notify import notifying
from sweep.system.errors import StudyFailedError, StudyInterruptedError
from tests.helpers.studies import STUDY, sweep, tiny


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict]]]:
    """A server that takes JSON: its URL with a token, and what it was sent. `/gone` it does not know."""
    received: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(404 if "gone" in self.path else 200)
            self.end_headers()

        def log_message(self, *_) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook?token=hunter2", received
    server.shutdown()
    server.server_close()


def told(target: str | None, error: BaseException | None = None) -> list[str]:
    said: list[str] = []
    ends = nullcontext() if error is None else pytest.raises(type(error))
    with ends, notifying(target, ["x/cnn1"], said.append) as message:
        if error is not None:
            raise error
        message["best"] = 1
    return said


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (None, {"event": "complete", "studies": ["x/cnn1"], "best": 1}),
        (StudyFailedError("no disk"), {"event": "failed", "studies": ["x/cnn1"], "error": "no disk"}),
        (StudyInterruptedError("stopped"), {"event": "interrupted", "studies": ["x/cnn1"], "error": "stopped"}),
        (KeyboardInterrupt(), {"event": "interrupted", "studies": ["x/cnn1"], "error": ""}),
        (InputError("another study"), None),  # nothing began
    ],
)
def test_a_command_and_a_webhook_are_told_how_it_ended(error, event, webhook, tmp_path: Path):
    url, received = webhook
    assert told(url, error) == []
    assert told(f"cat > {tmp_path}/told.json", error) == []
    assert received == ([event] if event else [])
    assert (tmp_path / "told.json").exists() == (event is not None)
    if event:
        assert json.loads((tmp_path / "told.json").read_text()) == event


def test_who_cannot_be_told_is_named_without_a_token_and_the_search_ends_as_it_did(webhook, monkeypatch):
    url, _ = webhook
    assert told(url.replace("hook", "gone")) == ["note: --notify 127.0.0.1: it answers 404; nobody was told"]
    assert told("http://127.0.0.1:1/?token=hunter2") == ["note: --notify 127.0.0.1: ConnectionError; nobody was told"]
    assert told("exit 3") == ["note: --notify exit 3: it ended with exit code 3; nobody was told"]
    monkeypatch.setattr(notify, "SECONDS", 0.2)
    assert told("sleep 5") == ["note: --notify sleep 5: it took longer than 0 s; nobody was told"]
    assert told(None, StudyFailedError("no disk")) == []


def test_a_search_tells_its_best(pictures: Path, tmp_path: Path):
    done = sweep(tmp_path, *tiny(pictures, 1, "--notify", "cat > told.json"), blank_figures=True)
    assert done.returncode == 0, done.stderr
    message = json.loads((tmp_path / "told.json").read_text())
    assert (message["event"], message["studies"]) == ("complete", [STUDY])
    assert message["best"][0]["model"] == "models:/blob-pictures/1"
    assert message["best"][0]["test"].keys() == {"accuracy", "auroc"}
