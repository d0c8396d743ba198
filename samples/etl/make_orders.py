"""Makes the orders of a day as a careless shop exports them, the same ones each time. `--truth` prints what is in them instead.

The clean orders come first and are then spoilt, so their number and sum are known without cleaning anything.
"""

import csv
import random
import sys

ORDERS = 5_000
FIELDS = ["order_id", "customer", "country", "ordered", "amount"]
COUNTRIES = ["DE", "AT", "CH", "FR", "NL"]


def clean_orders():
    """What was really ordered; amounts in cents."""
    chance = random.Random(20261127)
    return [
        {
            "order_id": 100_000 + number,
            "customer": f"customer-{chance.randrange(900):03}",
            "country": chance.choice(COUNTRIES),
            "ordered": (2026, 11, chance.randint(1, 28)),
            "cents": chance.randint(99, 250_000),
        }
        for number in range(ORDERS)
    ]


def date(day, chance):
    year, month, day = day
    return chance.choice([f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}"])


def amount(cents, chance):
    euros, rest = divmod(cents, 100)
    return chance.choice([f"{euros}.{rest:02}", f"{euros:,}.{rest:02}".translate(str.maketrans(",.", ".,")), f"EUR {euros}.{rest:02}"])


def rows():
    """The lines of the file: each order in one spelling or another, some twice, and some that are none."""
    chance = random.Random(7)
    lines = []
    for order in clean_orders():
        line = [
            str(order["order_id"]),
            chance.choice(["", " "]) + chance.choice([str, str.upper])(order["customer"]),
            chance.choice([str, str.lower])(order["country"]),
            date(order["ordered"], chance),
            amount(order["cents"], chance),
        ]
        lines.append(line)
        # Exported twice; and an earlier state of it, which the later line corrects.
        if chance.random() < 0.03:
            lines.append(line)
        if chance.random() < 0.02:
            lines.insert(len(lines) - 1, [*line[:4], amount(order["cents"] + 100, chance)])
    for spoilt in (
        ["", "customer-001", "DE", "2026-11-01", "5.00"],
        ["100001x", "customer-001", "DE", "2026-11-01", "5.00"],
        ["199001", " ", "DE", "2026-11-01", "5.00"],
        ["199002", "customer-001", "DE", "2026-11-31", "5.00"],
        ["199003", "customer-001", "DE", "2026-11-01", "five"],
        ["199004", "customer-001", "DE", "2026-11-01", "-5.00"],
        ["199005", "customer-001"],
    ):
        lines.insert(chance.randrange(len(lines)), spoilt)
    return lines


if __name__ == "__main__":
    if "--truth" in sys.argv[1:]:
        print(ORDERS, sum(order["cents"] for order in clean_orders()))
    else:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(rows())
