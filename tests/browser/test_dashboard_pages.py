"""Every page in a real browser: both languages, both themes, phone and desktop."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from tests.browser.conftest import Served, watched

PAGES = {
    "/": ("Now", "지금"),
    "/documents": ("Documents", "문서"),
    "/dead-letters": ("Dead letters", "데드레터"),
    "/incidents": ("Incidents", "인시던트"),
    "/incidents/1": ("Incidents", "인시던트"),
    "/workers": ("Workers & keys", "워커와 키"),
    "/capacity": ("Capacity", "용량"),
    "/search?q=hotel": ("Search", "검색"),
    "/documents/{dead}": ("Documents", "문서"),
    "/documents/{storing}": ("Documents", "문서"),
    "/documents/{searchable}": ("Documents", "문서"),
}
LOOKS = [("en-US", "light", 1280), ("ko-KR", "dark", 390)]
BARE = re.compile(
    r"^\s*(processing|처리 중|working)\s*(…|\.\.\.)?\s*$", re.IGNORECASE | re.MULTILINE
)


def places(filled: Served) -> list[tuple[str, tuple[str, str]]]:
    ids = {state: filled.first(state) for state in ("dead", "storing", "searchable")}
    return [(path.format(**ids), words) for path, words in PAGES.items()]


@pytest.mark.parametrize(("locale", "theme", "width"), LOOKS)
async def test_every_page_stands(
    filled: Served, browser: Browser, locale: str, theme: str, width: int
) -> None:
    view = {"width": width, "height": 800}
    seen = await watched(browser, filled.url, locale=locale, color_scheme=theme, viewport=view)
    page = seen.page
    for path, words in places(filled):
        answer = await page.goto(filled.url + path)
        assert answer is not None and answer.status == 200, path
        current = page.locator("nav [aria-current=page]")
        await expect(current).to_contain_text(words[locale.startswith("ko")])
        await expect(page.locator("html")).to_have_attribute("lang", locale[:2])
        # The live stream has spoken: until then the page says as of when it is.
        await expect(page.locator("#fresh")).to_have_text(
            "실시간" if locale.startswith("ko") else "live"
        )
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert not BARE.search(await page.locator("main").inner_text()), path
        assert await page.locator("h1").count() == 1, path
        dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) is (theme == "dark")
    seen.clean()


async def test_texts_can_be_read(filled: Served, browser: Browser) -> None:
    """Contrast of every text at least 4.5 (WCAG 2.2, 1.4.3), controls at least 24 px (2.5.8)."""
    for theme in ("light", "dark"):
        seen = await watched(browser, filled.url, color_scheme=theme)
        for path, _ in places(filled):
            await seen.page.goto(filled.url + path)
            assert await seen.page.evaluate(LOW_CONTRAST) == [], (theme, path)
            assert await seen.page.evaluate(SMALL_TARGETS) == [], (theme, path)
            assert await seen.page.evaluate(UNNAMED) == [], (theme, path)
        seen.clean()


async def test_every_tile_names_its_command(filled: Served, browser: Browser) -> None:
    seen = await watched(browser, filled.url)
    for path in ("/", "/capacity"):
        await seen.page.goto(filled.url + path)
        for tile in await seen.page.locator(".tile").all():
            assert await tile.locator(".cmd code").count() >= 1, await tile.inner_text()


async def test_language_and_theme_stay(filled: Served, browser: Browser) -> None:
    seen = await watched(browser, filled.url, color_scheme="light")
    page = seen.page
    await page.goto(filled.url + "/capacity")
    await page.get_by_role("button", name="한국어").click()
    await expect(page.locator("h1")).to_have_text("용량")
    await page.get_by_role("button", name="테마").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.goto(filled.url + "/workers")
    await expect(page.locator("h1")).to_have_text("워커와 키")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    seen.clean()


async def test_the_keyboard_reaches_what_the_mouse_does(filled: Served, browser: Browser) -> None:
    seen = await watched(browser, filled.url)
    page = seen.page
    await page.goto(filled.url + "/dead-letters")
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    button = page.locator("#g-needs_ocr .button").first
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("dialog[open]")).to_be_visible()
    await expect(page.locator("#token")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog[open]")).to_have_count(0)
    seen.clean()


async def test_pages_work_without_scripts(filled: Served, browser: Browser) -> None:
    seen = await watched(browser, filled.url, java_script_enabled=False)
    page = seen.page
    await page.goto(filled.url + "/dead-letters")
    await page.locator("#g-encrypted .button").first.click()
    await expect(page.locator("#dialog-title")).to_contain_text("Retry 3 dead letters?")
    await page.goto(filled.url + "/")
    await expect(page.locator(".equation")).to_contain_text("0 missing")


LOW_CONTRAST = """() => {
  const light = (c) => { const v = c.map(x => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4; }); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const parse = (s) => (s.match(/[\\d.]+/g) ?? []).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > .9) return c; } return [255, 255, 255]; };
  const low = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !e.checkVisibility({ visibilityProperty: true }) || e.closest("svg, .unseen, .skip, .uplot")) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([walk.currentNode.textContent.trim().slice(0, 30), ratio.toFixed(2)]);
  }
  return low;
}"""
SMALL_TARGETS = """() => [...document.querySelectorAll("button, .button, .ghost, input:not([type=hidden])")]
  .filter(e => e.checkVisibility() && !e.closest(".unseen") && !e.classList.contains("unseen"))
  .map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])
  .filter(([, r]) => r.width && (r.width < 24 || r.height < 24)).map(([h]) => h)"""
UNNAMED = """() => [...document.querySelectorAll("button, a, input:not([type=hidden]), progress")]
  .filter(e => e.checkVisibility() && !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length))
  .map(e => e.outerHTML.slice(0, 80))"""
