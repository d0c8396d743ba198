"""What the stories say when something is not as it should be."""


class Failed(Exception):
    """A step did not end as it should."""


def expect(what, got, wanted):
    """Compares, with words for the one who reads the failure."""
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, wanted {wanted!r}")
