"""Decides when a cart of the fleet goes to charge."""

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
