"""Drills on the embedding endpoint: it throttles, a key is revoked."""

from __future__ import annotations

import asyncio

from unjam.core.document import State
from unjam.testing.drills.scene import SETTLE_S, Scene
from unjam.testing.wait import until

NOTICED_S = 10.0
PAUSE_S = 3.0
WAITING = 24
REVOKED = "sk-drill-revoked"

TWO_KEYS = {
    "OPENAI_API_KEYS": f"{REVOKED},sk-drill-good",
    "USE_API_KEY_ROTATION": "true",
}
"""The stack's own key comes after these, and is good, too."""


async def rate_limit(scene: Scene) -> None:
    """The endpoint answers 429 to everything, and says when to come back."""
    endpoint = scene.stack.endpoint
    await scene.upload(4)
    await scene.all_searchable()  # nothing is cold any more: what follows is the fault's
    before = endpoint.stats()["requests"]
    endpoint.control(fault="429", retry_after_s=PAUSE_S)
    scene.fault(
        f"the endpoint answers 429, Retry-After: {PAUSE_S:g}",
        f"엔드포인트가 429로 응답, Retry-After: {PAUSE_S:g}",
    )
    await scene.upload(WAITING)
    await scene.noticed(NOTICED_S, "rate limit", "embedding_throttled", "incident")

    async def waiting() -> int:
        found = (await scene.documents()).values()
        return sum(d.state is State.WAITING for d in found)

    count = await until("documents wait", waiting, deadline_s=20.0)
    scene.say(
        f"{count} documents wait for embedding_throttled",
        f"문서 {count}개가 embedding_throttled 대기",
    )
    await asyncio.sleep(PAUSE_S)  # the fault lasts as long as the endpoint said
    asked = endpoint.stats()["requests"] - before
    endpoint.control(fault="")
    scene.healed("the endpoint answers again", "엔드포인트가 다시 응답")
    await scene.recovered(SETTLE_S)
    await scene.unhurt()
    scene.promise(
        "the endpoint was left alone while it asked for that",
        "엔드포인트가 요청한 동안 호출하지 않았다",
        asked <= WAITING,
        f"{asked} requests for {WAITING} documents",
    )


async def bad_key(scene: Scene) -> None:
    """One of three keys is revoked (401): the others carry on, nobody waits."""
    endpoint = scene.stack.endpoint
    await scene.upload(4)
    await scene.all_searchable()
    endpoint.control(bad_keys=[REVOKED])
    scene.fault("one of three keys is revoked: 401", "키 세 개 중 하나가 폐기됨: 401")
    await scene.upload(24)
    await scene.noticed(NOTICED_S, "key", "unauthorised", "incident")
    await scene.recovered(SETTLE_S)
    await scene.unhurt()
    refused = endpoint.stats()["statuses"].get("401", 0)
    scene.promise(
        "the revoked key is set aside after a refusal or two of each process",
        "폐기된 키는 프로세스마다 한두 번 거절된 뒤 제외된다",
        0 < refused <= 6,
        f"{refused} refusals",
    )
