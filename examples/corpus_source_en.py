"""What the English half of the demo corpus says. Blocks: ("h1"|"h2"|"p"|"code", text), ("list"|"table", rows)."""

from __future__ import annotations

from typing import Any

Block = tuple[str, Any]

ENGLISH: dict[str, tuple[str, list[Block]]] = {
    "server-room-safety.pdf": (
        "Server Room Safety Rules",
        [
            ("h1", "Server Room Safety Rules"),
            (
                "p",
                "These rules apply to both server rooms of Haneul Robotics, the one in the Pangyo head office and the one beside the Gimhae plant. They were last revised on 12 January 2026 by the infrastructure team.",
            ),
            ("h2", "Entering the room"),
            (
                "p",
                "Nobody enters alone. Two people must badge in within thirty seconds of each other, and the second badge has to belong to the infrastructure team. Visitors sign the blue book at the reception and are accompanied at all times. Drinks, food and cardboard stay outside, as cardboard dust clogs the intake filters.",
            ),
            ("h2", "Temperature and humidity"),
            (
                "p",
                "The cold aisle is kept between 20 and 24 degrees Celsius. When a sensor reads 29 degrees for more than five minutes, the on-call engineer is paged and starts to shut down the training cluster first, since it gives off the most heat. Relative humidity must stay between 40 and 60 percent; below that, static discharge damages memory modules.",
            ),
            ("page", ""),
            ("h2", "Fire and gas"),
            (
                "p",
                "The rooms are protected by a Novec 1230 gas system. After the siren starts there are forty-five seconds to leave before the gas is released. The yellow hold button beside the door delays the release as long as it is pressed. Never prop the door open: the gas would escape and the fire would not go out.",
            ),
            ("h2", "Lifting and racks"),
            (
                "p",
                "Equipment heavier than 18 kilograms is lifted with the hand-cranked server lift that stands in bay C. Racks are filled from the bottom up so that they cannot tip over. The uninterruptible power supplies at the bottom of each rack may only be opened by the electrician from Daon Electric.",
            ),
            ("page", ""),
            ("h2", "After an accident"),
            (
                "p",
                "Call the safety desk at extension 7119 and then the infrastructure lead. A first-aid kit and a defibrillator hang to the left of the main door. Every accident, even one without an injury, is written down within 24 hours in the incident log.",
            ),
        ],
    ),
    "narae3-product-manual.pdf": (
        "Narae 3 Delivery Cart: Owner's Manual",
        [
            ("h1", "Narae 3 Delivery Cart: Owner's Manual"),
            (
                "p",
                "Narae 3 is an autonomous delivery cart for hospitals, hotels and warehouses. It carries up to 80 kilograms on two shelves and drives at walking pace, at most 1.2 metres per second, through corridors that are at least 90 centimetres wide.",
            ),
            ("h2", "First start"),
            (
                "p",
                "Remove the red transport lock under the rear axle. Hold the power button for three seconds until the ring lights white. The cart then asks for a wireless network; it only joins networks on the 5 GHz band. Let it map the building by pushing it once through every corridor with the handle raised.",
            ),
            ("page", ""),
            ("h2", "Charging"),
            (
                "p",
                "A full charge takes two hours and forty minutes at the dock and lasts for about eleven hours of driving. The cart returns to its dock by itself when 15 percent is left. Do not charge below freezing: the lithium iron phosphate cells refuse current under 0 degrees and the ring blinks blue.",
            ),
            ("h2", "What the ring of light means"),
            (
                "table",
                [
                    ["Colour", "Pattern", "Meaning"],
                    ["White", "steady", "ready"],
                    ["Green", "rotating", "on the way"],
                    ["Amber", "pulsing", "waiting for a lift or a door"],
                    ["Red", "steady", "emergency stop was pressed"],
                    ["Violet", "blinking", "lost: it cannot find itself on the map"],
                ],
            ),
            ("page", ""),
            ("h2", "Cleaning and care"),
            (
                "p",
                "Wipe the laser scanner once a week with the grey microfibre cloth and nothing else; alcohol makes its cover cloudy. The wheels are replaced after 4,000 kilometres. The drive belt is checked by a technician once a year.",
            ),
            ("h2", "When it is lost"),
            (
                "p",
                "If the ring blinks violet, push the cart to any charging dock. The dock's pattern tells it where it is, and it continues its delivery after about ten seconds. If this happens more than once a day, map the building again: furniture has probably been moved.",
            ),
        ],
    ),
    "warranty-terms.docx": (
        "Limited Warranty",
        [
            ("h1", "Limited Warranty"),
            (
                "p",
                "Haneul Robotics warrants its delivery carts to the first buyer under the terms below.",
            ),
            ("h2", "What is covered and for how long"),
            (
                "p",
                "The frame is covered for ten years, motors and electronics for thirty-six months, and the battery for twenty-four months or 1,500 charging cycles, whichever is reached first. Wheels, belts and cloths wear out and are not covered.",
            ),
            ("h2", "What ends the warranty"),
            (
                "p",
                "Opening the sealed drive unit, use outdoors in rain, and washing the cart with a pressure cleaner end the warranty at once. A broken seal on the drive unit is enough proof.",
            ),
            ("h2", "How to claim"),
            (
                "list",
                [
                    "Report the defect within fourteen days after you notice it.",
                    "Send the serial number, which is printed inside the lower shelf.",
                    "We answer within two working days and lend you a cart when the repair takes longer than five.",
                ],
            ),
            ("h2", "Law and place"),
            (
                "p",
                "These terms are governed by the law of the Republic of Korea. The court of Seongnam decides disputes that cannot be settled by mediation.",
            ),
            (
                "table",
                [
                    ["Part", "Years covered", "Note"],
                    ["Frame", "10", "against cracks"],
                    ["Motors", "3", "including gearbox"],
                    ["Battery", "2", "or 1,500 cycles"],
                ],
            ),
        ],
    ),
    "release-notes.md": (
        "Fleet Manager Release Notes",
        [
            ("h1", "Fleet Manager Release Notes"),
            ("h2", "4.2.0 — 3 June 2026"),
            (
                "p",
                "Carts can now share a lift: the dispatcher groups up to three of them for one ride. The map editor has an undo of fifty steps. The export of delivery statistics moved from the Tools menu to Reports.",
            ),
            ("h2", "4.1.2 — 9 April 2026"),
            (
                "p",
                "This version repairs a fault by which carts stopped in front of glass doors in low sunlight. The cause was a reflection that the laser took for a wall; two scanners must now agree before a cart stops.",
            ),
            ("h2", "4.1.0 — 20 February 2026"),
            (
                "p",
                "Night mode lowers the driving sound to 38 decibels between 22:00 and 6:00. Passwords must have at least fourteen characters. Support for the old Narae 1 cart has ended; it keeps version 4.0.",
            ),
            ("h2", "Upgrading"),
            (
                "p",
                "Back up the map folder first. The upgrade takes about twenty minutes, during which carts finish their current trip and then wait at their docks.",
            ),
            (
                "code",
                "fleetctl backup --maps /srv/maps\nfleetctl upgrade --to 4.2.0 --drain\nfleetctl status --wait ready",
            ),
        ],
    ),
    "expense-rules.html": (
        "Travel and Expense Rules",
        [
            ("h1", "Travel and Expense Rules"),
            ("h2", "Meals"),
            (
                "p",
                "On business trips the company pays up to 45 euros a day for meals abroad and 38,000 won a day in Korea. Alcohol is never reimbursed, except at a dinner with customers that a director approved beforehand.",
            ),
            ("h2", "Flights and trains"),
            (
                "p",
                "Flights shorter than six hours are booked in economy class. For longer ones premium economy is allowed. On the KTX a first-class seat is paid only if the journey lasts more than two hours.",
            ),
            ("h2", "Hotels"),
            (
                "table",
                [
                    ["City", "Limit per night", "Breakfast"],
                    ["Seoul", "160,000 won", "not included"],
                    ["Berlin", "140 euros", "included"],
                    ["Tokyo", "19,000 yen", "not included"],
                    ["San Francisco", "260 dollars", "not included"],
                ],
            ),
            ("h2", "Receipts"),
            (
                "p",
                "Photograph every receipt and hand it in within thirty days after the trip. What arrives later is paid only with the signature of the finance director. Below 10 euros no receipt is needed. Money comes with the salary of the following month.",
            ),
            ("h2", "Private cars"),
            (
                "p",
                "Whoever drives with their own car gets 30 cents a kilometre. Fines for parking or speeding are always your own matter.",
            ),
        ],
    ),
    "onboarding-deck.pptx": (
        "Welcome to Haneul Robotics",
        [
            ("slide", "Welcome to Haneul Robotics"),
            (
                "p",
                "Founded in 2014 in a garage in Daejeon. Today 312 people work in Pangyo, Gimhae and Eindhoven.",
            ),
            ("slide", "Your first week"),
            (
                "p",
                "Monday: laptop and badge from the service desk on the fourth floor. Tuesday: a day with a cart in the test corridor. Friday at three: cake with the founders, Ms Seo and Mr Baek.",
            ),
            ("slide", "Your buddy"),
            (
                "p",
                "Everyone gets a buddy for ninety days. Buddies answer every question and have a budget of 60,000 won for lunches together.",
            ),
            ("slide", "Learning budget"),
            (
                "p",
                "Each person may spend 1.2 million won a year on books, courses and conferences. What is not spent by December expires.",
            ),
            ("slide", "Where things are"),
            (
                "table",
                [
                    ["What", "Where"],
                    ["Prayer and quiet room", "second floor, next to the stairs"],
                    ["Bicycle cellar", "entrance from the river side, code on the intranet"],
                    ["Nursing room", "third floor, room 3.12"],
                ],
            ),
        ],
    ),
    "shipping-rates.xlsx": (
        "Shipping",
        [
            ("sheet", "Rates 2026"),
            (
                "table",
                [
                    ["Destination", "Carrier", "Days", "Price per crate (EUR)", "Insurance"],
                    ["Japan", "Hanjin Sea", "6", "410", "included"],
                    ["Germany", "Baltic Rail", "21", "780", "1.2 %"],
                    ["Brazil", "Atlantic Star", "38", "1150", "2.5 %"],
                    ["Canada", "Polar Freight", "19", "930", "included"],
                    ["South Africa", "Cape Line", "33", "1080", "2.1 %"],
                    ["Norway", "Fjord Express", "24", "865", "0.9 %"],
                ],
            ),
            ("sheet", "Crates"),
            (
                "table",
                [
                    ["Crate", "Length (cm)", "Width (cm)", "Height (cm)", "Empty weight (kg)"],
                    ["S", "80", "60", "70", "14"],
                    ["M", "120", "80", "110", "31"],
                    ["XL", "180", "110", "150", "62"],
                ],
            ),
        ],
    ),
    "incident-report.eml": (
        "Outage of the booking service on 17 March",
        [
            ("from", "Mina Okafor <mina.okafor@haneul-robotics.example>"),
            ("to", "all-engineering@haneul-robotics.example"),
            ("date", "Wed, 18 Mar 2026 10:20:00 +0900"),
            ("p", "Hello all,"),
            (
                "p",
                "yesterday the booking service was away for 47 minutes, from 14:08 to 14:55. About 1,900 deliveries were booked late; none was lost.",
            ),
            (
                "p",
                "What happened: a certificate of the internal gateway had expired. The reminder went to the mailbox of Tomasz, who left the company in January. The on-call engineer first looked at the database, as its connection errors were the loudest, and lost twenty minutes there.",
            ),
            (
                "p",
                "What we change: certificates are renewed by a robot thirty days before they end, reminders go to a team and never to a person, and the dashboard shows the days left in red below fourteen.",
            ),
            ("p", "Thanks to Jiho, who found the cause with one look at the gateway's log.\nMina"),
            ("attachment", "timeline-17-march.pdf"),
        ],
    ),
    "lighthouse-keeper.epub": (
        "The Last Keeper of Skerry Point",
        [
            ("h1", "The Light"),
            (
                "p",
                "The lighthouse of Skerry Point was built in 1867 from grey granite that was carried over the ice. Its lamp stood 41 metres above the sea and burned rapeseed oil until 1904, when paraffin came. On a clear night it was seen from 22 miles away.",
            ),
            ("h1", "The Keeper"),
            (
                "p",
                "Agnes Thorburn became keeper after her father had fallen from the gallery in the great storm of 1911. The lighthouse board did not want a woman and paid her two thirds of his wage for nineteen years. She kept eleven goats, and taught the fishermen's children to read during the winters.",
            ),
            ("h1", "The Wreck of the Marigold"),
            (
                "p",
                "On the night of 3 November 1923 the lamp's clockwork broke. For seven hours Agnes turned the lens by hand, so that its flash kept the right rhythm. The steamer Marigold, with 214 people aboard, passed the reef unharmed. Her captain sent a barrel of oranges every Christmas until he died.",
            ),
            ("h1", "The Dark"),
            (
                "p",
                "The light was made automatic in 1958 and put out in 1987. Today the house belongs to a society of birdwatchers, who count puffins from the gallery in June.",
            ),
        ],
    ),
    "store-locations.csv": (
        "Stores",
        [
            (
                "table",
                [
                    ["Store", "City", "Street", "Opens", "Closes", "Speciality"],
                    ["Riverside", "Portland", "12 Alder Quay", "07:00", "19:00", "rye bread"],
                    ["Old Mill", "Burlington", "4 Canal Lane", "06:30", "15:00", "maple buns"],
                    [
                        "Harbour",
                        "Halifax",
                        "88 Lower Water Street",
                        "08:00",
                        "18:00",
                        "seaweed crackers",
                    ],
                    ["Station", "Utrecht", "Stationsplein 9", "06:00", "22:00", "currant loaves"],
                    ["Hilltop", "Asheville", "230 Ridge Road", "09:00", "17:00", "peach pies"],
                    ["Arcade", "Leeds", "17 Thornton's Arcade", "08:30", "18:30", "cheese scones"],
                ],
            ),
        ],
    ),
    "greenhouse-settings.json": (
        "Greenhouse",
        [
            (
                "json",
                {
                    "greenhouse": {"name": "North House", "crop": "tomatoes", "area_m2": 860},
                    "climate": {
                        "day_temperature_c": 23,
                        "night_temperature_c": 17,
                        "vents_open_above_c": 27,
                        "co2_ppm": 900,
                    },
                    "irrigation": {
                        "start": "05:40",
                        "litres_per_plant_per_day": 1.8,
                        "pause_when_rain_mm_exceeds": 6,
                        "fertiliser": "calcium nitrate, every third day",
                    },
                    "alarms": {
                        "frost_call": "Petra Lindqvist",
                        "frost_call_phone": "+46 70 555 0134",
                        "battery_low_percent": 20,
                    },
                    "pollination": {
                        "method": "bumblebee hives",
                        "hives": 4,
                        "replaced_every_weeks": 9,
                    },
                },
            ),
        ],
    ),
    "battery_scheduler.py": (
        "battery scheduler",
        [
            (
                "source",
                '''"""Decides when a cart of the fleet goes to charge."""

from dataclasses import dataclass

RESERVE_PERCENT = 15  # below this a cart drops what it does and drives home
CHEAP_HOURS = range(1, 6)  # the night tariff of the power company


@dataclass
class Cart:
    name: str
    charge_percent: float
    trips_waiting: int


def should_charge(cart: Cart, hour: int, free_docks: int) -> bool:
    """Charge at once when the reserve is reached, else at night or when there is nothing to do.

    A cart never takes the last free dock unless it is below its reserve: the last dock is
    kept for emergencies.
    """
    if cart.charge_percent <= RESERVE_PERCENT:
        return free_docks > 0
    if free_docks <= 1:
        return False
    if hour in CHEAP_HOURS:
        return cart.charge_percent < 90
    return cart.trips_waiting == 0 and cart.charge_percent < 60


def queue_order(carts: list[Cart]) -> list[Cart]:
    """Emptiest first; of equally empty carts the one with more trips waiting."""
    return sorted(carts, key=lambda cart: (cart.charge_percent, -cart.trips_waiting))
''',
            ),
        ],
    ),
    "coffee-brewing.txt": (
        "Coffee",
        [
            ("p", "HOW WE BREW COFFEE IN THE SECOND-FLOOR KITCHEN"),
            (
                "p",
                "The grinder is set to 14 for the filter machine and to 6 for the espresso lever. Please turn it back to 14 when you are done, because most people drink filter coffee and a pot from espresso powder tastes bitter.",
            ),
            (
                "p",
                "For a pot take 60 grams of beans for each litre. The water comes from the tap with the green handle, which has the limescale filter. Rinse the paper once with hot water, pour in a little, wait thirty seconds until the bubbles are gone, and then pour the rest in slow circles.",
            ),
            (
                "p",
                "Beans are bought by Yusuf on the first Thursday of the month from the roastery in Sinsa-dong. If the jar with the wooden lid is empty before that, there is a reserve bag behind the oat milk. Decaffeinated beans are in the jar with the orange ribbon.",
            ),
            (
                "p",
                "The machine is descaled every six weeks with citric acid, never with vinegar, as the smell stays for days. Write the date on the card that hangs on the fridge.",
            ),
        ],
    ),
    "garden-calendar.txt16": (
        "Garden",
        [
            ("p", "A CALENDAR FOR THE ROOF GARDEN"),
            (
                "p",
                "February: sow chillies and aubergines indoors on the window sill of the workshop; they need 24 degrees to sprout. Prune the two apple trees on a dry day without frost.",
            ),
            (
                "p",
                "April: the potatoes go into the black sacks, three to a sack. Fill up with earth whenever the leaves stand a hand above the rim. Sow peas along the southern railing.",
            ),
            (
                "p",
                "June: the strawberries are netted, or the magpies take them all. Water before seven in the morning; the roof gets so hot that water at noon boils the roots. The rain barrel holds 350 litres and lasts for nine days.",
            ),
            (
                "p",
                "September: harvest the pumpkins when the stalk sounds hollow. Collect the seeds of the marigolds, dry them in paper bags and put the year on them.",
            ),
            (
                "p",
                "November: the water pipe is emptied and the tap left open, as it burst in 2021. The fig tree is wrapped in fleece. The key of the shed hangs with the caretaker, Mr Han, in the basement.",
            ),
        ],
    ),
}
