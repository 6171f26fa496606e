"""The report in a real browser without a screen: it opens offline, logs no error, and fits a phone."""

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
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to open the report in")

# What a script of the test's own, added to a copy of the page, writes into it: the report itself has none.
PROBE = """<script>
window.addEventListener('load', () => {
  const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right >
    document.documentElement.clientWidth + 1 && getComputedStyle(e).position !== 'absolute'
    && !e.closest('thead') && !e.closest('svg'));
  const small = [...document.querySelectorAll('p, td, th, figcaption')].filter(e => e.offsetWidth
    && parseFloat(getComputedStyle(e).fontSize) < 12);
  const charts = [...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().width);
  document.body.dataset.probe = JSON.stringify({
    inner: innerWidth, scroll: document.documentElement.scrollWidth, wide: wide.map(e => e.tagName + e.textContent),
    small: small.length, narrowest: Math.min(...charts), loaded: performance.getEntriesByType('resource').length,
    background: getComputedStyle(document.body).backgroundColor});
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


def dump(path: pathlib.Path, folder: pathlib.Path, *, width: int, dark: bool = False) -> tuple[str, str]:
    """The page after it was drawn in a frame of this width, and what the browser logged."""
    probed = folder / "probed.html"
    probed.write_text(path.read_text(encoding="utf-8").replace("</head>", PROBE), encoding="utf-8")
    # A window of a real browser has a least width of about 500; a frame has none.
    frame = folder / "frame.html"
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


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, True)])
def test_the_report_in_a_browser(page, tmp_path, width, dark):
    dom, log = dump(page, tmp_path, width=width, dark=dark)
    match = re.search(r'data-probe="([^"]*)"', dom)
    assert match, dom[:2000] + log[-2000:]
    probe = json.loads(html.unescape(match[1]))
    assert probe["inner"] == width and probe["scroll"] <= width and probe["wide"] == []
    assert probe["loaded"] == 0 and probe["small"] == 0 and probe["narrowest"] >= 280
    assert ("CONSOLE" not in log) and ("Uncaught" not in log), log
    luminance = sum(int(part) for part in re.findall(r"\d+", probe["background"])[:3])
    assert luminance < 150 if dark else luminance > 600
