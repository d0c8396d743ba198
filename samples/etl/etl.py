"""The nightly job: reads the day's orders, cleans them, and loads them into PostgreSQL.

It may be run as often as one likes: an order that is there already is brought up to date, in one transaction with all others.
"""

import csv
import datetime
import os
import pathlib
import re
import sys

TABLE = """CREATE TABLE IF NOT EXISTS orders (
    order_id bigint PRIMARY KEY,
    customer text NOT NULL,
    country text NOT NULL,
    ordered date NOT NULL,
    amount_cents bigint NOT NULL CHECK (amount_cents > 0),
    loaded_at timestamptz NOT NULL DEFAULT now()
)"""
UPSERT = """INSERT INTO orders (order_id, customer, country, ordered, amount_cents)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (order_id) DO UPDATE SET customer = EXCLUDED.customer, country = EXCLUDED.country,
    ordered = EXCLUDED.ordered, amount_cents = EXCLUDED.amount_cents, loaded_at = now()"""


def parse_date(text):
    """Of `2026-11-27` and `27.11.2026`."""
    for form in ("%Y-%m-%d", "%d.%m.%Y"):
        try:
            return datetime.datetime.strptime(text, form).date()
        except ValueError:
            pass
    raise ValueError(f"ordered {text!r} is no date")


def parse_cents(text):
    """Of `1234.50`, `EUR 1234.50` and `1.234,50`."""
    found = re.fullmatch(r"(?:EUR )?(\d+|\d{1,3}(?:\.\d{3})+)([.,])(\d{2})", text)
    if not found or ("." in found[1] and found[2] == "."):
        raise ValueError(f"amount {text!r} is no amount in euros and cents")
    return int(found[1].replace(".", "")) * 100 + int(found[3])


def clean(line):
    """An order of a line of the file."""
    line = {name: (value or "").strip() for name, value in line.items() if name}
    if not re.fullmatch(r"\d+", line["order_id"]):
        raise ValueError(f"order_id {line['order_id']!r} is no number")
    if not line["customer"]:
        raise ValueError("customer is empty")
    if not re.fullmatch(r"[A-Za-z]{2}", line["country"]):
        raise ValueError(f"country {line['country']!r} is no country")
    return (
        int(line["order_id"]),
        line["customer"].lower(),
        line["country"].upper(),
        parse_date(line["ordered"]),
        parse_cents(line["amount"]),
    )


def extract(lines):
    """The orders, the last line of each, and what is wrong with the lines that are none."""
    orders, wrong = {}, []
    for number, line in enumerate(csv.DictReader(lines), start=2):
        try:
            order = clean(line)
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
        else:
            orders[order[0]] = order
    return list(orders.values()), wrong


def load(url, orders):
    """Writes all orders or none."""
    import psycopg

    with psycopg.connect(url, connect_timeout=20) as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        cursor.executemany(UPSERT, orders)


def main(arguments):
    file = os.environ.get("ORDERS") or pathlib.Path(__file__).with_name("orders.csv")
    with open(file, newline="", encoding="utf-8") as lines:
        orders, wrong = extract(lines)
    for problem in wrong:
        print(f"left out: {problem}", flush=True)
    if "--dry-run" in arguments:
        # The driver too must be there.
        import psycopg

        print(f"would load {len(orders)} orders with psycopg {psycopg.__version__}", flush=True)
        return
    load(os.environ["DATABASE_URL"], orders)
    print(f"loaded {len(orders)} orders, left out {len(wrong)} lines", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
