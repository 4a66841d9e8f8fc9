"""What moves: the live stream over a restart, actions behind the token, uploads."""

from __future__ import annotations

from playwright.async_api import Browser, expect

from tests.browser.conftest import Served, watched
from tests.fixtures.web import ADMIN


async def equation(own: Served) -> dict[str, int]:
    return await own.call("GET", "/api/rag/ledger")


async def test_the_page_says_when_it_is_stale_and_survives_a_restart(
    own: Served, browser: Browser
) -> None:
    seen = await watched(browser, own.url)
    page = seen.page
    await page.goto(own.url + "/")
    await expect(page.locator("#fresh")).to_have_text("live")
    own.stop()
    await expect(page.locator("#fresh")).to_contain_text("last updated", timeout=15_000)
    await expect(page.locator(".equation")).to_contain_text("40 accepted")
    own.start()
    await expect(page.locator("#fresh")).to_have_text("live", timeout=20_000)
    # And it is the new process that feeds it: what arrives now is seen without a reload.
    files = {"file": ("new.txt", b"arrives after the restart")}
    await own.call("POST", "/api/rag/documents", files=files)
    await expect(page.locator(".equation")).to_contain_text("41 accepted")
    # While nobody listens, browser and htmx report the lost stream; nothing else may be wrong.
    lost = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "htmx:sse:error")
    assert [f for f in seen.faults if not any(w in f for w in lost)] == []
    assert seen.foreign == []


async def test_an_action_asks_for_the_token_and_names_the_number(
    own: Served, browser: Browser
) -> None:
    seen = await watched(browser, own.url)
    page = seen.page
    await page.goto(own.url + "/dead-letters")
    await expect(page.locator(".readonly")).to_be_visible()
    await page.locator("#g-needs_ocr").get_by_role("button", name="Retry these 9").click()
    dialog = page.locator("dialog[open]")
    await expect(dialog.locator("#dialog-title")).to_have_text("Retry 9 dead letters?")
    await dialog.locator("#token").fill("wrong")
    await dialog.get_by_role("button", name="Retry 9 dead letters").click()
    await expect(dialog.locator(".error")).to_contain_text("not the operator's")
    assert (await equation(own))["dead"] == 12
    await dialog.locator("#token").fill(ADMIN)
    await dialog.get_by_role("button", name="Retry 9 dead letters").click()
    await expect(dialog.locator("#dialog-title")).to_contain_text("9 dead letters went back")
    assert (await equation(own))["dead"] == 3
    await dialog.locator("[data-done]").click()
    await expect(page.locator("#g-needs_ocr")).to_have_count(0)
    await expect(page.locator(".readonly")).to_have_count(0)  # signed in from now on
    cookies = await page.context.cookies()
    (session,) = [c for c in cookies if c.get("name", "").startswith("unjam_session")]
    assert (session.get("httpOnly"), session.get("sameSite")) == (True, "Strict")
    assert ADMIN not in str(session.get("value"))
    # The browser itself reports the refused token (401) as a failed resource; nothing else.
    assert [f for f in seen.faults if "401" not in f] == []


async def test_a_number_that_changed_meanwhile_is_asked_again(
    own: Served, browser: Browser
) -> None:
    seen = await watched(browser, own.url)
    page = seen.page
    await page.goto(own.url + "/ask/dlq-drop?reason=encrypted")
    await expect(page.locator("#dialog-title")).to_have_text("Drop 3 dead letters?")
    found = (await own.call("GET", "/api/rag/documents?state=dead&user_id=lee"))["items"]
    await own.call("POST", f"/api/rag/documents/{found[0]['id']}/retry")
    await page.locator("#token").fill(ADMIN)
    await page.get_by_role("button", name="Drop 3 dead letters").click()
    await expect(page.locator("#dialog-title")).to_have_text("Drop 2 dead letters?")
    await expect(page.locator(".error")).to_contain_text("nothing was done")
    assert (await equation(own))["cancelled"] == 0
    await page.get_by_role("button", name="Drop 2 dead letters").click()
    await expect(page.locator("#dialog-title")).to_contain_text("2 dead letters dropped")
    assert (await equation(own))["cancelled"] == 2


async def test_files_are_dropped_and_answered_one_by_one(own: Served, browser: Browser) -> None:
    seen = await watched(browser, own.url)
    page = seen.page
    await page.goto(own.url + "/sign-in?next=/documents")
    await page.locator("#token").fill(ADMIN)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#up-title")).to_have_text("Drop files here")
    await page.evaluate(
        """() => {
          const held = new DataTransfer();
          held.items.add(new File(["떨어뜨린 문서"], "끌어온 파일.txt", { type: "text/plain" }));
          held.items.add(new File(["dropped"], "dropped.txt", { type: "text/plain" }));
          held.items.add(new File(["dropped"], "again.txt", { type: "text/plain" }));
          dispatchEvent(new DragEvent("drop", { dataTransfer: held, cancelable: true }));
        }"""
    )
    await expect(page.locator("#up-list li.ok")).to_have_count(3)
    said = await page.locator("#up-list .said").all_inner_texts()
    assert sorted(said) == ["already here", "safe on disk, in line", "safe on disk, in line"]
    # The list below shows them by itself.
    await expect(page.locator("#board").get_by_text("끌어온 파일.txt")).to_be_visible()
    seen.clean()


async def test_a_setting_is_changed_and_recorded(own: Served, browser: Browser) -> None:
    seen = await watched(browser, own.url)
    page = seen.page
    await page.goto(own.url + "/workers")
    await page.locator("#in-RAG_EMBEDDING_BATCH_SIZE").fill("16")
    await page.locator("#k-RAG_EMBEDDING_BATCH_SIZE").get_by_role("button").click()
    dialog = page.locator("dialog[open]")
    await expect(dialog).to_contain_text("32 → 16")
    await dialog.locator("#token").fill(ADMIN)
    await dialog.get_by_role("button", name="Change 1 setting").click()
    await expect(dialog.locator("#dialog-title")).to_contain_text("is 16 now")
    await dialog.locator("[data-done]").click()
    row = page.locator("#k-RAG_EMBEDDING_BATCH_SIZE")
    await expect(row).to_contain_text("changed live")
    await expect(row.locator("input[type=number]")).to_have_value("16")
    seen.clean()
