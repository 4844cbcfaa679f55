"""The page's web server: one thread, any number of viewers, of whom none slows another or the detector."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import ValidationError

from irforge.runtime.live import messages
from irforge.runtime.live.address import bound_socket, is_loopback, reachable
from irforge.runtime.live.hub import Hub, Shown
from irforge.runtime.live.picture import DisplayGain, Histogram, raw_png, snapshot_png
from irforge.runtime.live.session import LiveSession

_ASSETS = {
    "": ("index.html", "text/html"),
    "style.css": ("style.css", "text/css"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"{name}.js": (f"{name}.js", "text/javascript") for name in ("live", "link", "view", "charts", "targets")},
}
# Nothing but what this server gives is loaded or spoken to, and no other site may frame the page.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_STATE_SECONDS = 0.5
# One on its way while one is being drawn: a slow page then is a frame behind, not a network buffer full of them.
_IN_FLIGHT = 2
_HEARTBEAT_SECONDS = 20.0
_LONGEST_MESSAGE = 1024
_ENCODED_KEPT = 8

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(eq=False)
class _Viewer:
    socket: web.WebSocketResponse
    gain: DisplayGain
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0


class PageServer:
    """Serves the page while its `with` lasts.

    On a loopback address everybody at this machine may look, but for browsers that another site led here. On any other
    address only who knows the token in the URL may.

    Args:
        host: a name or address of this machine; 0.0.0.0 is all of them.
        port: 0 takes one that is free.

    Raises:
        EnvironmentFault, UsageError: see `bound_socket`.
    """

    def __init__(self, session: LiveSession, hub: Hub, host: str = "127.0.0.1", port: int = 8765) -> None:
        self._session, self._hub, self._host = session, hub, host
        self._socket = bound_socket(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(16)
        contract = session.detector.contract
        self._depth, self._classes = contract.input.bit_depth, contract.output.classes
        self._assets = {name: _asset(*asset) for name, asset in _ASSETS.items()}
        self._viewers: set[_Viewer] = set()
        self._histogram = Histogram(self._depth)
        self._counted: tuple[int, dict[str, Any] | None] = (0, None)
        self._encoded: OrderedDict[tuple[int, DisplayGain, bool], asyncio.Future[bytes]] = OrderedDict()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready = threading.Event()

    @property
    def urls(self) -> list[str]:
        """Where the page is; the address to try first stands in front."""
        hosts = reachable(self._host)
        path = f"{self.token}/" if self.token else ""
        return [f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{path}" for host in hosts]

    def __enter__(self) -> PageServer:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(_add_headers)
        root = f"/{self.token}/" if self.token else "/"
        handlers = {"ws": self._connect, "snapshot.png": self._snapshot, "frame.png": self._frame}
        app.add_routes([web.get(f"{root}{name}", handler) for name, handler in (self._assets | handlers).items()])
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        forget = self._hub.listen(self._wake_soon)
        self._ready.set()
        await self._stopping.wait()
        forget()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*map(self._dismiss, self._viewers)), 0.2)
        await runner.cleanup()

    async def _dismiss(self, viewer: _Viewer) -> None:
        with suppress(ConnectionError):
            await viewer.socket.send_str(messages.state(self._hub, len(self._viewers), self._counted[1]))
            await viewer.socket.close(code=WSCloseCode.GOING_AWAY, message=b"stopped")

    def _wake_soon(self) -> None:
        # A session that was left behind may publish after the end.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for viewer in self._viewers:
            viewer.changed.set()

    # A browser sends a page's requests wherever a name leads, and any page may open a WebSocket to any address.
    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.token:
            given = request.path.split("/")[1]
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                raise web.HTTPForbidden(text="Open the whole address that irforge printed, with its token.\n")
        elif not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            raise web.HTTPForbidden(text=f"Open http://127.0.0.1:{self.port}/ instead of this name for it.\n")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="Another site's page may not look here.\n")
        return await handler(request)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        connection = web.WebSocketResponse(
            heartbeat=_HEARTBEAT_SECONDS, max_msg_size=_LONGEST_MESSAGE, compress=False, timeout=0.2
        )
        await connection.prepare(request)
        viewer = _Viewer(connection, DisplayGain("full" if self._depth == 8 else "auto"))
        self._viewers.add(viewer)
        feeding = asyncio.create_task(self._feed(viewer))
        try:
            async for message in connection:
                if message.type is not WSMsgType.TEXT:
                    continue
                try:
                    self._obey(viewer, messages.MESSAGES.validate_json(message.data))
                except ValidationError:
                    await connection.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"no message of this page")
        finally:
            feeding.cancel()
            self._viewers.discard(viewer)
        return connection

    def _obey(self, viewer: _Viewer, message: messages.Message) -> None:
        if isinstance(message, messages.Seen):
            viewer.in_flight = max(viewer.in_flight - 1, 0)
        elif isinstance(message, messages.Gain):
            viewer.gain = message.gain
        elif isinstance(message, messages.Threshold):
            self._session.set_threshold(message.value)
        elif isinstance(message, messages.Pause):
            self._session.pause(message.paused)
        else:
            self._session.step()
        viewer.changed.set()

    async def _feed(self, viewer: _Viewer) -> None:
        """Whatever is newest when the page has time for it."""
        connection, version, due = viewer.socket, -1, 0.0
        sent: tuple[int, DisplayGain, bool] | None = None
        # Whoever is gone costs nothing more: the reading end hears of it too, and takes this viewer away.
        with suppress(ConnectionError):
            await connection.send_str(messages.hello(self._session))
            while True:
                viewer.changed.clear()
                now = self._loop.time()
                if now >= due or version != self._hub.version:
                    version, due = self._hub.version, now + _STATE_SECONDS
                    await connection.send_str(messages.state(self._hub, len(self._viewers), await self._levels()))
                latest = self._hub.latest
                if latest is not None and viewer.in_flight < _IN_FLIGHT:
                    # One looks closely at a frame that stands still.
                    wanted = latest.seq, viewer.gain, self._hub.paused
                    if wanted != sent:
                        viewer.in_flight += 1
                        sent = wanted
                        await connection.send_bytes(await self._message(latest, viewer.gain, wanted[2]))
                        continue
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(viewer.changed.wait(), due - self._loop.time())

    async def _message(self, shown: Shown, gain: DisplayGain, lossless: bool) -> bytes:
        """A frame as it is sent; viewers who see it alike share the work."""
        key = shown.seq, gain, lossless
        if key not in self._encoded:
            self._encoded[key] = self._loop.run_in_executor(
                None, messages.frame, shown, gain, self._depth, lossless, self._classes
            )
            while len(self._encoded) > _ENCODED_KEPT:
                self._encoded.popitem(last=False)
        # The work goes on for the others where this viewer leaves.
        return await asyncio.shield(self._encoded[key])

    async def _levels(self) -> dict[str, Any] | None:
        latest = self._hub.latest
        if latest is not None and latest.seq != self._counted[0]:
            self._counted = latest.seq, self._counted[1]
            counted = await self._loop.run_in_executor(None, self._histogram, latest.result.record.frame)
            self._counted = latest.seq, counted
        return self._counted[1]

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        shown = self._asked_for(request)
        try:
            picture = messages.Picture.model_validate(dict(request.query))
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"{error.errors()[0]['msg']}\n") from None
        content = await self._loop.run_in_executor(
            None, snapshot_png, shown.result, self._hub.threshold, picture.gain, self._depth, picture.palette
        )
        return _download(content, shown, "")

    async def _frame(self, request: web.Request) -> web.StreamResponse:
        shown = self._asked_for(request)
        return _download(await self._loop.run_in_executor(None, raw_png, shown.result.record.frame), shown, "_raw")

    def _asked_for(self, request: web.Request) -> Shown:
        seq = request.query.get("seq", "")
        shown = self._hub.find(int(seq)) if seq.isdecimal() and len(seq) < 20 else self._hub.latest
        if shown is None:
            raise web.HTTPGone(text="That frame is gone; pause first, then take it.\n")
        return shown


def _asset(file: str, kind: str) -> Handler:
    text = resources.files("irforge.runtime.live").joinpath("page", file).read_text("utf-8")

    async def give(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=kind, charset="utf-8")

    return give


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _download(content: bytes, shown: Shown, ending: str) -> web.Response:
    record = shown.result.record
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in Path(record.id).stem) or "frame"
    name = f"{stem}_{record.index:06d}{ending}.png"
    return web.Response(
        body=content, content_type="image/png", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )
