"""Pages of docs/*/operate: one per cause, from ``unjam.core.causes``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from unjam.core.causes import CAUSES, Cause
from unjam.watchdog.diagnose import EXPLAINS

_SEVERITIES = {
    "critical": ("critical", "심각"),
    "warning": ("warning", "경고"),
    "info": ("for your information", "참고"),
}


def pick(lang: str, en: str, ko: str) -> str:
    return ko if lang == "ko" else en


def _severity(cause: Cause, lang: str) -> str:
    return pick(lang, *_SEVERITIES[cause.severity])


def _links(codes: list[Cause], lang: str) -> list[str]:
    return [f"- [{c.said_in('title', lang)}]({c.code}.md) (`{c.code}`)" for c in codes]


def cause_page(cause: Cause, lang: str) -> str:
    parts = [
        f"# {cause.said_in('title', lang)}",
        pick(
            lang,
            f"Code `{cause.code}` · severity: {_severity(cause, lang)} · [all causes](index.md)",
            f"코드 `{cause.code}` · 심각도: {_severity(cause, lang)} · [전체 원인](index.md)",
        ),
        pick(lang, "## What you see", "## 무엇이 보이나"),
        cause.said_in("meaning", lang),
        pick(lang, "## What the system does", "## 시스템이 하는 일"),
        cause.said_in("repair", lang),
        pick(lang, "## What you may do", "## 할 수 있는 일"),
        cause.said_in("advice", lang),
        f"```console\n{cause.command}\n```",
    ]
    effects = [c for c in CAUSES.values() if c.code in EXPLAINS.get(cause.code, ())]
    roots = [c for c in CAUSES.values() if cause.code in EXPLAINS.get(c.code, ())]
    if effects:
        parts.append(pick(lang, "## What it brings about", "## 이어지는 증상"))
        parts.append(
            pick(
                lang,
                "These are seen with it and are no findings of their own then:",
                "함께 나타나며, 그때는 따로 보고하지 않는 증상입니다.",
            )
        )
        parts.append("\n".join(_links(effects, lang)))
    if roots:
        parts.append(pick(lang, "## What may be behind it", "## 더 근본적인 원인"))
        parts.append("\n".join(_links(roots, lang)))
    return "\n\n".join(parts)


def index_page(lang: str) -> str:
    head = pick(lang, "Cause,Code,Severity,Next", "원인,코드,심각도,다음 명령").split(",")
    rows = [
        (
            f"[{c.said_in('title', lang)}]({c.code}.md)",
            f"`{c.code}`",
            _severity(c, lang),
            f"`{c.command}`",
        )
        for c in sorted(CAUSES.values(), key=lambda c: c.rank)
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n\n".join(
        (
            pick(lang, "# When something is wrong", "# 문제가 생겼을 때"),
            pick(
                lang,
                "`unjam doctor` looks at everything at once, tells the cause apart from its effects "
                "and prints the next command. It changes nothing and works while Redis, Chroma, the "
                "API or all of unjam are down. Exit codes: 0 ok, 1 warning, 2 critical, 3 could not "
                "tell. The watchdog judges by the same rules every two seconds: what breaks is "
                "noticed within 5 s, what is a matter of degree within 30 s.",
                "`unjam doctor`는 모든 것을 한 번에 살펴 원인과 증상을 구분하고 다음 명령을 알려 줍니다. "
                "아무것도 바꾸지 않으며 Redis, Chroma, API 또는 unjam 전체가 멈춰 있어도 동작합니다. 종료 "
                "코드는 0 정상, 1 경고, 2 심각, 3 판단 불가입니다. 워치독은 같은 규칙으로 2초마다 "
                "판단합니다. 고장은 5초 안에, 정도의 문제는 30초 안에 알아챕니다.",
            ),
            pick(
                lang,
                "`unjam explain CODE` prints a page of this list in the terminal; `unjam why DOC` "
                "tells what one document waits for. The first cause of this list that holds is named "
                "first, since it explains more than those below it.",
                "`unjam explain CODE`는 이 목록의 내용을 터미널에 보여 주고, `unjam why DOC`는 문서 하나가 "
                "무엇을 기다리는지 알려 줍니다. 해당하는 원인이 여럿이면 위에 있는 것을 먼저 보고합니다. "
                "아래의 것을 더 많이 설명하기 때문입니다.",
            ),
            "\n".join(lines),
        )
    )


PAGES: Mapping[str, Callable[[str], str]] = {
    "operate/index": index_page,
    **{f"operate/{c.code}": partial(cause_page, c) for c in CAUSES.values()},
}
