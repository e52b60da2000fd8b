"""Headless Chromium, controlled by the DevTools protocol, for the tests of the page."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from cpu_time import CPU_TIME

CHROMIUM: Final = (
    shutil.which("chromium-headless-shell")  # takes a third of the others' CPU time
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
)

WAIT_TIMEOUT: Final = 60.0
"""Seconds after which something on the page counts as never happening."""

KEYS: Final = {
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "ArrowRight": {"code": "ArrowRight", "windowsVirtualKeyCode": 39},
    "ArrowDown": {"code": "ArrowDown", "windowsVirtualKeyCode": 40},
}
SHIFT: Final = 8


class Browser:
    """One tab. ``errors`` are those of the page: exceptions, violated policies."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: dict[str, str] = {}
        self.errors: list[str] = []

    async def _listen(self) -> None:
        async for message in self._socket:
            document = json.loads(message.data)
            if "id" in document:
                self._answers.pop(document["id"]).set_result(document)
            elif document["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(document["params"]["exceptionDetails"]))
            elif document["method"] == "Log.entryAdded":
                entry = document["params"]["entry"]
                if entry["source"] != "network":  # a refusal is one, and no mistake
                    self.errors.append(entry["text"])

    async def call(self, method: str, **params: object) -> Any:
        """Call a method of the browser, and return its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(
            {"id": number, "method": method, "params": params, **self._session}
        )
        async with asyncio.timeout(WAIT_TIMEOUT):
            document = await answer
        assert "error" not in document, document
        return document["result"]

    async def attach(self) -> None:
        """Open an empty tab."""
        self._context = await self.call("Target.createBrowserContext")
        target = await self.call("Target.createTarget", url="about:blank", **self._context)
        attached = await self.call("Target.attachToTarget", flatten=True, **target)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def close(self) -> None:
        """Close the tab, and delete its data."""
        self._session = {}
        await self.call("Target.disposeBrowserContext", **self._context)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def reload(self) -> None:
        await self.run("window.old = true")
        await self.call("Page.reload")
        await self.until("!window.old && document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """Evaluate *script* in the page, and return its value."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Evaluate *script* repeatedly until its value is true."""
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT_TIMEOUT
        while loop.time() < end:
            if await self.run(f"Boolean({script})"):
                return
            await asyncio.sleep(0.01)
        shown = await self.run("document.body.innerText")
        raise AssertionError(f"never: {script}\nerrors: {self.errors}\non the page:\n{shown}")

    async def shows(self, text: str, within: str = "body") -> None:
        """Wait until *text* is visible in an element that *within* selects."""
        elements = f"[...document.querySelectorAll({json.dumps(within)})]"
        await self.until(f"{elements}.some(one => one.innerText.includes({json.dumps(text)}))")

    async def press(self, *keys: str, shift: bool = False) -> None:
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                await self.call(
                    "Input.dispatchKeyEvent",
                    **{"type": kind, "key": key, "modifiers": SHIFT * shift, **KEYS[key]},
                )

    async def write(self, text: str) -> None:
        """Type into the element that has the focus."""
        await self.call("Input.insertText", text=text)

    async def focused(self) -> str:
        """Return the id of the element that has the focus, or else its name."""
        element = "document.activeElement"
        return str(await self.run(f"{element}.id || {element}.name || {element}.textContent"))

    async def tab_to(self, wanted: str, *, shift: bool = False) -> list[str]:
        """Press Tab until *wanted* has the focus; return the elements that had it before."""
        passed_ids: list[str] = []
        while await self.focused() != wanted:
            assert len(passed_ids) < 40, passed_ids
            await self.press("Tab", shift=shift)
            passed_ids.append(await self.focused())
        return passed_ids

    async def look(self, width: int, height: int, scheme: str = "light") -> bytes:
        """Return a screenshot (PNG) of the page in a window of this size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        await self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
        picture = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(picture["data"])


@contextmanager
def running_chromium() -> Iterator[str]:
    """Run Chromium, and return the address of its protocol."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",  # root, in a container, has none
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with process:
            try:
                yield _address(process, Path(profile, "DevToolsActivePort"))
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def _address(process: subprocess.Popen[bytes], port_file: Path) -> str:
    """Return the address that Chromium writes to a file in *port_file* when it is ready."""
    end = time.monotonic() + WAIT_TIMEOUT
    while time.monotonic() < end and process.poll() is None:
        if port_file.exists() and len(words := port_file.read_text("utf-8").split()) == 2:
            return f"ws://127.0.0.1:{words[0]}{words[1]}"
        time.sleep(0.02)
    raise AssertionError("Chromium did not start")


@pytest.fixture(scope="session")
def chromium() -> Iterator[str]:
    """One Chromium for all tests of a run, because its start takes long."""
    with ExitStack() as running:
        yield running.enter_context(running_chromium())
        with CPU_TIME.ending_shared():
            running.close()


@asynccontextmanager
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """Open an empty tab without data of others, in the Chromium at this address."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(chromium, max_msg_size=0) as socket,
    ):
        tab = Browser(socket)
        listening = asyncio.ensure_future(tab._listen())
        try:
            await tab.attach()
            yield tab
            await tab.close()
        finally:
            listening.cancel()
            await asyncio.wait([listening])
