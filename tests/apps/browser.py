"""A headless Chromium, told what to do over the WebDriver protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    DRIVER is None, reason="chromedriver is not installed (apt-get install chromium chromium-driver)"
)


class Page:
    """One open page."""

    def __init__(self, address: str, session: str) -> None:
        self._session = f"{address}/session/{session}"

    def call(self, path: str, **data: Any) -> Any:
        return _request("POST", f"{self._session}/{path}", data)

    def run(self, script: str) -> Any:
        return self.call("execute/sync", script=script, args=[])

    def console(self) -> list[dict]:
        return self.call("se/log", type="browser")

    def press(self, key: str) -> None:
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("actions", actions=[{"type": "key", "id": "keyboard", "actions": keys}])

    def colour_scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features})

    def screenshot(self) -> bytes:
        return base64.b64decode(_request("GET", f"{self._session}/screenshot"))


@contextlib.contextmanager
def open_page(file: Path, *, width: int, height: int, mobile: bool) -> Iterator[Page]:
    """Open a file; without network, since every name but the page's own resolves to nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    options: dict[str, Any] = {
        "args": [
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--window-size={width},{height}", "--host-resolver-rules=MAP * ~NOTFOUND"),
        ]
    }
    if mobile:
        options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2}}
    wanted = {"goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options}
    try:
        _wait_for(address)
        session = _request("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        page = Page(address, session)
        page.call("url", url=file.as_uri())
        yield page
        _request("DELETE", f"{address}/session/{session}")
    finally:
        driver.kill()
        driver.wait()


def _wait_for(address: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            _request("GET", f"{address}/status")
            return
        except urllib.error.URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _request(method: str, url: str, data: Any = None) -> Any:
    body = json.dumps(data).encode() if method == "POST" else None
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["value"]
