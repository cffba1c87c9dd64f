"""Chromium without a window, for tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
# Pairs of texts that a reader sees on top of each other: corners of both, and the texts.
OVERLAPS = """
const seen = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, of = node.parentElement;
  if (!node.textContent.trim() || of.closest('script, noscript, title, option')) continue;
  if (!of.checkVisibility()) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) {
    let [left, top, right, bottom] = [box.left, box.top, box.right, box.bottom];
    for (let out = of; out; out = out.parentElement) {
      const style = getComputedStyle(out);
      if (style.overflowX === 'visible' && style.overflowY === 'visible') continue;
      const edge = out.getBoundingClientRect();
      left = Math.max(left, edge.left); right = Math.min(right, edge.right);
      top = Math.max(top, edge.top); bottom = Math.min(bottom, edge.bottom);
    }
    if (right - left > 1 && bottom - top > 1) seen.push([left, top, right, bottom, node]);
  }
}
const found = [];
for (let i = 0; i < seen.length; i += 1) for (let j = i + 1; j < seen.length; j += 1) {
  const a = seen[i], b = seen[j];
  if (a[4] === b[4]) continue;
  const across = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const down = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (across > 2 && down > 4) found.push([a[4].textContent.trim(), b[4].textContent.trim()]);
}
return [seen.length, found];
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"):
        options.add_argument(word)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # as root it starts only so
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def opened(browser: Any, address: str, width: int = 1400, scheme: str = "light") -> Any:
    """Show a page; nothing may be on its console."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(address)
    assert browser.get_log("browser") == []
    return browser


def parts(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)
