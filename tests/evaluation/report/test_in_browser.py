"""Contract: in a browser without a network the report reads well on a phone, a tablet and a desktop, light and dark."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.report.page import to_page
from tests.evaluation.report.pages import page
from tests.fixtures.browser import Browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(to_page(page(title="zoo")), encoding="utf-8")
    return path


@pytest.fixture
def offline(browser: Browser) -> Iterator[Browser]:
    """Yield the browser without a network; restore its window afterwards."""
    command = browser.driver.execute_cdp_cmd
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    command("Network.enable", {})
    command("Network.emulateNetworkConditions", offline)
    yield browser
    command("Network.emulateNetworkConditions", offline | {"offline": False})
    command("Emulation.clearDeviceMetricsOverride", {})
    command("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [360, 820, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(offline: Browser, file: Path, width: int, scheme: str) -> None:
    command = offline.driver.execute_cdp_cmd
    command(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    offline.show(file.as_uri(), "passes every gate", "Leaderboard", "Provenance")
    assert offline.ask("document.title") == "zoo · rammerge report"
    assert offline.ask("performance.getEntriesByType('resource').length") == 0
    assert offline.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # What is wider than the window can be reached: the boxes around tables scroll.
    wide = "[...document.querySelectorAll('table')].filter(it => it.scrollWidth > it.parentElement.clientWidth)"
    assert offline.ask(f"{wide}.every(it => getComputedStyle(it.parentElement).overflowX === 'auto')")
    assert float(offline.ask(CONTRAST)) >= 4.5, "some text does not stand out from its ground"


# The least contrast ratio (WCAG 2.2, 1.4.3) of any text to what lies behind it.
CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const color = rgba(getComputedStyle(node).backgroundColor);
      if (color[3]) return color;
    }
    return [255, 255, 255];
  };
  const ratio = node => {
    const both = [luminance(rgba(getComputedStyle(node).color)), luminance(ground(node))].sort((x, y) => y - x);
    return (both[0] + .05) / (both[1] + .05);
  };
  const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  let least = 21;
  while (walker.nextNode()) {
    const text = walker.currentNode;
    if (text.textContent.trim()) least = Math.min(least, ratio(text.parentElement));
  }
  return least;
})()"""


def test_items_unfold_and_the_text_of_models_stays_text(offline: Browser, file: Path) -> None:
    offline.show(file.as_uri(), "Items that flipped")
    assert offline.ask("document.querySelectorAll('article.flip').length") > 0
    assert not offline.driver.find_element("css selector", "article.flip").is_displayed()
    offline.driver.find_element("css selector", "details summary").click()
    shown = offline.wait_for("<script>document.title=")
    assert "\\x1b[31mred" in shown
    assert offline.ask("document.title") == "zoo · rammerge report"
    assert offline.ask("getComputedStyle(document.body).display") == "block"
