"""Deterministic corpora, English and Korean: the same bytes on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unjam.testing.pdf import korean_pdf

SMALL_BYTES = 2_000
LARGE_BYTES = 60_000
LARGE_SHARE = 0.05
GIANT_BYTES = 2_000_000
PDF_PAGES = 10


def words(text: str) -> list[str]:
    return text.split()


EN_NOUNS = words("""index queue worker document vector lease token ledger chunk window cache reader writer
folder server request answer archive report budget invoice contract engine valve sensor harbour
bridge river forest glacier orchard library museum theatre kitchen garden railway station airport
compiler kernel packet socket buffer thread process signal schema migration backup snapshot""")
EN_VERBS = words("""stores renews claims splits merges measures repeats confirms delays restores deletes
returns compares collects encodes transfers verifies schedules protects explains""")
EN_LINKS = words("""before after while because although until whenever unless so_that""")
EN_ADJECTIVES = words("""durable visible small large early late broken quiet shared remote local northern
careful plain urgent annual silent visible wooden frozen""")
KO_NOUNS = words("""문서 색인 대기열 작업자 벡터 임대 토큰 원장 조각 캐시 서버 요청 응답 보고서 예산 계약서
엔진 밸브 센서 항구 다리 강물 숲 빙하 과수원 도서관 박물관 극장 부엌 정원 철도 공항 컴파일러 커널
패킷 버퍼 신호 스키마 백업 사진""")
KO_VERBS = words("""저장한다 갱신한다 나눈다 합친다 측정한다 반복한다 확인한다 미룬다 복구한다 삭제한다
비교한다 모은다 전송한다 검증한다 보호한다 설명한다""")
KO_ADJECTIVES = words("""오래된 새로운 작은 커다란 조용한 느린 빠른 공유된 먼 가까운 북쪽의 정확한 급한
해마다의 얼어붙은""")
KO_LINKS = words("""그러나 그래서 그리고 한편 따라서 또한 다만 이후""")


@dataclass(frozen=True)
class Corpus:
    folder: Path
    files: int
    bytes: int
    characters: int


def english(rng: random.Random) -> str:
    def phrase() -> str:
        return f"the {rng.choice(EN_ADJECTIVES)} {rng.choice(EN_NOUNS)}"

    link = rng.choice(EN_LINKS).replace("_", " ")
    first = f"{phrase()} {rng.choice(EN_VERBS)} {phrase()}"
    return f"{first.capitalize()} {link} {phrase()} {rng.choice(EN_VERBS)} item {rng.randrange(10_000)}."


def korean(rng: random.Random) -> str:
    return (
        f"{rng.choice(KO_LINKS)} {rng.choice(KO_ADJECTIVES)} {rng.choice(KO_NOUNS)}은(는) "
        f"{rng.choice(KO_ADJECTIVES)} {rng.choice(KO_NOUNS)}에서 {rng.randrange(10_000)}번 "
        f"{rng.choice(KO_NOUNS)}을(를) {rng.choice(KO_VERBS)}."
    )


def text_of(number: int, size_bytes: int) -> str:
    """File *number*: odd ones Korean; paragraphs of 5 sentences, about *size_bytes* of UTF-8."""
    rng = random.Random(number)
    sentence = korean if number % 2 else english
    out = [f"# {'문서' if number % 2 else 'Document'} {number}\n\n"]
    size = len(out[0].encode())
    while size < size_bytes:
        paragraph = " ".join(sentence(rng) for _ in range(5)) + "\n\n"
        out.append(paragraph)
        size += len(paragraph.encode())
    return "".join(out)


def make_corpus(folder: Path, files: int, kind: str = "small", first: int = 0) -> Corpus:
    """Write *files* files of a *kind* of KINDS, numbered from *first*; no two are equal."""
    folder.mkdir(parents=True, exist_ok=True)
    total = characters = 0
    for number in range(first, first + files):
        suffix, data, text = KINDS[kind](number)
        (folder / f"{number:06}.{suffix}").write_bytes(data)
        total += len(data)
        characters += text
    return Corpus(folder, files, total, characters)


def _text(number: int, size: int) -> tuple[str, bytes, int]:
    text = text_of(number, size)
    return "txt", text.encode(), len(text)


def _small(number: int) -> tuple[str, bytes, int]:
    """2 KB; 5 % of them, spread evenly, 60 KB."""
    every = round(1 / LARGE_SHARE)
    # every + 1: large files fall on English and Korean numbers in turn
    large = number % (every + 1) == every
    return _text(number, LARGE_BYTES if large else SMALL_BYTES)


def _pdf(number: int) -> tuple[str, bytes, int]:
    """Ten Korean pages; one word is another in each file, so that no text occurs twice."""
    high, low = divmod(number, 399)
    own = (chr(0xAC00 + 28 * high) + chr(0xAC00 + 28 * low)).encode("utf-16-be").hex()
    usual = "운송".encode("utf-16-be").hex()
    data = korean_pdf(PDF_PAGES).replace(usual.encode(), own.encode())
    return "pdf", data, PDF_PAGES * 12 * 32


def _mixed(number: int) -> tuple[str, bytes, int]:
    """Of twenty files two PDFs and one of 2 MB."""
    place = number % 20
    if place == 19:
        return _text(number, GIANT_BYTES)
    return _pdf(number) if place in (5, 12) else _small(number)


KINDS: dict[str, Callable[[int], tuple[str, bytes, int]]] = {
    "small": _small,
    "large": lambda number: _text(number, GIANT_BYTES),
    "pdf": _pdf,
    "mixed": _mixed,
}
