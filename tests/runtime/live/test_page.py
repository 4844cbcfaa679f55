"""Promises of the page itself, in a real Chromium: what is seen moves, and what is touched acts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.runtime.detector import SessionDetector
from tests.runtime.live.conftest import Live, eventually

pytest.importorskip("aiohttp", reason="the live page needs aiohttp: pip install 'irforge[live]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the page is tested by Playwright: pip install playwright"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="the page is tested in Chromium: apt-get install chromium"),
    # A browser that draws without a GPU, on cores that others use too.
    pytest.mark.timeout(900),
]

Page = Any
LAPTOP, PHONE, TABLET = ({"width": w, "height": h} for w, h in ((1280, 800), (390, 844), (768, 1024)))
# Software rendering pays for every pixel.
SMALL = {"width": 900, "height": 480}
PATIENCE_MS = 200_000
# Of some pixels of the picture: the sum of the channels, and whether any is coloured.
PIXELS = """() => {
  const view = document.getElementById("view"), row = Math.round(view.height / 2);
  let sum = 0, coloured = false;
  for (let y = row - 8; y < row + 8; y += 1) {
    const data = view.getContext("2d").getImageData(0, y, view.width, 1).data;
    for (let i = 0; i < data.length; i += 4) {
      sum += data[i] + data[i + 1] + data[i + 2];
      coloured ||= Math.abs(data[i] - data[i + 2]) > 8;
    }
  }
  return { sum, coloured };
}"""
FAINT_TEXT = Path(__file__).with_name("faint_text.js").read_text()
NAMELESS = """() => [...document.querySelectorAll("button, input")].filter((e) => !(
  e.getAttribute("aria-label") || e.labels?.[0]?.innerText.trim() || e.innerText.trim() || e.title)).length"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox does not work for root, as whom tests in a container run.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Page]]:
    """Opens a page at a URL, in a browser profile of its own; nothing may go wrong in its scripts."""
    faults: list[str] = []
    contexts = []

    def open_page(url: str, size: dict[str, int] = SMALL, **options: Any) -> Page:
        context = browser.new_context(viewport=size, accept_downloads=True, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def seen(page: Page) -> Page:
    """The page, once there are targets on it."""
    page.wait_for_function("() => Number(document.getElementById('found').textContent) >= 1")
    return page


def number(page: Page, name: str) -> float:
    return float(page.inner_text(f"#{name}"))


def set_slider(page: Page, name: str, value: float) -> None:
    page.eval_on_selector(
        f"#{name}", f"e => {{ e.value = {value}; e.dispatchEvent(new Event('input', {{ bubbles: true }})) }}"
    )


def status(page: Page, wanted: str) -> None:
    page.wait_for_function(f"() => document.getElementById('status').dataset.state === '{wanted}'")


def picture(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_stream_is_visible_and_moves(live: Live, look: Callable[..., Page]) -> None:
    page = seen(look(live.url))
    sums: set[int] = set()
    eventually(lambda: sums.add(page.evaluate(PIXELS)["sum"]) or len(sums) >= 4)
    assert min(sums) > 0
    page.wait_for_function("() => Number(document.getElementById('fps').textContent) > 0")
    page.wait_for_function("() => document.querySelector('#spark .trace').getAttribute('d').length > 20")
    assert page.inner_text("#p50").endswith("ms") and page.inner_text("#p99").endswith("ms")
    for name in ("p50", "p99"):
        assert page.get_attribute(f"#spark .{name}", "d").startswith("M0,")
    assert page.inner_text("#model") == "peaks.onnx"
    assert page.locator("#targets li").count() >= 1
    status(page, "live")


def test_the_threshold_acts_at_once_on_the_page_and_then_in_the_detector(live: Live, look: Callable[..., Page]) -> None:
    page = seen(look(live.url))
    before = page.evaluate(
        """() => { const e = document.getElementById('threshold');
        e.value = 0.97; e.dispatchEvent(new Event('input', { bubbles: true }));
        return document.getElementById('found').textContent }"""
    )
    assert before == "0"
    eventually(lambda: live.hub.threshold == 0.97 and len(live.hub.latest.result.detections) == 0)
    assert page.inner_text("#threshold-value") == "0.97" and page.is_visible("#none")
    page.click("#reset-threshold")
    seen(page)
    assert live.hub.threshold == 0.5


def test_a_second_viewer_sees_the_same_and_hears_of_the_first(live: Live, look: Callable[..., Page]) -> None:
    one, other = look(live.url), look(live.url, PHONE, is_mobile=True, has_touch=True)
    seen(one), seen(other)
    set_slider(one, "threshold", 0.9)
    other.wait_for_function("() => document.getElementById('threshold-value').textContent === '0.90'")
    other.wait_for_function("() => document.getElementById('status').textContent.includes('2 viewers')")
    one.context.close()
    other.wait_for_function("() => !document.getElementById('status').textContent.includes('viewers')")
    set_slider(other, "threshold", 0.5)
    seen(other)


def test_a_snapshot_and_the_raw_frame_are_downloads(live: Live, look: Callable[..., Page], tmp_path: Path) -> None:
    page = seen(look(live.url))
    page.click("#play")
    status(page, "paused")
    page.click("#palettes label:nth-child(3)")
    saved = {}
    for button in ("snapshot", "raw"):
        with page.expect_download() as download:
            page.click(f"#{button}")
        download.value.save_as(tmp_path / button)
        saved[button] = picture((tmp_path / button).read_bytes()), download.value.suggested_filename
    marked, raw = saved["snapshot"][0], saved["raw"][0]
    index = int(saved["raw"][1].split("_")[-2])
    assert np.array_equal(raw, live.camera.scene.frame(index))
    assert saved["snapshot"][1] == f"camera_0_{index:06d}.png" and marked.shape[:2] == (640, 640)
    # Ironbow, and green marks upon it.
    assert (marked[..., 2] > marked[..., 1]).mean() > 0.5
    assert ((marked[..., 1] > 200) & (marked[..., 2] < 120)).any()
    assert page.inner_text("#play").strip() == "Start"
    page.click("#play")
    status(page, "live")


def test_pause_step_and_go_on_by_keys(live: Live, look: Callable[..., Page]) -> None:
    page = seen(look(live.url))
    page.keyboard.press("Space")
    status(page, "paused")
    eventually(lambda: live.hub.paused)
    page.wait_for_timeout(500)
    before = page.inner_text("#where")
    page.wait_for_timeout(500)
    assert page.inner_text("#where") == before
    page.keyboard.press(".")
    page.wait_for_function(f"() => document.getElementById('where').innerText !== {before!r}")
    page.keyboard.press("Space")
    status(page, "live")
    page.keyboard.press("]")
    page.wait_for_function("() => document.getElementById('threshold-value').textContent === '0.51'")
    page.keyboard.press("?")
    assert page.is_visible("#keys")


def test_palettes_and_gain_change_the_picture_and_nothing_else(live: Live, look: Callable[..., Page]) -> None:
    page = seen(look(live.url))
    page.uncheck("#boxes", force=True), page.uncheck("#labels", force=True)
    assert not page.evaluate(PIXELS)["coloured"]
    page.keyboard.press("3")
    assert page.evaluate(PIXELS)["coloured"]
    page.keyboard.press("1")
    white = page.evaluate(PIXELS)
    page.keyboard.press("2")
    black = page.evaluate(PIXELS)
    # The scene lies below the middle of the scale: black-hot is the brighter picture.
    assert not white["coloured"] and not black["coloured"] and black["sum"] > 1.3 * white["sum"]
    page.keyboard.press("1")
    page.keyboard.press("a")
    page.wait_for_function("() => document.getElementById('low-value').textContent !== '0'")
    auto = page.evaluate(PIXELS)["sum"]
    # A little above the scene's level of 90.
    set_slider(page, "high", 92)
    page.wait_for_function("() => document.getElementById('high-value').textContent === '92'")
    eventually(lambda: page.evaluate(PIXELS)["sum"] > 1.5 * auto)
    assert page.is_checked("#modes [value=manual]")
    assert live.hub.threshold == 0.5


def test_frames_that_a_slow_detector_dropped_are_counted(
    detector: SessionDetector, live: Live, look: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = detector.decode
    monkeypatch.setattr(detector, "decode", lambda *given: (time.sleep(0.3), decode(*given))[1])
    page = seen(look(live.url))
    page.wait_for_function("() => Number(document.getElementById('dropped').textContent) >= 3")
    dropped, read = (int(word) for word in page.get_attribute("#dropped", "title").split() if word.isdecimal())
    assert 3 <= dropped < read


def test_a_lost_source_is_shown_and_its_return_too(live: Live, look: Callable[..., Page]) -> None:
    page = seen(look(live.url))
    live.camera.unplugged.set()
    status(page, "lost")
    assert page.inner_text("#banner b") == "Source lost" and "connecting again" in page.inner_text("#banner span")
    assert "dim" in page.get_attribute("#stage", "class")
    live.camera.unplugged.clear()
    status(page, "live")
    page.wait_for_selector("#banner", state="hidden")
    seen(page)


def test_a_page_whose_server_goes_says_so(look: Callable[..., Page], start: Callable[..., Live]) -> None:
    live = start()
    page = seen(look(live.url))
    live.session.__exit__(None, None, None)
    status(page, "stopped")
    assert "stopped" in page.inner_text("#banner b")


def test_without_the_token_there_is_no_page(
    start: Callable[..., Live], browser: Any, look: Callable[..., Page]
) -> None:
    live = start("0.0.0.0")
    here = f"http://127.0.0.1:{live.server.port}/"
    context = browser.new_context()
    page = context.new_page()
    assert page.goto(here).status == 403 and page.locator("canvas").count() == 0
    assert "token" in page.inner_text("body")
    context.close()
    seen(look(f"{here}{live.server.token}/"))


@pytest.mark.parametrize("size", [LAPTOP, PHONE, TABLET], ids=["laptop", "phone", "tablet"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(live: Live, look: Callable[..., Page], size: dict[str, int], scheme: str) -> None:
    page = seen(look(live.url, size, color_scheme=scheme))
    wide = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
    assert page.evaluate(NAMELESS) == 0
    assert page.evaluate(FAINT_TEXT) == []
