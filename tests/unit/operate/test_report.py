"""The report of `fleet verify`, as a browser shows it."""

from __future__ import annotations

import html
import json
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleet.operate.report import page

NASTY = '</pre><script>document.title="taken"</script><img src=x onerror=alert(1)>"\'{{ 7*7 }}'
LONG = "x" * 400
HOSTS = [f"gpu{number}.rack-12.example.internal" for number in range(1, 6)]


def result(host: str, outcome: str, **more: Any) -> dict[str, Any]:
    return {
        "host": host, "case": host, "outcome": outcome, "reason": "", "measured": [],
        "evidence": "", **more,
    }  # fmt: skip


def found() -> dict[str, Any]:
    """What `fleet verify --json` prints, with all that may be in it."""
    outcomes = ["held", "skipped", "warned", "unchecked", "failed"]
    checks = [
        {
            "capability": capability,
            "claim": f"Claim {number} of {capability}, which is a sentence of some length",
            "outcome": "failed",
            "results": [
                result(host, outcome, evidence=f"{NASTY}\n{LONG}", measured=["17.2 of 20 GB"])
                for host, outcome in zip(HOSTS, outcomes, strict=True)
                if number or outcome != "held"
            ],
        }
        for capability in ("reach", "models", "gateway")
        for number in range(3)
    ]
    checks[1]["results"] += [result(HOSTS[0], "held", case="second", evidence="two cases")]
    noted = {
        "groups": ["gpu", NASTY],
        "versions": {"ollama.service": "0.32.7", NASTY: LONG},
        "deployed": {"who": NASTY, "commit": "a" * 40},
        "digests": {"gpt-oss:20b": "c" * 64},
        "exposure": {"ollama.service": 1.4},
        "first_tokens": {"gpt-oss:20b": [53, 41, 205], NASTY: [0]},
    }
    return {
        "schema": "fleet-verify/1", "status": "findings", "why": "", "inventory": f"{NASTY}.py",
        "llm_fleet": "0.2.0", "at": "2026-11-30T20:15:00+00:00", "by": NASTY,
        "counts": dict.fromkeys(outcomes, 2), "hosts": dict.fromkeys(HOSTS, noted),
        "checks": checks, "selection": {"names": [], "capabilities": [], "left_out": []},
    }  # fmt: skip


def test_nothing_of_outside_is_markup() -> None:
    text = page(found(), "ab" * 32)
    assert NASTY not in text
    assert html.escape(NASTY).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text
    assert "<script" not in text
    assert "<img" not in text


def test_it_needs_no_network() -> None:
    """... and a browser would get nothing from one, if something slipped through."""
    text = page(found(), None)
    tags = re.sub(r">[^<]*<", "><", text)
    assert not re.search(r"<(link|iframe|object|embed|base)\b|\b(src|href|srcset)\s*=|url\(", tags)
    assert "default-src 'none'" in text


def test_who_signed_is_said_and_that_nobody_did() -> None:
    assert "ab" * 32 in page(found(), "ab" * 32)
    assert "Not signed" in page(found(), None)


def test_what_was_not_selected_is_beside_the_status() -> None:
    """... or a signed page that says good is shown for the whole fleet."""
    data = found()
    assert "whole fleet" in header(data)
    assert "selected" not in header(data)
    data["selection"] = {"names": [], "capabilities": ["models", "gpu"], "left_out": []}
    assert "of what was selected" in header(data)
    assert "Selected: all hosts; of capabilities only models, gpu." in header(data)
    assert "whole fleet" not in header(data)
    data["selection"] = {"names": ["gpu"], "capabilities": [], "left_out": ["edge", NASTY]}
    assert "Selected: gpu; all capabilities." in header(data)
    assert "2 hosts left out: edge, &lt;/pre&gt;" in header(data)


def header(data: dict[str, Any]) -> str:
    [text] = re.findall(r"<header>.*?</header>", page(data, "ab" * 32), re.S)
    return " ".join(str(text).split())


