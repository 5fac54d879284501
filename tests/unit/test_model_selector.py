"""Calico's selector language."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import BadInput
from podwire.model.selector import parse_selector

LABELS = {"zone": "a", "rack": "r-12", "kubernetes.io/hostname": "vms100", "in": "x"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "all()",
        "global()",
        "zone == 'a'",
        'zone=="a"',
        "zone != 'b'",
        "absent != 'b'",
        "zone in {'a', 'b'}",
        "absent not in {'a'}",
        "zone not in {}",
        "has(zone)",
        "!has(absent)",
        "! ! has(zone)",
        "rack contains '-1'",
        "rack starts with 'r-'",
        "rack ends  with '12'",
        "kubernetes.io/hostname == 'vms100'",
        "in in {'x'}",
        "zone == 'b' && has(absent) || has(zone)",
        "zone == 'b' && (has(absent) || has(zone)) || all()",
        "!(zone == 'b' || has(absent))",
    ],
)
def test_these_match(text: str) -> None:
    assert parse_selector(text).matches(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "!all()",
        "zone == 'b'",
        "absent == ''",
        "zone != 'a'",
        "zone in {}",
        "absent in {'a'}",
        "zone not in {'a'}",
        "has(absent)",
        "absent contains ''",
        "absent starts with ''",
        "absent ends with ''",
        "zone == 'b' && (has(absent) || has(zone))",
        "! has(absent) && ! has(zone)",
    ],
)
def test_these_do_not_match(text: str) -> None:
    assert not parse_selector(text).matches(LABELS)


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("zone = 'a'", 6, "'='"),
        ("zone == a", 9, "text in quotes"),
        ("zone == 'a", 9, "quote is not closed"),
        ("zone", 5, "expected =="),
        ("zone == 'a' has(b)", 13, "expected && or ||"),
        ("(zone == 'a'", 13, "expected ')'"),
        ("zone == 'a' &&", 15, "the end"),
        ("some(zone)", 1, "no function some()"),
        ("has()", 5, "expected a label"),
        ("zone not 'a'", 10, "expected 'in'"),
        ("zone in {'a' 'b'}", 14, "expected '}'"),
        ("zone starts 'a'", 13, "expected 'with'"),
        ("zone == 'ä' & x", 13, "means nothing"),
        ("(" * 300, 101, "nested deeper"),
        ("!" * 300, 101, "nested deeper"),
    ],
)
def test_an_error_names_the_column(text: str, column: int, part: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_selector(text)
    assert f"column {column}: " in caught.value.message
    assert part in caught.value.message


@given(st.text(alphabet="ab'\"!&|(){},= inothascwe", max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse_selector(text).matches(LABELS)
    except BadInput as error:
        column = re.search(r"column (\d+)", error.message)
        assert column is not None
        assert 1 <= int(column[1]) <= len(text) + 1


VALUES = st.text(alphabet="abc-.", max_size=3)
MAPS = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)


@given(MAPS, st.sampled_from(["a", "b", "c"]), st.lists(VALUES, max_size=3))
def test_negation_is_the_opposite(labels: dict[str, str], name: str, values: list[str]) -> None:
    words = ", ".join(f"'{value}'" for value in values)
    inside = parse_selector(f"{name} in {{{words}}}").matches(labels)
    outside = parse_selector(f"{name} not in {{{words}}}").matches(labels)
    assert inside is (labels.get(name) in values)
    assert outside is not inside
