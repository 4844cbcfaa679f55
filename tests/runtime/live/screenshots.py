"""`python -m tests.runtime.live.screenshots URL FOLDER`: the page as docs/live.md shows it, on a laptop and a phone."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SHOTS = {"live": (1280, 800, 1, False), "live-phone": (390, 844, 2, True)}
READY = "() => document.querySelector('#spark .trace').getAttribute('d').length > 1500 && found.textContent >= 1"


def take(url: str, folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height, scale, mobile) in SHOTS.items():
            page = browser.new_page(
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                is_mobile=mobile,
                color_scheme="dark",
            )
            page.goto(url)
            page.wait_for_function(READY, timeout=300_000)
            page.screenshot(path=folder / f"{name}.png")
            page.close()


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]))
