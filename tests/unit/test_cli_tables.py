"""Tables look like kubectl's; JSON and YAML say the same."""

from __future__ import annotations

import json
from types import MappingProxyType

import yaml

from podwire.cli.tables import columns, output

VALUE = {"b": [1, {"a": 9007199254740993}], "a": MappingProxyType({"ü": None, "yes": "no"})}
PLAIN = {"b": [1, {"a": 9007199254740993}], "a": {"ü": None, "yes": "no"}}


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns(("NAME", "IP"), [("a", "10.0.0.1"), ("longer", None), ("", 3)]) == (
        "NAME     IP\na        10.0.0.1\nlonger   <none>\n<none>   3\n"
    )
    assert columns(("NAME", "IP"), []) == "NAME   IP\n"


def test_both_formats_keep_order_and_integers() -> None:
    assert json.loads(output(VALUE, "json")) == PLAIN
    assert yaml.safe_load(output(VALUE, "yaml")) == PLAIN
    assert list(yaml.safe_load(output(VALUE, "yaml"))) == ["b", "a"]
