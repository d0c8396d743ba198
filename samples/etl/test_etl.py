"""Cleaning, judged against the orders before they were spoilt; loading is shown by the demo, with a real database."""

import csv
import datetime
import io
import unittest

import etl
import make_orders


def exported():
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(make_orders.FIELDS)
    writer.writerows(make_orders.rows())
    file.seek(0)
    return file


class EtlTest(unittest.TestCase):
    def test_what_was_spoilt_is_clean_again(self):
        orders, wrong = etl.extract(exported())
        truth = [
            (order["order_id"], order["customer"], order["country"], datetime.date(*order["ordered"]), order["cents"])
            for order in make_orders.clean_orders()
        ]
        self.assertEqual(sorted(orders), truth)
        self.assertEqual(len(wrong), 7)

    def test_the_same_file_is_made_each_time(self):
        self.assertEqual(exported().read(), exported().read())

    def test_amounts_are_read_in_every_spelling_and_no_other(self):
        for text, cents in [("1234.50", 123450), ("EUR 0.99", 99), ("1.234,50", 123450), ("12,00", 1200)]:
            self.assertEqual(etl.parse_cents(text), cents)
        for text in ["", "five", "-5.00", "1.5", "1.234.50", "1,234.50"]:
            with self.assertRaisesRegex(ValueError, "amount"):
                etl.parse_cents(text)

    def test_a_wrong_line_is_told_with_its_number(self):
        orders, wrong = etl.extract(["order_id,customer,country,ordered,amount", "1,a,DE,2026-11-31,1.00"])
        self.assertEqual(orders, [])
        self.assertEqual(wrong, ["line 2: ordered '2026-11-31' is no date"])


if __name__ == "__main__":
    unittest.main()
