"""Write the reference pages of docs/en and docs/ko from the code that they describe.

    python scripts/docs.py           write them
    python scripts/docs.py --check   exit 1 when one is not current, and name it

A setting, reason, error code, metric, command or endpoint without its Korean is an error here.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import docs_operate as operate
import docs_words as words
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from unjam.core.codes import OTHER_CODES, PROBLEMS, Word
from unjam.core.reasons import REASONS
from unjam.core.tuning import KNOBS
from unjam.observe.alert_table import ALERTS
from unjam.observe.metrics import FAMILIES
from unjam.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
LANGS = ("en", "ko")
NOTE = {
    "en": "<!-- Written by scripts/docs.py from the code: change the code, then `make docs`. -->",
    "ko": "<!-- scripts/docs.py가 코드에서 생성합니다. 코드를 고친 뒤 `make docs`를 실행하세요. -->",
}


def pick(lang: str, en: str, ko: str) -> str:
    return ko if lang == "ko" else en


def korean(table: Mapping[str, str], key: str, what: str) -> str:
    if key not in table:
        raise SystemExit(f"docs: {what} {key} has no Korean; add it to scripts/docs_words.py")
    return table[key]


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(head)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


# -- pages ------------------------------------------------------------------------------------
def _default(field: FieldInfo) -> str:
    if field.alias == "RAG_DATA_DIR":
        return "`~/.local/share/unjam`"
    value = field.default
    if value is None or value == "" or value is PydanticUndefined:
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings_page(lang: str) -> str:
    fields = Settings.model_fields.values()
    rows: list[tuple[str, ...]] = []
    for field in fields:
        name = str(field.alias)
        meaning = field.description or ""
        if lang == "ko":
            meaning = korean(words.SETTINGS_KO, name, "setting")
        rows.append((f"`{name}`", _default(field), meaning))
    knobs = [
        (
            f"`{k.name}`",
            f"{k.low:,} – {k.high:,}",
            k.unit if lang == "en" else korean(words.UNITS_KO, k.unit, "unit"),
        )
        for k in KNOBS.values()
    ]
    return "\n\n".join(
        (
            pick(lang, "# Settings", "# 설정"),
            pick(
                lang,
                "All settings are environment variables, read when a process starts. An empty "
                "variable counts as unset. Defaults shown as – depend on the machine or mean "
                "“none”.",
                "모든 설정은 환경 변수이며 프로세스가 시작될 때 읽습니다. 빈 변수는 설정하지 않은 것으로 "
                "봅니다. 기본값이 –이면 환경에 따라 정해지거나 없다는 뜻입니다.",
            ),
            table(pick(lang, "Variable,Default,Meaning", "변수,기본값,의미").split(","), rows),
            pick(lang, "## Live knobs", "## 실행 중에 바꿀 수 있는 설정"),
            pick(
                lang,
                "These may change while everything runs, within these bounds. A change is kept in "
                "the ledger and reaches every process within seconds; it wins over the variable.",
                "다음 설정은 실행 중에 아래 범위 안에서 바꿀 수 있습니다. 바뀐 값은 원장에 저장되어 몇 초 "
                "안에 모든 프로세스에 전달되며 환경 변수보다 우선합니다.",
            ),
            table(pick(lang, "Knob,Bounds,Unit", "설정,범위,단위").split(","), knobs),
        )
    )


_KINDS = {
    "dead": (
        "Parked (state `dead`)",
        "보관됨(상태 `dead`)",
        "The document does not move until somebody acts.",
        "누군가 조치하기 전까지 문서가 움직이지 않습니다.",
    ),
    "waiting": (
        "Waiting",
        "대기",
        "The document goes on by itself; waiting for a dependency costs no attempt.",
        "문서는 스스로 재개됩니다. 의존 서비스를 기다리는 것은 시도 횟수에 포함되지 않습니다.",
    ),
    "ended": ("Ended by a person", "사람이 끝냄", "Somebody decided it.", "누군가 결정했습니다."),
}


def reasons_page(lang: str) -> str:
    parts = [
        pick(lang, "# Reasons", "# 사유"),
        pick(
            lang,
            "Every document that is not on its way has one of these reasons. The API gives the "
            "code as `reason` and what to do as `hint`.",
            "움직이지 않는 문서에는 반드시 다음 사유 중 하나가 있습니다. API는 코드를 `reason`으로, 할 일을 "
            "`hint`로 알려 줍니다.",
        ),
    ]
    for kind, (title, title_ko, text, text_ko) in _KINDS.items():
        parts += [f"## {pick(lang, title, title_ko)}", pick(lang, text, text_ko)]
        rows = [
            (f"`{r.code}`", r.what_in(lang), r.hint_in(lang))
            for r in REASONS.values()
            if r.kind == kind
        ]
        parts.append(table(_what(lang), rows))
    return "\n\n".join(parts)


def _what(lang: str) -> list[str]:
    return pick(lang, "Code,What happened,What to do", "코드,무슨 일인가,할 일").split(",")


def _said(word: Word, lang: str) -> tuple[str, str]:
    return (word.title_ko, word.hint_ko) if lang == "ko" else (word.title, word.hint)


def errors_page(lang: str) -> str:
    http, other = (
        [(f"`{code}`", *_said(word, lang)) for code, word in codes.items()]
        for codes in (PROBLEMS, OTHER_CODES)
    )
    return "\n\n".join(
        (
            pick(lang, "# Error codes", "# 오류 코드"),
            pick(
                lang,
                "Errors of the HTTP API are `application/problem+json` (RFC 9457) with `type`, "
                "`title`, `status`, `detail`, a stable `code` and a `hint`. The Python client "
                "raises the classes of `unjam.core.errors` with the same `code` and `hint`. An "
                "error that names a dependency carries a waiting [reason](reasons.md) as its code.",
                "HTTP API의 오류는 `application/problem+json`(RFC 9457)이며 `type`, `title`, `status`, "
                "`detail`, 바뀌지 않는 `code`, `hint`를 담습니다. Python 클라이언트는 같은 `code`와 "
                "`hint`를 가진 `unjam.core.errors`의 예외를 던집니다. 의존 서비스에 관한 오류는 대기 "
                "[사유](reasons.md)를 코드로 씁니다.",
            ),
            pick(lang, "## Answers of the HTTP API", "## HTTP API의 응답"),
            table(_what(lang), http),
            pick(lang, "## Command line, client and start-up", "## 명령줄, 클라이언트, 시작"),
            table(_what(lang), other),
        )
    )


def metrics_page(lang: str) -> str:
    kinds = {"gauge": "게이지", "counter": "카운터", "histogram": "히스토그램"}
    rows = [
        (
            f"`{f.name}`",
            ", ".join(f"`{label}`" for label in f.label.split(",")) if f.label else "–",
            kinds[f.kind] if lang == "ko" else f.kind,
            pick(lang, f.help, f.help_ko),
        )
        for f in FAMILIES
    ]
    return "\n\n".join(
        (
            pick(lang, "# Metrics", "# 메트릭"),
            pick(
                lang,
                "`GET /metrics` on port 8002 speaks Prometheus' text format. Every series stands "
                "at zero from the first scrape; `rag_dlq` is never a `queue` value; no label holds "
                "a worker's name or a document's id. Counts come from the ledger, so they survive "
                "the death of any process and the loss of Redis.",
                "8002 포트의 `GET /metrics`는 Prometheus 텍스트 형식으로 응답합니다. 모든 시계열은 첫 "
                "수집부터 0으로 존재하고, `rag_dlq`는 `queue` 값으로 쓰이지 않으며, 워커 이름이나 문서 id는 "
                "레이블에 넣지 않습니다. 값은 원장에서 오므로 프로세스가 죽거나 Redis 데이터가 사라져도 "
                "유지됩니다.",
            ),
            table(
                pick(lang, "Metric,Labels,Kind,Meaning", "메트릭,레이블,종류,의미").split(","), rows
            ),
        )
    )


def alerts_page(lang: str) -> str:
    parts = [
        pick(lang, "# Alerts", "# 알림"),
        pick(
            lang,
            "`deploy/prometheus/unjam-rules.yml` holds these rules (`unjam alerts --rules` prints "
            "them), with texts in both languages and the command to begin with. `unjam alerts` "
            "shows which conditions hold at this moment. The first four bear the runbook's names, "
            "severities and times; their conditions are corrected.",
            "`deploy/prometheus/unjam-rules.yml`에 다음 규칙이 있으며(`unjam alerts --rules`로 출력), 두 "
            "언어의 설명과 먼저 실행할 명령이 들어 있습니다. `unjam alerts`는 지금 성립하는 조건을 보여 "
            "줍니다. 앞의 네 개는 런북의 이름, 심각도, 지속 시간을 그대로 쓰고 조건만 바로잡았습니다.",
        ),
    ]
    for a in ALERTS:
        hold = (
            pick(lang, f"holds for {a.hold}", f"{a.hold} 지속")
            if a.hold != "0m"
            else (pick(lang, "at once", "즉시"))
        )
        parts += [
            f"## {a.name}",
            f"{pick(lang, 'Severity', '심각도')} `{a.severity}`, {hold}. {a.said_in('meaning', lang)}",
            f"{pick(lang, 'First', '먼저')}: `{a.command}`",
            f"```promql\n{a.expr.strip()}\n```",
        ]
    return "\n\n".join(parts)


def http_page(lang: str) -> str:
    rows: list[tuple[str, ...]] = []
    for path, method, name, summary in operations():
        text = summary if lang == "en" else korean(words.HTTP_KO, name, "endpoint")
        rows.append((f"`{method} {path}`", text))
    return "\n\n".join(
        (
            pick(lang, "# HTTP API", "# HTTP API"),
            pick(
                lang,
                "Port 8002. A running server shows every field at `/docs` and as OpenAPI 3.1 at "
                "`/openapi.json`. Paths under `/api/rag/admin` always need "
                "`Authorization: Bearer <ADMIN_TOKEN>`; the others need `RAG_API_TOKEN` once it is "
                "set. Errors: [error codes](errors.md).",
                "8002 포트입니다. 실행 중인 서버의 `/docs`에서 모든 필드를, `/openapi.json`에서 OpenAPI "
                "3.1 문서를 볼 수 있습니다. `/api/rag/admin` 아래 경로에는 항상 "
                "`Authorization: Bearer <ADMIN_TOKEN>`이 필요하며, 나머지는 `RAG_API_TOKEN`을 설정한 "
                "경우에 필요합니다. 오류는 [오류 코드](errors.md)를 보세요.",
            ),
            table(pick(lang, "Endpoint,What it does", "엔드포인트,하는 일").split(","), rows),
        )
    )


def operations() -> list[tuple[str, str, str, str]]:
    """(path, method, operation id, summary) of every route of the API."""
    from unjam.web.server import create_app

    class House:
        """The application is only described, never called."""

        ledger: Any = None
        queue: Any = None
        settings = Settings()  # type: ignore[call-arg]

    schema: dict[str, Any] = create_app(House()).openapi()  # type: ignore[arg-type]
    return [
        (path, method.upper(), op["operationId"], op.get("summary", ""))
        for path, methods in schema["paths"].items()
        for method, op in methods.items()
    ]


def cli_page(lang: str) -> str:
    parts = [
        pick(lang, "# Command line", "# 명령줄"),
        pick(
            lang,
            "Data goes to stdout, progress to stderr. `--json` gives machine-readable output. Exit "
            "codes: 0 ok, 1 warning, 2 critical, 3 could not tell.",
            "데이터는 stdout으로, 진행 상황은 stderr로 나갑니다. `--json`은 기계가 읽는 출력을 냅니다. 종료 "
            "코드는 0 정상, 1 경고, 2 심각, 3 판단 불가입니다.",
        ),
    ]
    for command in commands(lang):
        parts += [f"## `unjam {command['usage']}`", command["help"]]
        rows = [(f"`{options}`", text) for options, text in command["rows"]]
        if rows:
            head = pick(lang, "Argument or option,Meaning", "인자 또는 옵션,의미")
            parts.append(table(head.split(","), rows))
    return "\n\n".join(parts)


_DESCRIBE = """
import json, sys, typer
from unjam.cli.main import app
found = []
def describe(name, command):
    if command.hidden:
        return
    for inner, sub in getattr(command, "commands", {}).items():
        describe(f"{name} {inner}", sub)
    if hasattr(command, "commands"):
        return
    usage, rows = [name], []
    for p in command.params:
        argument = p.param_type_name == "argument"
        label = (p.metavar or p.name.upper()) if argument else ", ".join(p.opts)
        if argument:
            usage.append(label)
        if not getattr(p, "hidden", False):
            rows.append((label, p.help or ""))
    found.append({"name": name, "usage": " ".join(usage), "help": command.help or "", "rows": rows})
