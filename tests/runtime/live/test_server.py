"""Promises of the server: every viewer gets what is newest, none slows another, and only who may sees anything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import cv2
import numpy as np
import pytest

from irforge.errors import EnvironmentFault, UsageError
from irforge.runtime.detector import SessionDetector
from irforge.runtime.live.address import bound_socket, is_loopback, reachable
from irforge.runtime.sources.synthetic import Scene, Synthetic
from tests.runtime.live.conftest import Live, eventually

aiohttp = pytest.importorskip("aiohttp", reason="the live page needs aiohttp: pip install 'irforge[live]'")

ASSETS = ("", "style.css", "icon.svg", "live.js", "link.js", "view.js", "charts.js", "targets.js")


class Viewer:
    """What a page is to the server."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.hello: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self.frames: list[dict[str, Any]] = []
        self.picture = b""

    async def say(self, **message: Any) -> None:
        await self.connection.send_str(json.dumps(message))

    async def until(self, condition: Callable[[], Any], seen: bool = True, seconds: float = 120.0) -> None:
        """Take in messages until something is so; `seen` says thanks for each frame."""
        await asyncio.wait_for(self._take_in(condition, seen), seconds)

    async def _take_in(self, condition: Callable[[], Any], seen: bool) -> None:
        while not condition():
            message = await self.connection.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                content = json.loads(message.data)
                setattr(self, content["kind"], content)
            elif message.type is aiohttp.WSMsgType.BINARY:
                length = int.from_bytes(message.data[:4], "little")
                self.frames.append(json.loads(message.data[4 : 4 + length]))
                self.picture = message.data[4 + length :]
                if seen:
                    await self.say(kind="seen")
            else:
                raise AssertionError(f"the server hung up: {message}")


def watching(live: Live, script: Callable[..., Awaitable[None]], viewers: int = 1) -> None:
    """Run a script with so many viewers connected."""

    async def run() -> None:
        async with aiohttp.ClientSession() as client:
            connections = [await client.ws_connect(urljoin(live.url, "ws")) for _ in range(viewers)]
            await script(*map(Viewer, connections))
            for connection in connections:
                await connection.close()

    asyncio.run(run())


