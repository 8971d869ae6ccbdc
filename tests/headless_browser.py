"""A browser without a window, where this machine has one: what a page looks like to it."""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
SECONDS = 60
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage",
)  # fmt: skip

# Runs before anything else of the page, so that every request is seen, also one that the policy then forbids. What lies
# further down than the window would not be laid out, nor measured.
_WATCH = """<script>
const refused = [];
document.addEventListener("securitypolicyviolation", event => refused.push(event.blockedURI));
window.marks = 0;
</script><style>.row { content-visibility: visible !important; }</style>"""
_MEASURE = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const asked = performance.getEntriesByType("resource").map(entry => entry.name);
  const box = element => element.getBoundingClientRect();
  const wide = [...document.querySelectorAll("body *")].filter(element => box(element).right > innerWidth + 1
    && !element.closest(".path, .hidden, .label"));
  const measured = {
    natural: images.map(image => image.naturalWidth), shown: images.map(image => box(image).width),
    asked: asked.filter(name => !name.startsWith("data:")), refused,
    width: innerWidth, scrolled: document.documentElement.scrollWidth, outside: wide.map(element => element.className),
    marks: window.marks, scripts: document.scripts.length, text: document.body.innerText,
    columns: new Set([...document.querySelectorAll(".hits .card")].map(card => box(card).left)).size,
  };
  parent.document.getElementById("measured").textContent = JSON.stringify(measured);
});
</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page.

    Attributes
    ----------
    natural, shown : list of float
        Width in pixels of each image, as it is stored and as it is shown.
    asked : list of str
        Addresses that were asked for, other than those inside of the page.
    refused : list of str
        What the page's policy kept the browser from doing.
    width, scrolled : int
        Of the window, and of what would have to be scrolled sideways.
    outside : list of str
        Classes of elements that stick out on the right.
    marks : int
        What scripts in the page have added to ``window.marks``.
    scripts : int
        Scripts of the page, without those that measure.
    text : str
        As it is read.
    columns : int
        Of neighbours.
    """

    natural: list[float]
    shown: list[float]
    asked: list[str]
    refused: list[str]
    width: int
    scrolled: int
    outside: list[str]
    marks: int
    scripts: int
    text: str
    columns: int


def find_browser() -> str:
    """Return a browser of the Chromium family, or skip the test; FEATX_BROWSER names one."""
    browser = os.environ.get("FEATX_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed; FEATX_BROWSER names another browser")
    return browser


def look_at(page: Path, *, width: int, height: int = 900) -> Seen:
    """Return what a browser sees of a copy of a page to which a script that measures was added.

    The copy's policy allows scripts written in the page, and is otherwise that of the page. It is shown in a frame, for
    a window cannot be as narrow as a phone.
    """
    source = page.read_text(encoding="utf-8")
    for before, after in (
        ("default-src &#x27;none&#x27;;", "default-src &#x27;none&#x27;; script-src &#x27;unsafe-inline&#x27;;"),
        ('<meta name="viewport"', f'{_WATCH}<meta name="viewport"'),
        ("</body>", f"{_MEASURE}</body>"),
    ):
        if source.count(before) != 1:
            pytest.fail(f"{before!r} is {source.count(before)} times in the page, not once")
        source = source.replace(before, after)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.html")
        frame = f'<iframe srcdoc="{html.escape(source)}" style="width:{width}px;height:{height}px;border:0"></iframe>'
        copy.write_text(f'<!DOCTYPE html><meta charset="utf-8"><pre id="measured"></pre>{frame}', encoding="utf-8")
        shown = _run(copy, "--window-size=1800,1000", "--dump-dom")
    finder = _Finder()
    finder.feed(shown.decode("utf-8", "replace"))
    if not finder.found:
        pytest.fail(f"the browser has not measured the page: {shown[-500:]!r}")
    measured = json.loads(finder.found)
    return Seen(**{**measured, "scripts": measured["scripts"] - 2})


def take_picture(page: Path, out: Path, *, width: int, height: int, dark: bool = False) -> None:
    """Save what a browser shows of the page itself as a PNG."""
    _run(page, f"--window-size={width},{height}", f"--screenshot={out}", *_scheme(dark))


def _scheme(dark: bool) -> tuple[str, ...]:
    return (f"--blink-settings=preferredColorScheme={0 if dark else 1}",)


def _run(page: Path, *options: str) -> bytes:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [find_browser(), *_FLAGS, f"--user-data-dir={profile}", *options, page.as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode:
        pytest.fail(f"the browser ended with {done.returncode}: {done.stderr[-500:]!r}")
    return done.stdout


class _Finder(HTMLParser):
    """Takes the text of the element that the measurements are in."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""
        self._inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "pre" and ("id", "measured") in attributes

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "pre"

    def handle_data(self, text: str) -> None:
        if self._inside:
            self.found += text