for name, command in typer.main.get_command(app).commands.items():
    describe(name, command)
json.dump(found, sys.stdout)
"""


@functools.cache
def commands(lang: str) -> list[dict[str, Any]]:
    """What ``unjam --help`` lists, in *lang*. The language is chosen when the CLI is imported."""
    done = subprocess.run(
        [sys.executable, "-c", _DESCRIBE],
        env={**os.environ, "RAG_LANG": lang},
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"docs: the command line cannot be described: {done.stderr.decode()}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


PAGES: Mapping[str, Callable[[str], str]] = {
    "reference/settings": settings_page,
    "reference/reasons": reasons_page,
    "reference/errors": errors_page,
    "reference/metrics": metrics_page,
    "reference/alerts": alerts_page,
    "reference/http": http_page,
    "reference/cli": cli_page,
    **operate.PAGES,
}


def main() -> int:
    stale: list[str] = []
    for lang in LANGS:
        for name, page in PAGES.items():
            target = ROOT / "docs" / lang / f"{name}.md"
            text = f"{NOTE[lang]}\n{page(lang)}\n"
            if target.exists() and target.read_text("utf-8") == text:
                continue
            if "--check" in sys.argv[1:]:
                stale.append(str(target.relative_to(ROOT)))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, "utf-8")
    for name in stale:
        print(f"{name} is not current: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