def asked(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    async def run() -> tuple[int, dict[str, str], bytes]:
        async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as response:
            return response.status, dict(response.headers), await response.read()

    return asyncio.run(run())


# --- frames and settings


def test_a_viewer_gets_the_model_the_state_and_frames_with_what_was_found(live: Live) -> None:
    async def script(viewer: Viewer) -> None:
        await viewer.until(lambda: len(viewer.frames) >= 5 and viewer.state.get("latencies"))
        assert viewer.hello["model"]["detector"] == "peaks" and viewer.hello["model"]["threshold"] == 0.5
        assert viewer.hello["source"] == {"name": "camera:0", "camera": True, "frames": None, "fps": 12.5}
        indices = [frame["index"] for frame in viewer.frames]
        assert indices == sorted(set(indices))
        last = viewer.frames[-1]
        assert last["type"] == "image/jpeg" and (last["width"], last["height"]) == (64, 64)
        shown = cv2.imdecode(np.frombuffer(viewer.picture, np.uint8), cv2.IMREAD_UNCHANGED)
        true = live.camera.scene.frame(last["index"])
        assert shown.shape == true.shape and np.abs(shown.astype(int) - true).mean() < 3
        for target in live.camera.scene.truth(last["index"]):
            apart = [np.abs(np.array(found["box"]) - target).max() for found in last["detections"]]
            assert min(apart) <= 1.5
        state = viewer.state
        assert state["status"] == "running" and state["viewers"] == 1 and state["p50"] <= state["p99"]
        assert set(state["stages"]) == {"prepare", "infer", "decode"} and len(state["histogram"]["bins"]) == 96

    watching(live, script)


def test_frames_that_a_slow_detector_dropped_are_told(
    detector: SessionDetector, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = detector.decode
    monkeypatch.setattr(detector, "decode", lambda *given: (time.sleep(0.3), decode(*given))[1])

    async def script(viewer: Viewer) -> None:
        await viewer.until(lambda: viewer.state.get("dropped", 0) >= 3)
        assert viewer.state["read"] > viewer.state["dropped"]

    watching(live, script)


def test_a_camera_that_changes_its_size_is_followed(live: Live) -> None:
    async def script(viewer: Viewer) -> None:
        await viewer.until(lambda: viewer.frames)
        live.camera.scene = Synthetic(Scene(width=96, height=80, frames=0, noise=1.0))
        await viewer.until(lambda: viewer.frames[-1]["width"] == 96)
        assert cv2.imdecode(np.frombuffer(viewer.picture, np.uint8), cv2.IMREAD_UNCHANGED).shape == (80, 96)
        assert viewer.state["status"] == "running"

    watching(live, script)


def test_one_viewers_threshold_is_everybodys(live: Live) -> None:
    async def script(one: Viewer, other: Viewer) -> None:
        await other.until(lambda: other.frames and other.frames[-1]["detections"])
        await one.say(kind="threshold", value=0.97)
        await other.until(lambda: other.state["threshold"] == 0.97 and not other.frames[-1]["detections"])
        await other.say(kind="threshold", value=0.5)
        await one.until(lambda: one.state.get("threshold") == 0.5 and one.frames and one.frames[-1]["detections"])

    watching(live, script, viewers=2)


def test_one_viewers_gain_is_its_own(live: Live) -> None:
    async def script(one: Viewer, other: Viewer) -> None:
        await one.say(kind="gain", mode="manual", low=80, high=120)
        await one.until(lambda: one.frames and one.frames[-1]["low"] == 80)
        await other.until(lambda: len(other.frames) >= 3)
        assert {(frame["low"], frame["high"]) for frame in other.frames} == {(0, 255)}

    watching(live, script, viewers=2)


def test_a_viewer_that_is_busy_gets_two_frames_and_the_others_go_on(live: Live) -> None:
    async def script(slow: Viewer, quick: Viewer) -> None:
        await slow.until(lambda: len(slow.frames) == 2, seen=False)
        await quick.until(lambda: len(quick.frames) >= 20)
        with pytest.raises(asyncio.TimeoutError):
            await slow.until(lambda: len(slow.frames) > 2, seen=False, seconds=0.5)
        await slow.say(kind="seen")
        await slow.until(lambda: len(slow.frames) == 3, seen=False)
        # The one that comes then is the newest, not the one that was next.
        assert slow.frames[2]["seq"] > slow.frames[1]["seq"] + 5

    watching(live, script, viewers=2)


def test_a_viewer_that_vanishes_leaves_nothing_behind(live: Live) -> None:
    async def script(lost: Viewer, staying: Viewer) -> None:
        await staying.until(lambda: staying.state.get("viewers") == 2)
        lost.connection._response.connection.transport.abort()
        await staying.until(lambda: staying.state["viewers"] == 1)
        before = len(staying.frames)
        await staying.until(lambda: len(staying.frames) > before + 3)

    watching(live, script, viewers=2)


def test_what_is_no_message_of_the_page_ends_that_connection_only(live: Live) -> None:
    async def script(*viewers: Viewer) -> None:
        *wrong, good = viewers
        bad = ["{", '{"kind": "threshold", "value": 7}', '{"kind": "format"}', '{"kind": "step", "more": 1}']
        for viewer, text in zip(wrong, bad, strict=True):
            await viewer.connection.send_str(text)
            with pytest.raises(AssertionError, match="hung up"):
                await viewer.until(lambda: False)
            assert viewer.connection.close_code == aiohttp.WSCloseCode.UNSUPPORTED_DATA
        await good.until(lambda: len(good.frames) >= 3)
        assert good.state["threshold"] == 0.5

    watching(live, script, viewers=5)


def test_a_paused_frame_is_lossless_and_steps_one_by_one(live: Live) -> None:
    async def script(viewer: Viewer) -> None:
        await viewer.until(lambda: viewer.frames)
        await viewer.say(kind="pause", paused=True)
        await viewer.until(lambda: viewer.state["paused"] and viewer.frames[-1]["type"] == "image/png")
        await asyncio.sleep(0.3)
        await viewer.say(kind="step")
        count = viewer.frames[-1]["index"]
        await viewer.until(lambda: viewer.frames[-1]["index"] > count)
        last = viewer.frames[-1]
        assert last["type"] == "image/png"
        shown = cv2.imdecode(np.frombuffer(viewer.picture, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(shown, live.camera.scene.frame(last["index"]))
        await viewer.say(kind="pause", paused=False)
        await viewer.until(lambda: viewer.frames[-1]["type"] == "image/jpeg" and not viewer.state["paused"])

    watching(live, script)


def test_a_lost_camera_is_said_and_so_is_its_return(live: Live) -> None:
    async def script(viewer: Viewer) -> None:
        await viewer.until(lambda: viewer.frames)
        live.camera.unplugged.set()
        await viewer.until(lambda: viewer.state["status"] == "lost")
        assert viewer.state["note"] == "camera:0 gives no frames; connecting again"
        count = len(viewer.frames)
        live.camera.unplugged.clear()
        await viewer.until(lambda: viewer.state["status"] == "running" and len(viewer.frames) > count)
        assert viewer.state["note"] == ""

    watching(live, script)


# --- snapshots


def test_the_raw_frame_of_a_moment_is_that_frame(live: Live) -> None:
    shown = eventually(lambda: live.hub.latest)
    status, headers, content = asked(urljoin(live.url, f"frame.png?seq={shown.seq}"))
    index = shown.result.record.index
    assert status == 200 and headers["Content-Disposition"] == f'attachment; filename="camera_0_{index:06d}_raw.png"'
    levels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(levels, live.camera.scene.frame(index))


def test_a_snapshot_is_as_it_was_asked_for(live: Live) -> None:
    shown = eventually(lambda: live.hub.latest and len(live.hub.latest.result.detections) and live.hub.latest)
    query = f"seq={shown.seq}&palette=ironbow&mode=manual&low=0&high=255"
    status, headers, content = asked(urljoin(live.url, f"snapshot.png?{query}"))
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert status == 200 and headers["Content-Type"] == "image/png" and picture.shape[1] >= 640
    assert (picture[..., 0] != picture[..., 2]).any()


@pytest.mark.parametrize("query", ["palette=rainbow", "mode=manual&low=-1", "low=x", "what=1"])
def test_a_snapshot_of_another_kind_is_refused(live: Live, query: str) -> None:
    eventually(lambda: live.hub.latest)
    assert asked(urljoin(live.url, f"snapshot.png?{query}"))[0] == 400


def test_a_frame_that_is_gone_is_gone(live: Live) -> None:
    eventually(lambda: live.hub.latest)
    for seq in ("999999999", "0"):
        status, _, content = asked(urljoin(live.url, f"frame.png?seq={seq}"))
        assert status == 410 and b"pause first" in content


# --- who may look


def test_the_page_needs_nothing_from_elsewhere(live: Live) -> None:
    for name in ASSETS:
        status, headers, content = asked(urljoin(live.url, name))
        assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text.replace('"https:"', "")


def test_without_the_token_nothing_is_given(start: Callable[..., Live]) -> None:
    live = start("0.0.0.0")
    port, token = live.server.port, live.server.token
    assert len(token) >= 20 and all(url.endswith(f":{port}/{token}/") for url in live.server.urls)
    here = f"http://127.0.0.1:{port}/"
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    eventually(lambda: live.hub.latest)
    for name in (*ASSETS, "ws", "snapshot.png", "frame.png", "nothing"):
        for path in (name, f"{wrong}/{name}", f"x/{token}/{name}", f"%00/{name}", f"é/{name}"):
            status, _, content = asked(here + path)
            assert status == 403 and token.encode() not in content
    assert asked(f"{here}{token}/")[0] == 200
    assert asked(f"{here}{token}/frame.png")[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "10.0.0.1", "127.0.0.1.evil.example"])
def test_a_name_that_leads_here_from_elsewhere_is_refused(live: Live, host: str) -> None:
    assert asked(live.url, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8765"])
def test_a_tunnel_to_this_machine_is_not(live: Live, host: str) -> None:
    assert asked(live.url, Host=host)[0] == 200


def test_another_sites_page_may_not_connect(live: Live) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as client:
            for origin in ("http://evil.example", "null", f"http://127.0.0.1:{live.server.port + 1}"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await client.ws_connect(urljoin(live.url, "ws"), origin=origin)
                assert refused.value.status == 403
            own = await client.ws_connect(urljoin(live.url, "ws"), origin=live.url.rstrip("/"))
            await own.close()

    asyncio.run(run())


def test_addresses() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1") and is_loopback("127.9.9.9")
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.0.2", "example.com", "::", "")))
    assert reachable("192.168.0.2") == ["192.168.0.2"] and "0.0.0.0" not in reachable("0.0.0.0")


def test_a_port_that_is_taken_is_said() -> None:
    with bound_socket("127.0.0.1", 0) as taken, pytest.raises(EnvironmentFault, match=r"is taken.*--port"):
        bound_socket("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["192.0.2.77", "no.such.host.invalid"])
def test_an_address_of_no_interface_is_said(host: str) -> None:
    with pytest.raises(UsageError, match="no address of this machine"):
        bound_socket(host, 0)


# --- the command


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path, peaks: Path) -> None:
    out = tmp_path / "out.jsonl"
    scene = "synthetic:64x64,frames=0,live=1,fps=50"
    command = [sys.executable, "-m", "irforge.cli", "live", str(peaks), scene, "--port", "0", "--json", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("Detector(peaks.onnx")
        url = process.stdout.readline().removeprefix("Open ").strip()
        assert url.startswith("http://127.0.0.1:") and asked(url)[0] == 200
        eventually(lambda: asked(urljoin(url, "frame.png"))[0] == 200)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        took = time.monotonic() - start
        closing, errors = process.stdout.read(), process.stderr.read()
    # It takes less than one on a machine that has nothing else to do.
    assert took < 10 and errors == ""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert closing.startswith(f"{len(lines)} frames, ") and [line["index"] for line in lines] == sorted(
        line["index"] for line in lines
    )
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("./nowhere",), 3, ("nowhere",)),
        (("synthetic:64x64", "--host", "192.0.2.77", "--port", "0"), 2, ("no address", "--host")),
        (("synthetic:64x64,live=1", "--port", "{taken}"), 5, ("is taken", "--port")),
    ],
)
def test_mistakes_are_one_line(
    peaks: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [argument.format(taken=taken.getsockname()[1]) for argument in arguments]
        command = [sys.executable, "-m", "irforge.cli", "live", str(peaks), *given, "--json", "o.jsonl"]
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == code and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words) and not list(tmp_path.iterdir())


def test_without_aiohttp_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, peaks: Path) -> None:
    from irforge.runtime.live.watch import live

    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "irforge.runtime.live.server", raising=False)
    with pytest.raises(EnvironmentFault, match=r"needs aiohttp.*irforge\[live\]"):
        live(peaks, "synthetic:64x64")
