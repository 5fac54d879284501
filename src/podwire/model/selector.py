"""Calico's selector language: which labels an object must carry.

    expression = term { "||" term }
    term       = factor { "&&" factor }
    factor     = { "!" } ( "(" expression ")" | "all()" | "global()" | "has(" LABEL ")"
               | comparison )
    comparison = LABEL ( "==" TEXT | "!=" TEXT | "in" SET | "not in" SET
               | "contains" TEXT | "starts with" TEXT | "ends with" TEXT )
    SET        = "{" [ TEXT { "," TEXT } ] "}"

TEXT stands in single or double quotes, without escapes. An object that lacks the label satisfies
`!=` and `not in`, and nothing else. The empty selector is `all()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, TypeAlias

from podwire.errors import BadInput

Labels: TypeAlias = Mapping[str, str]
Test: TypeAlias = Callable[[Labels], bool]

NESTING = 100
"""How deep parentheses and negations may stand; more is a mistake or an attack."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'[^']*'|"[^"]*")
    | (?P<symbol>&&|\|\||==|!=|[!(){},])
    | (?P<word>[A-Za-z0-9_./-]+)
    )""",
    re.VERBOSE,
)
_KEYWORDS = {"in": ("in",), "not": ("not", "in"), "contains": ("contains",)} | {
    word: (word, "with") for word in ("starts", "ends")
}


@dataclass(frozen=True, slots=True, eq=False)
class Selector:
    """A parsed selector; call `matches` as often as wanted."""

    text: str
    test: Test

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is meant."""
        return self.test(labels)


@lru_cache(maxsize=1024)
def parse_selector(text: str) -> Selector:
    """Read a selector.

    Raises:
        BadInput: it is malformed; the message names the column, counted from 1.
    """
    return Selector(text, _Parser(text).parse())


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    value: str
    column: int


class _Parser:
    """Recursive descent, one method per rule of the grammar above."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = 0
        self._depth = 0

    def parse(self) -> Test:
        if len(self._tokens) == 1:
            return lambda _: True
        test = self._expression()
        if self._peek().kind != "end":
            self._refuse("expected && or || or the end")
        return test

    def _split(self) -> list[_Token]:
        tokens, at = [], 0
        end = len(self._text.rstrip())
        while at < end:
            found = _TOKEN.match(self._text, at)
            if found is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                char = self._text[at]
                why = "the quote is not closed" if char in "'\"" else f"{char!r} means nothing here"
                raise self._error(at + 1, why)
            kind = found.lastgroup or ""
            tokens.append(_Token(kind, found[kind], found.start(kind) + 1))
            at = found.end()
        return [*tokens, _Token("end", "", end + 1)]

    def _expression(self) -> Test:
        tests = [self._term()]
        while self._accept("||"):
            tests.append(self._term())
        return tests[0] if len(tests) == 1 else lambda labels: any(test(labels) for test in tests)

    def _term(self) -> Test:
        tests = [self._factor()]
        while self._accept("&&"):
            tests.append(self._factor())
        return tests[0] if len(tests) == 1 else lambda labels: all(test(labels) for test in tests)

    def _factor(self) -> Test:
        self._depth += 1
        if self._depth > NESTING:
            self._refuse(f"nested deeper than {NESTING}")
        try:
            if self._accept("!"):
                test = self._factor()
                return lambda labels: not test(labels)
            if self._accept("("):
                test = self._expression()
                self._expect(")")
                return test
            return self._operand()
        finally:
            self._depth -= 1

    def _operand(self) -> Test:
        word = self._peek()
        if word.kind != "word":
            self._refuse("expected a label, has(), all(), '!' or '('")
        self._next += 1
        if not self._accept("("):
            return self._comparison(word.value)
        if word.value in ("all", "global"):
            self._expect(")")
            return lambda _: True
        if word.value != "has":
            raise self._error(word.column, f"there is no function {word.value}()")
        label = self._word("a label")
        self._expect(")")
        return lambda labels: label in labels

    def _comparison(self, label: str) -> Test:
        if self._accept("=="):
            text = self._quoted()
            return lambda labels: labels.get(label) == text
        if self._accept("!="):
            text = self._quoted()
            return lambda labels: labels.get(label) != text
        match self._keyword():
            case "in":
                texts = self._set()
                return lambda labels: labels.get(label) in texts
            case "not in":
                texts = self._set()
                return lambda labels: labels.get(label) not in texts
            case "contains":
                text = self._quoted()
                return lambda labels: label in labels and text in labels[label]
            case "starts with":
                text = self._quoted()
                return lambda labels: label in labels and labels[label].startswith(text)
            case _:
                text = self._quoted()
                return lambda labels: label in labels and labels[label].endswith(text)

    def _keyword(self) -> str:
        words = _KEYWORDS.get(self._peek().value) if self._peek().kind == "word" else None
        if words is None:
            self._refuse("expected ==, !=, in, not in, contains, starts with or ends with")
        for word in words:
            if self._peek().value != word:
                self._refuse(f"expected {word!r}")
            self._next += 1
        return " ".join(words)

    def _set(self) -> frozenset[str]:
        self._expect("{")
        texts: list[str] = []
        if not self._accept("}"):
            texts.append(self._quoted())
            while self._accept(","):
                texts.append(self._quoted())
            self._expect("}")
        return frozenset(texts)

    def _quoted(self) -> str:
        token = self._peek()
        if token.kind != "text":
            self._refuse("expected a text in quotes")
        self._next += 1
        return token.value[1:-1]

    def _word(self, what: str) -> str:
        token = self._peek()
        if token.kind != "word":
            self._refuse(f"expected {what}")
        self._next += 1
        return token.value

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, symbol: str) -> bool:
        token = self._peek()
        if token.kind != "symbol" or token.value != symbol:
            return False
        self._next += 1
        return True

    def _expect(self, symbol: str) -> None:
        if not self._accept(symbol):
            self._refuse(f"expected {symbol!r}")

    def _refuse(self, why: str) -> NoReturn:
        token = self._peek()
        found = "the end" if token.kind == "end" else token.value
        raise self._error(token.column, f"{why}, found {found}")

    def _error(self, column: int, why: str) -> BadInput:
        return BadInput(
            f"selector {self._text!r}, column {column}: {why}",
            fix="write it like zone == 'a' && has(gpu)",
        )
