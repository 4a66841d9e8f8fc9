"""More than 500 passages that are not the demo corpus: prose on 30 topics, the same every time.

Near misses on purpose: other leave rules, other robots, other recipes, other lighthouses.
"""

# ruff: noqa: E501, SIM905 - prose and word lists
from __future__ import annotations

import random

ENGLISH = [
    ("The {city} tram museum keeps {n} carriages in a hall by the {place}.", "Line {n} was closed in {year}, when the bridge was widened for cars.", "Volunteers polish the brass on {day}s and drive visitors around the yard.", "A ticket costs {m} euros and is valid for the whole {season}."),
    ("Our bakery course teaches {n} kinds of dough within {m} evenings.", "Sourdough rests for {m} hours in a cool {place} before it is shaped.", "The teacher, {name}, learned her trade in {city}.", "Bring an apron and a jar; flour and salt are provided every {day}."),
    ("Employees of the {city} branch may park in the yard after {n} o'clock.", "The {place} is locked by the caretaker, {name}, each {day} evening.", "Lost access cards are replaced for {m} euros at the front desk.", "Bicycles left in the corridor for longer than {m} days are removed."),
    ("The cleaning robot of the {city} airport scrubs {n} square metres an hour.", "Its tank holds {m} litres and is rinsed by {name} after the night shift.", "A red stripe on the floor tells it where the {place} begins.", "In {year} it was fitted with softer brushes because of the noise."),
    ("The football club of {city} won {n} matches in the season of {year}.", "Coach {name} trains the youngsters on {day} beside the {place}.", "A season ticket was {m} euros cheaper than the year before.", "After the game people meet for soup and argue about the referee."),
    ("Rent for the workshop in {city} rises by {m} percent from {season} on.", "The landlord, {name}, repairs the roof but not the windows.", "There are {n} square metres of floor and a {place} with running water.", "Either side may end the contract with {m} months' notice on a {day}."),
    ("The orchestra rehearses in the {place} of {city} every {day}.", "Its conductor, {name}, prefers slow symphonies and strong tea.", "In {year} a cellist found {n} letters of a forgotten composer there.", "The next concert lasts {m} quarters of an hour without a break."),
    ("Beekeepers around {city} lost {n} colonies in the wet {season} of {year}.", "The mite is treated with oxalic acid when the {place} is free of brood.", "{name} weighs the hives each {day} and writes the figures on the lid.", "A jar of lime honey costs {m} euros at the gate."),
    ("The printer on the {place} jams when the paper is thinner than {n} grams.", "Open flap {m}, pull the sheet out slowly and close the flap again.", "Toner is ordered by {name}; a cartridge lasts until about {season}.", "Colour prints are counted and discussed at the meeting on {day}."),
    ("The ferry from {city} leaves {n} minutes after the train arrives.", "In {season} only {m} crossings a day are made because of the fog.", "Captain {name} has known the sandbanks since {year}.", "Dogs travel on the upper deck beside the {place}."),
    ("The hospital in {city} opened a new {place} with {n} beds in {year}.", "Visitors are welcome until {m} in the evening, but never more than two.", "Flowers in pots are not allowed, explains nurse {name}.", "On {day} a choir sings in the entrance hall."),
    ("Software version {m}.{n} of the library catalogue searches by shelf.", "{name} fixed the sorting of umlauts in the {season} of {year}.", "Exports now contain the {place} of each copy as a column.", "The database is rebuilt every {day} night and takes {m} minutes."),
    ("The old mill near {city} grinds rye with stones from {year}.", "Its wheel turns {n} times a minute when the {place} is full.", "The miller, {name}, shows the gears to school classes on {day}.", "A fire in {season} destroyed the barn but spared the sails."),
    ("The hiking trail above {city} climbs {n} metres to a {place}.", "In {season} stones fall there, so the club closed it for {m} weeks.", "Ranger {name} paints the marks anew every other year.", "The hut serves dumplings from {day} to Sunday."),
    ("The laboratory in {city} keeps its samples at minus {n} degrees.", "When the freezer warms by {m} degrees a message goes to {name}.", "Liquid nitrogen is delivered to the {place} on {day}.", "In {year} a broken seal cost the work of a whole {season}."),
]  # fmt: skip

