"""Updates, deletes and copies of the same bytes: search never shows neither or both."""

from __future__ import annotations

import asyncio

from unjam.core.chunk import chunk_ids
from unjam.core.document import State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended


def body(word: str, paragraphs: int = 12) -> str:
    """A text in which every chunk holds *word*."""
    return "\n\n".join(
        f"{word} {n}: the quick survey of {word} goes on." for n in range(paragraphs)
    )


async def put(stack: Stack, document_id: str, text: str) -> None:
    document = await stack.services.ledger.get(document_id)
    assert document is not None
    staged = await stack.services.intake.open("note.txt")
    await stack.services.intake.write(staged, text.encode())
    await stack.services.intake.replace(document, staged)


async def shown(stack: Stack, document_id: str) -> set[str]:
    """Which of the two texts search shows of the document."""
    hits = await stack.services.retriever.search(
        "survey", k=50, filter={"document_id": document_id}
    )
    return {word for word in ("alpha", "bravo") for hit in hits if word in hit.text}


async def test_a_file_that_goes_a_b_a_is_never_gone_and_never_both(reconciled: Stack) -> None:
    stack = reconciled
    document_id = await stack.add(body("alpha"))
    stack.worker()
    await until_ended(stack.services.ledger, [document_id])
    seen: list[set[str]] = []
    stop = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            seen.append(await shown(stack, document_id))
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    noise = [await stack.add(body(f"noise{n}", 3), f"n{n}.txt") for n in range(10)]
    for word in ("bravo", "alpha", "bravo", "alpha"):
        await put(stack, document_id, body(word))
        await until_ended(stack.services.ledger, [document_id])
    # An update that overtakes the one before it, too.
    await put(stack, document_id, body("bravo"))
    await put(stack, document_id, body("alpha"))
    await until_ended(stack.services.ledger, [document_id, *noise])
    stop.set()
    await watching
    assert len(seen) >= 10
    assert [s for s in seen if len(s) != 1] == []
    document = await stack.services.ledger.get(document_id)
    assert document is not None
    assert await shown(stack, document_id) == {"alpha"}
    wanted = set(chunk_ids(document_id, document.visible_generation, document.chunks))
    assert await stack.chunk_ids(document_id, 64) >= wanted
    # The old generations' chunks go, by computed ids.
    await until(
        "only the last generation's chunks",
        lambda: stack.chunk_ids(document_id, 64),
        lambda held: held == wanted,
    )


async def test_two_users_with_the_same_file_one_deletes_and_the_other_still_finds_it(
    reconciled: Stack,
) -> None:
    stack = reconciled
    mine, yours = await asyncio.gather(
        stack.add(body("alpha"), user_id="kim"), stack.add(body("alpha"), user_id="lee")
    )
    assert mine != yours
    stack.worker()
    await until_ended(stack.services.ledger, [mine, yours])
    await stack.services.ledger.delete(mine)
    assert await shown(stack, mine) == set()
    assert await shown(stack, yours) == {"alpha"}
    await until(
        "the deleted copy's chunks are gone",
        lambda: stack.chunk_ids(mine, 64),
        lambda held: not held,
    )
    assert await shown(stack, yours) == {"alpha"}


async def test_a_deleted_document_takes_its_cached_vectors_along_unless_shared(
    reconciled: Stack, fake_openai: FakeOpenAI
) -> None:
    stack = reconciled
    ledger = stack.services.ledger
    secret = "alpha secret paragraph"
    mine, yours = await stack.add(secret, user_id="kim"), await stack.add(secret, user_id="lee")
    stack.worker()
    await until_ended(ledger, [mine, yours])

    async def embedded() -> int:
        return (await asyncio.to_thread(fake_openai.stats))["embedded"]

    async def gone(document_id: str) -> set[str]:
        return await stack.chunk_ids(document_id, 8)

    assert await embedded() == 1
    await ledger.delete(mine)
    await until("its chunks are gone", lambda: gone(mine), lambda held: not held)
    again = await stack.add(secret, user_id="kim")
    await until_ended(ledger, [again])
    assert await embedded() == 1, "lee's copy keeps the cached vector"
    await ledger.delete(again)
    await ledger.delete(yours)
    for document_id in (again, yours):
        await until("chunks are gone", lambda i=document_id: gone(i), lambda held: not held)
    once_more = await stack.add(secret, user_id="kim")
    await until_ended(ledger, [once_more])
    assert await embedded() == 2, "nobody held the text any more, so its vector was forgotten"


async def test_the_same_bytes_at_the_same_moment_are_one_document(stack: Stack) -> None:
    ids = await asyncio.gather(
        *(stack.add(body("alpha"), f"copy{n}.txt", user_id="kim") for n in range(8))
    )
    assert len(set(ids)) == 1
    document = await stack.services.ledger.get(ids[0])
    assert document is not None
    assert {document.filename, *document.names} == {f"copy{n}.txt" for n in range(8)}
    equation = await stack.services.ledger.equation()
    assert (equation.accepted, equation.queued) == (1, 1)
    assert document.state in (State.RECEIVED, State.QUEUED)