def test_every_result_is_in_its_cell() -> None:
    text = page(found(), None)
    rows = re.findall(r'<th scope="row">Claim.*?</tr>', text, re.S)
    assert len(rows) == 9
    marks = [re.findall(r"<td class=\"cell (\w+)\"", row) for row in rows]
    assert marks[1] == ["held", "skipped", "warned", "unchecked", "failed"]
    assert marks[0][0] == "none"
    assert "two cases" in rows[1]


def test_times_to_the_first_token_are_on_one_scale() -> None:
    data = found()
    data["hosts"] = {
        "edge": {"groups": [], "first_tokens": {"small": [50, 100]}},
        "edge2": {"groups": [], "first_tokens": {"large": [400, 200, 300]}},
    }
    text = page(data, None)
    small, large = re.findall(r"<svg.*?</svg>", text, re.S)
    places = [re.findall(r'x1="([\d.]+)" y1="1.5"', plot) for plot in (small, large)]
    assert places == [["12.5", "25.0"], ["100.0", "50.0", "75.0"]]
    assert "median 300 ms, longest 400 ms" in text


# What a frame of that width shows of the page; with everything folded open, too.
_WIDTHS = (1280, 390)
_ASK = """<!DOCTYPE html><body style="margin:0"><pre id="told"></pre><script>
const told = {}; let left = %(widths)s;
for (const width of left.slice()) {
  const frame = document.createElement("iframe");
  frame.style = `border:0;width:${width}px;height:900px`;
  frame.src = "report.html";
  frame.onload = () => {
    const page = frame.contentDocument, root = page.documentElement;
    const measure = () => [root.scrollWidth, root.clientWidth];
    const seen = [measure()];
    for (const item of page.querySelectorAll("details")) item.open = true;
    seen.push(measure());
    const cells = [...page.querySelectorAll("td.failed")];
    told[width] = {
      seen, title: page.title, scripts: page.querySelectorAll("script, img").length,
      open: page.querySelectorAll("details").length,
      visible: cells.every(cell => cell.getBoundingClientRect().width > 20),
      evidence: [...page.querySelectorAll(".evidence")].every(
        item => item.getBoundingClientRect().height > 10),
      colors: ["held", "warned", "failed"].map(
        name => frame.contentWindow.getComputedStyle(page.querySelector(`td.${name}`))
          .backgroundColor),
    };
    document.getElementById("told").textContent = JSON.stringify(told);
  };
  document.body.append(frame);
}
</script></body>"""


def chromium(folder: Path, *arguments: str) -> str:
    """What headless Chromium prints."""
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}", *arguments,
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    return result.stdout


@pytest.mark.slow
def test_a_browser_shows_it_at_any_width(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(found(), "ab" * 32))
    (tmp_path / "ask.html").write_text(_ASK % {"widths": list(_WIDTHS)})
    shown = chromium(
        tmp_path, "--virtual-time-budget=20000", "--dump-dom", f"file://{tmp_path}/ask.html"
    )
    text = re.search(r'<pre id="told">(.*?)</pre>', shown, re.S)
    assert text, shown[-2000:]
    told = json.loads(html.unescape(text[1]))
    assert sorted(told) == sorted(map(str, _WIDTHS))
    for width in _WIDTHS:
        seen = told[str(width)]
        for scroll, client in seen["seen"]:
            assert client == width
            assert scroll <= client, f"the page is {scroll} wide at {width}"
        assert seen["scripts"] == 0
        assert seen["title"].startswith("</pre><script>")
        assert seen["open"] > 20
        assert seen["visible"]
        assert seen["evidence"]
        assert len(set(seen["colors"])) == 3


@pytest.mark.slow
@pytest.mark.parametrize("width", _WIDTHS)
def test_screenshot(tmp_path: Path, width: int) -> None:
    """... has more on it than one colour, and is as wide as the window."""
    (tmp_path / "report.html").write_text(page(found(), "ab" * 32))
    picture = tmp_path / "shot.png"
    size = f"--window-size={width},1400"
    chromium(tmp_path, size, f"--screenshot={picture}", f"file://{tmp_path}/report.html")
    content = picture.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (width, 1400)
    assert len(content) > 30_000
