"""Our pages in a real browser: what they say on its console, what they fetch, what they paint."""

import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from data_pipelines.cli import main as timix_data
from tests.fake_run import make_fake_run
from tests.tiny import write_shards
from timix_pl.reports.page import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")


class Browser:
    """Headless Chromium without a network, which logs what a page says and what it asks for."""

    def __init__(self, profile):
        self._command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--hide-scrollbars"]
        self._command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=2000"]
        self._net_log = profile / "net.json"

    def open(self, page):
        """Load a page; its DOM once loaded, the lines on its console, and the addresses that it asked for."""
        command = [*self._command, f"--log-net-log={self._net_log}", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        requests = [event["params"] for event in json.loads(self._net_log.read_text())["events"] if "initiator" in event.get("params", {})]
        of_page = [request["url"] for request in requests if request["initiator"] != "not an origin"]  # that is Chromium's own business
        return done.stdout, re.findall(r"CONSOLE.*", done.stderr), of_page

    def screenshot(self, page, *, width, height, dark=False):
        """The page as painted; headless windows cannot be as narrow as a phone, so a frame of that width holds it."""
        frame, shot = page.with_name("frame.html"), page.with_name("shot.png")
        frame.write_text(f'<body style="margin:0"><iframe src="{page.name}" width={width} height={height} style="border:0"></iframe>')
        options = [
            f"--window-size={max(width, 600)},{height}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--screenshot={shot}",
        ]
        subprocess.run([*self._command, *options, frame.as_uri()], capture_output=True, timeout=120, check=True)
        return Image.open(shot).convert("RGB").crop((0, 0, width, height))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return Browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(make_fake_run(tmp_path_factory.mktemp("runs") / "demo"))


def test_an_error_and_an_outside_address_would_be_noticed(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<img src="https://example.org/a.png"><script>undefinedFunction()</script>')
    _, console, requests = browser.open(page)
    assert any("undefinedFunction is not defined" in line for line in console)
    assert requests == ["https://example.org/a.png"]


def test_the_report_opens_without_a_word_on_the_console_and_fetches_nothing(browser, report):
    dom, console, requests = browser.open(report)
    assert console == requests == []
    assert dom.count("<figure") == 18 + 4 + 4  # charts, mixed pairs, heat maps
    assert dom.count("<polyline") > 20
    assert "41.2%" in dom and dom.rstrip().endswith("</html>")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pictures_and_curves_are_painted_in_both_schemes(browser, report, dark):
    shot = browser.screenshot(report, width=1280, height=4600, dark=dark)
    colours = {colour for _, colour in shot.getcolors(maxcolors=1 << 24)}
    assert {(200, 40, 40), (40, 160, 60), (50, 80, 200)} <= colours  # of the made-up scenes
    assert ((86, 180, 233) if dark else (0, 114, 178)) in colours  # the first curve
    assert (sum(shot.getpixel((2, 2))) < 150) == dark  # the page itself


def test_the_report_fits_a_phone(browser, report):
    """Nothing is wider than the screen: the strip at the right edge is empty all the way down."""
    shot = browser.screenshot(report, width=390, height=9000)
    assert len(shot.crop((386, 0, 390, 9000)).getcolors(maxcolors=1 << 16)) == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_of_an_inspection_paints_its_boxes_fits_a_phone_and_fetches_nothing(browser, tmp_path, dark):
    page = tmp_path / "page.html"
    assert timix_data(["inspect", str(write_shards(tmp_path / "shards", 20, num_regions=2)), "--html", str(page)]) == 0
    dom, console, requests = browser.open(page)
    assert console == requests == [] and dom.count("<figure") == 20
    colours = {colour for _, colour in browser.screenshot(page, width=1280, height=2000, dark=dark).getcolors(maxcolors=1 << 24)}
    assert {(86, 180, 233), (255, 160, 77)} <= colours  # the first box and the second
    shot = browser.screenshot(page, width=390, height=6000, dark=dark)
    assert (sum(shot.getpixel((2, 2))) < 150) == dark
    assert len(shot.crop((386, 0, 390, 6000)).getcolors(maxcolors=1 << 16)) == 1
