"""Each promise of docs/promises.md names tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PROMISES = (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf-8")


def test_every_promise_has_a_test():
    rows = [line for line in PROMISES.splitlines() if line.startswith("| ")]
    bare = [row for row in rows if "::" not in row and not row.startswith("| promise")]
    assert bare == []


def test_the_tests_that_promises_name_are_there():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PROMISES)
    assert len(named) > 40
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (TESTS / file).read_text(encoding="utf-8"), re.M)
    ]
    assert missing == []
