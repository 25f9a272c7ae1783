"""The page in a real browser: drawn at every width and on paper, silent, without a request, without sideways scrolling."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tasks.dossier import DossierConfig, write_dossier
from tests.support.browser import Page, chromium_page
from tests.support.evidence import make_evidence, with_every_section

WIDTHS = [pytest.param(1280, False, id="desktop"), pytest.param(390, True, id="phone"), pytest.param(320, True, id="small")]
UNSEEN = """[...document.querySelectorAll("h1, h2, section, .verdict, .tiles div, figure svg, table")]
    .filter(one => one.checkVisibility())
    .filter(one => one.getBoundingClientRect().height < 8 || one.getBoundingClientRect().width < 30)
    .map(one => one.outerHTML.slice(0, 80))"""
TOO_WIDE = """[...document.querySelectorAll("main *")]
    .filter(one => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1)
    .map(one => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def dossier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "store"
    evidence = with_every_section(make_evidence(folder, champion=True))
    write_dossier.fn(evidence, DossierConfig(attach_to_mlflow=False))
    return folder / "dossiers" / evidence.run_name / "dossier.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium_page(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "phone"), WIDTHS)
def test_it_is_drawn_without_a_request_or_an_error(
    page: Page, dossier: Path, tmp_path: Path, width: int, phone: bool
) -> None:
    page.open(dossier.as_uri(), width=width, phone=phone)
    assert [url for url in page.requests if not url.startswith("data:")] == [dossier.as_uri()]
    assert page.complaints == []
    assert page.evaluate("document.querySelectorAll('section > h2').length") >= 18
    assert page.evaluate(UNSEEN) == []
    if width >= 390:  # on less, a wide table scrolls within its own frame
        assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        assert image.width == width * (2 if phone else 1)
        colours = image.convert("RGB").resize((200, 400)).getcolors(maxcolors=80_000)
    assert colours is not None
    assert len(colours) > 100, "an empty page has a handful"


def test_every_part_opens_without_sideways_scrolling_on_a_phone(page: Page, dossier: Path) -> None:
    page.open(dossier.as_uri(), width=390, phone=True)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_it_prints_with_all_details_open(page: Page, dossier: Path, tmp_path: Path) -> None:
    page.open(dossier.as_uri(), width=794)  # A4 at 96 pixels an inch
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.evaluate("[...document.querySelectorAll('details > *')].every(one => one.checkVisibility())")
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    page.pdf(tmp_path / "page.pdf")
    page.call("Emulation.setEmulatedMedia", media="")
    paper = (tmp_path / "page.pdf").read_bytes()
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 20


def test_the_browser_reports_a_request_and_an_error(page: Page, tmp_path: Path) -> None:
    chatty = tmp_path / "chatty.html"
    chatty.write_text('<img src="http://127.0.0.1:9/x.png" width="999"><script>console.log("hello")</script>')
    page.open(chatty.as_uri(), width=390)
    assert "http://127.0.0.1:9/x.png" in page.requests
    assert any("hello" in complaint for complaint in page.complaints)
    assert page.evaluate("document.documentElement.scrollWidth") > 390