KOREAN = [
    ("{city}의 전차 박물관은 {place} 옆 건물에 차량 {n}대를 모아 두었다.", "{n}호선은 다리를 넓히던 {year}년에 없어졌다.", "{day}에는 자원봉사자가 놋쇠 손잡이를 닦고 손님을 태운다.", "입장료는 {m}천 원이고 {season} 내내 쓸 수 있다."),
    ("제빵 교실에서는 {m}주 동안 {n}가지 반죽을 배운다.", "천연 발효 반죽은 서늘한 {place}에서 {m}시간 쉬게 한다.", "강사 {name} 씨는 {city}에서 기술을 익혔다.", "{day}마다 앞치마와 유리병을 가져오면 밀가루는 나누어 준다."),
    ("{city} 지점 직원은 저녁 {m}시가 지나면 마당에 차를 세울 수 있다.", "{place}은 관리인 {name} 씨가 {day} 저녁마다 잠근다.", "출입증을 다시 만들려면 안내 창구에 {m}천 원을 낸다.", "복도에 {n}일 넘게 둔 자전거는 치운다."),
    ("{city} 공항의 청소 로봇은 한 시간에 {n}제곱미터를 닦는다.", "물통에는 {m}리터가 들어가고 {name} 씨가 밤 근무 뒤에 헹군다.", "바닥의 붉은 선이 {place}의 시작을 알려 준다.", "{year}년에 소음 때문에 부드러운 솔로 바꾸었다."),
    ("{city} 축구단은 {year}년에 {n}경기를 이겼다.", "{name} 감독은 {day}에 {place} 옆에서 아이들을 가르친다.", "시즌 입장권은 작년보다 {m}만 원 싸졌다.", "경기가 끝나면 모두 국밥을 먹으며 심판 이야기를 한다."),
    ("{city} 작업실의 월세는 {season}부터 {m}퍼센트 오른다.", "건물주 {name} 씨는 지붕은 손보지만 창문은 손보지 않는다.", "넓이는 {n}제곱미터이고 {place}에 수도가 있다.", "누구든 {m}달 전에 말하면 계약을 끝낼 수 있다."),
    ("관현악단은 {day}마다 {city} {place}에서 연습한다.", "지휘자 {name} 씨는 느린 교향곡과 진한 차를 좋아한다.", "{year}년에 잊힌 작곡가의 편지 {n}통이 나왔다.", "다음 연주회는 쉬는 시간 없이 {m}십 분 동안 이어진다."),
    ("{year}년 {season}의 긴 비로 {city} 둘레의 벌통 {n}개가 비었다.", "응애는 {place}에 새끼가 없을 때 약을 쓴다.", "{name} 씨는 {day}마다 벌통 무게를 재어 뚜껑에 적는다.", "아까시 꿀 한 병은 문 앞에서 {m}만 원이다."),
    ("{place}의 복사기는 종이가 {n}그램보다 얇으면 걸린다.", "{m}번 덮개를 열고 종이를 천천히 빼낸 다음 다시 닫는다.", "토너는 {name} 씨가 주문하며 {season}까지 쓸 수 있다.", "색 인쇄는 {day} 회의에서 따로 센다."),
    ("{city}에서 떠나는 배는 기차가 닿고 {n}분 뒤에 출항한다.", "{season}에는 안개 때문에 하루 {m}번만 다닌다.", "{name} 선장은 {year}년부터 이 물길을 다녔다.", "개는 {place} 옆 위층 갑판에 탄다."),
    ("{city} 병원은 {year}년에 침대 {n}개가 있는 {place}을 열었다.", "면회는 저녁 {m}시까지 두 사람만 할 수 있다.", "화분은 가져올 수 없다고 {name} 간호사가 말했다.", "{day}에는 현관에서 합창단이 노래한다."),
    ("도서 목록 프로그램 {m}.{n}판은 서가 번호로 찾을 수 있다.", "{name} 씨가 {year}년 {season}에 가나다 정렬을 고쳤다.", "내보낸 파일에는 책마다 {place}이 열로 들어간다.", "{day} 밤마다 {m}분 동안 색인을 다시 만든다."),
    ("{city} 근처의 물레방아는 {year}년의 돌로 보리를 빻는다.", "{place}에 물이 차면 바퀴가 한 번에 {n}바퀴 돈다.", "방앗간 주인 {name} 씨는 {day}에 학생들에게 톱니를 보여 준다.", "{season}의 불로 헛간은 탔지만 방아는 남았다."),
    ("{city} 뒤의 오솔길은 {n}미터를 올라 {place}에 닿는다.", "{season}에는 돌이 굴러 {m}주 동안 길을 막았다.", "산지기 {name} 씨가 한 해 걸러 표지를 다시 칠한다.", "산장은 {day}부터 일요일까지 수제비를 판다."),
    ("{city} 연구소는 시료를 영하 {n}도에 둔다.", "냉동고가 {m}도 오르면 {name} 씨에게 문자가 간다.", "액체 질소는 {day}에 {place}으로 들어온다.", "{year}년에는 고무 하나가 터져 {season} 내내 한 일을 잃었다."),
]  # fmt: skip

_WORDS = {
    "en": {
        "city": "Bergen Lyon Tartu Porto Graz Malmö Verona Bristol Ghent Split Turku Basel".split(),
        "place": ["north wing", "boat shed", "attic", "courtyard", "cellar", "side hall", "pond", "annex"],
        "name": "Ingrid Paolo Wanda Desmond Amira Kazuo Leonie Bartek Noor Felipe".split(),
        "day": "Monday Tuesday Wednesday Thursday Friday Saturday".split(),
        "season": "spring summer autumn winter".split(),
    },
    "ko": {
        "city": "강릉 목포 전주 춘천 안동 여수 통영 청주 군산 속초 경주 포항".split(),
        "place": "별관 다락 마당 지하실 연못 온실 쉼터 보관실".split(),
        "name": "구본석 남궁미 황보람 선우진 도경아 위성호 천유리 엄태수 방은비 길상우".split(),
        "day": "월요일 화요일 수요일 목요일 금요일 토요일".split(),
        "season": "봄 여름 가을 겨울".split(),
    },
}  # fmt: skip


def distractors(each: int = 18) -> list[str]:
    """*each* passages per topic: 30 topics, so 540 by default."""
    chance = random.Random(20260101)
    made: list[str] = []
    for language, topics in (("en", ENGLISH), ("ko", KOREAN)):
        words = _WORDS[language]
        for topic in topics:
            for _ in range(each):
                sentences = [*topic, chance.choice(chance.choice(topics))]
                text = " ".join(
                    sentence.format(
                        n=chance.randint(12, 96), m=chance.randint(2, 9),
                        year=chance.randint(1962, 2024),
                        **{slot: chance.choice(options) for slot, options in words.items()},
                    )
                    for sentence in sentences
                )  # fmt: skip
                made.append(text)
    return made
