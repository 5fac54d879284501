"""YAML with places: every complaint about a file names file, line and field.

The ordinary loaders drop line numbers and let a second key of the same name win silently.
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from podwire.errors import BadInput

DEEPEST = 100
"""Levels of lists and mappings in one document."""
STRING = "tag:yaml.org,2002:str"
INTEGER = "tag:yaml.org,2002:int"
NULL = "tag:yaml.org,2002:null"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Spot:
    """One value of a YAML document, and where it stands."""

    node: yaml.Node
    source: str
    """File name, for messages."""
    path: str = ""
    """`spec.template.spec`, empty at the top."""

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.source}:{self.node.start_mark.line + 1}"

    @property
    def absent(self) -> bool:
        """Whether the value is null (`key:` with nothing behind)."""
        return self.node.tag == NULL

    def refuse(self, message: str, *, fix: str | None = None) -> BadInput:
        """An error that begins with file, line and field."""
        return BadInput(f"{self.place}: {self.path or 'document'} {message}", fix=fix)

    def mapping(self) -> dict[str, Spot]:
        """The fields of a mapping.

        Raises:
            BadInput: it is none, a key is no string, or a key comes twice.
        """
        if not isinstance(self.node, yaml.MappingNode):
            raise self.refuse(f"must be a mapping, not {self._kind()}")
        fields: dict[str, Spot] = {}
        for key, value in self.node.value:
            name = Spot(key, self.source, f"{self.path}: key").text()
            path = f"{self.path}.{name}" if self.path else name
            if name in fields:
                raise Spot(key, self.source, path).refuse(
                    f"is given twice, first in line {fields[name].node.start_mark.line + 1}",
                    fix="keep one of them",
                )
            fields[name] = Spot(value, self.source, path)
        return fields

    def sequence(self) -> list[Spot]:
        """The members of a sequence.

        Raises:
            BadInput: it is none.
        """
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.refuse(f"must be a list, not {self._kind()}")
        return [
            Spot(member, self.source, f"{self.path}[{position}]")
            for position, member in enumerate(self.node.value)
        ]

    def text(self) -> str:
        """A string.

        Raises:
            BadInput: it is none; an unquoted number or `yes` is not a string either.
        """
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.refuse(f"must be a string, not {self._kind()}")
        if self.node.tag != STRING:
            raise self.refuse(
                f"must be a string, not {self._kind()}", fix=f'write "{self.node.value}" in quotes'
            )
        return str(self.node.value)

    def integer(self, least: int, most: int) -> int:
        """A whole number within bounds.

        Raises:
            BadInput: it is none, or out of range.
        """
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != INTEGER:
            raise self.refuse(f"must be a whole number, not {self._kind()}")
        number = yaml.SafeLoader("").construct_yaml_int(self.node)
        if not least <= number <= most:
            raise self.refuse(f"is {number}", fix=f"choose {least} to {most}")
        return int(number)

    def strings(self) -> dict[str, str]:
        """A mapping from string to string, such as labels."""
        return {name: value.text() for name, value in self.mapping().items()}

    def texts(self) -> tuple[str, ...]:
        """A list of strings, such as a command."""
        return tuple(member.text() for member in self.sequence())

    def _kind(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        short = self.node.tag.rpartition(":")[2]
        words = {"str": "a string", "int": "a number", "float": "a number", "null": "nothing"}
        return words.get(short, {"bool": "true or false"}.get(short, f"a {short}"))


def read_documents(text: str, source: str) -> list[Spot]:
    """The documents of a YAML stream; empty ones are left out.

    Raises:
        BadInput: the text is no YAML; names line and column.
    """
    spots = [Spot(node, source) for node in compose(text, source)]
    return [spot for spot in spots if not spot.absent]


def compose(text: str, source: str) -> list[yaml.Node]:
    """The top nodes of a YAML stream. No Python object is made of a tag, so no tag runs anything.

    Raises:
        BadInput: the text is no YAML, or nested too deeply; names line and column.
    """
    try:
        _check_depth(text, source)
        return [node for node in yaml.compose_all(text, Loader=_LOADER) if node is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = source if mark is None else f"{source}:{mark.line + 1}:{mark.column + 1}"
        raise BadInput(f"{place}: is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = str(error).partition("\n")[0] or "nested too deeply"
        raise BadInput(f"{source}: is not YAML: {problem}") from None


def _check_depth(text: str, source: str) -> None:
    """Refuse what is nested too deeply: the composer of libyaml recurses until it crashes."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            line = "" if event.start_mark is None else f":{event.start_mark.line + 1}"
            raise BadInput(f"{source}{line}: nested more than {DEEPEST} levels deep")
