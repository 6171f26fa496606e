"""Report and contact sheet in a real browser without a screen: they open offline, log no error, and fit a phone."""

import html
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

import ipodyn

pytest.importorskip("typer")
pytest.importorskip("polars")

from ipodyn._cli.app import run

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to open pages in")

# What a script of the test's own, added to a copy of a page, writes into it: the pages themselves have none.
PROBE = """<script>
window.addEventListener('load', () => {
  const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right >
    document.documentElement.clientWidth + 1 && getComputedStyle(e).position !== 'absolute'
    && !e.closest('thead') && !e.closest('svg') && !e.closest('.table'));
  const small = [...document.querySelectorAll('p, td, th, figcaption')].filter(e => e.offsetWidth
    && parseFloat(getComputedStyle(e).fontSize) < 12);
  const charts = [...document.querySelectorAll('svg, img')].map(e => e.getBoundingClientRect().width);
  const images = [...document.images].map(e => ({width: e.naturalWidth, words: e.alt}));
  document.body.dataset.probe = JSON.stringify({
    inner: innerWidth, scroll: document.documentElement.scrollWidth, wide: wide.map(e => e.tagName + e.textContent),
    small: small.length, narrowest: Math.min(...charts), images: images,
    loaded: performance.getEntriesByType('resource').map(e => e.name),
    background: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color});
});
</script></head>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report on prompts with long names, so that it has every part."""
    folder = tmp_path_factory.mktemp("browser")
    P = np.stack([ipodyn.problems.three_cycle(strength) for strength in (0.02, 0.2, 0.3, 0.4)])
    names = np.array([[f"a-response-with-a-long-name-{m}-{i}" for i in range(3)] for m in range(4)])
    np.savez(folder / "set.npz", P=P, prompts=np.arange(4), responses=names, counts=np.full(P.shape, 30))
    assert run(["diagnose", str(folder / "set.npz"), "--out", str(folder / "out")]) == 0
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """The contact sheet of a run of two figures."""
    folder = tmp_path_factory.mktemp("sheet") / "figures"
    assert run(["reproduce", "evolution-cyclic-ipo", "map-cyclic-ipo", "--quick", "--out", str(folder)]) == 0
    return folder / "index.html"


def dump(path: pathlib.Path, folder: pathlib.Path, *, width: int, dark: bool = False) -> tuple[str, str]:
    """The page after it was drawn in a frame of this width, and what the browser logged."""
    probed = path.with_name("probed.html")  # beside the page, where its links lead somewhere
    text = path.read_text(encoding="utf-8").replace("</head>", PROBE).replace('loading="lazy"', "")
    probed.write_text(text, encoding="utf-8")
    # A window of a real browser has a least width of about 500; a frame has none.
    frame = path.with_name("frame.html")
    frame.write_text(
        f'<!DOCTYPE html><body style="margin:0"><iframe id="f" src="probed.html" width="{width}" height="900" '
        'style="border:0"></iframe><script>addEventListener("load", () => document.body.dataset.probe = '
        "document.getElementById('f').contentDocument.body.dataset.probe)</script></body>"
    )
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--window-size=1400,1000",
            "--virtual-time-budget=3000",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout, done.stderr


def look(path, folder, width, dark):
    """What the probe found; asserted here is what holds for every page."""
    dom, log = dump(path, folder, width=width, dark=dark)
    match = re.search(r'data-probe="([^"]*)"', dom)
    assert match, dom[:2000] + log[-2000:]
    probe = json.loads(html.unescape(match[1]))
    assert probe["inner"] == width and probe["scroll"] <= width and probe["wide"] == []
    assert probe["small"] == 0 and probe["narrowest"] >= 280
    assert ("CONSOLE" not in log) and ("Uncaught" not in log), log
    return probe


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, True)])
def test_the_report_in_a_browser(page, tmp_path, width, dark):
    probe = look(page, tmp_path, width, dark)
    assert probe["loaded"] == []
    luminance = sum(int(part) for part in re.findall(r"\d+", probe["background"])[:3])
    assert luminance < 150 if dark else luminance > 600


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1200, False)])
def test_the_contact_sheet_in_a_browser(sheet, tmp_path, width, dark):
    probe = look(sheet, tmp_path, width, dark)
    assert len(probe["images"]) == 2
    assert all(image["width"] > 500 and len(image["words"]) > 60 for image in probe["images"])
    assert all(name.startswith("file:") for name in probe["loaded"])
    # It takes the browser's own colours, of which the canvas is reported as transparent: the ink tells.
    luminance = sum(int(part) for part in re.findall(r"\d+", probe["ink"])[:3])
    assert luminance > 600 if dark else luminance < 150
