"""Resource files: YAML or JSON documents, each value with its line, every fault gathered.

The ordinary loaders drop line numbers and let a second key of the same name win silently.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from podwire.drivers.yamltree import compose
from podwire.errors import BadInput
from podwire.model.shape import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podwire.errors import PodwireError
    from podwire.model.resource import JSON
    from podwire.model.shape import Path as FieldPath

LARGEST = 1_000_000
"""Values in one file; aliases of aliases can make billions of a few lines."""
LARGEST_FILE = 64 << 20
"""Bytes."""
SUFFIXES = (".yaml", ".yml", ".json")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file, as plain JSON values."""

    source: str
    """The file as it was named; `<stdin>` for standard input."""
    value: JSON
    lines: Mapping[FieldPath, int]
    """Line of every field and list member, counted from 1."""
    faults: tuple[Fault, ...] = ()
    """What is wrong with it as YAML: keys given twice, and the like."""

    def place(self, path: FieldPath) -> str:
        """`file:line` of a field; of what holds it when it is missing. Without lines the file."""
        while path not in self.lines and path:
            path = path[:-1]
        line = self.lines.get(path)
        return self.source if line is None else f"{self.source}:{line}"

    @property
    def unread(self) -> bool:
        """Whether it stands for something that could not be read; its faults say why."""
        return bool(self.faults) and self.value is None


def read_documents(
    names: Iterable[str], *, recursive: bool = False, may_be_empty: bool = False
) -> tuple[Document, ...]:
    """The documents of files, directories (their YAML and JSON files) and `-`.

    A document of kind List (or …List) stands for its items, and so does a bare list, as calicoctl
    shows several resources that it was asked for by name. What cannot be read, is no YAML or holds
    nothing becomes a document that is nothing but its faults: they are told with the others.
    """
    return tuple(
        document
        for name in names
        for source in _sources(name, recursive=recursive, may_be_empty=may_be_empty)
        for document in ([source] if isinstance(source, Document) else _read(source, may_be_empty))
    )


def _sources(name: str, *, recursive: bool, may_be_empty: bool) -> Iterable[Path | Document]:
    """The files that a name stands for."""
    if not name:  # of a variable that is not set; as a path it would be this directory
        return [_unread("", "-f was given an empty file name", "write -f FILE")]
    path = Path(name)
    if name == "-" or not path.is_dir():
        return [path]
    try:
        inside = path.rglob("*") if recursive else path.iterdir()
        files = sorted(file for file in inside if file.suffix in SUFFIXES and not file.is_dir())
    except OSError as error:
        return [_unread(name, f"cannot be read: {error.strerror}")]
    if files or may_be_empty:
        return files
    fix = None if recursive else "add -R to look into directories within it"
    return [_unread(name, f"there is no {', '.join(SUFFIXES)} file in this directory", fix)]


def _read(path: Path, may_be_empty: bool) -> Sequence[Document]:
    source = "<stdin>" if str(path) == "-" else str(path)
    try:
        documents = [
            part
            for document in parse_documents(_text(path, source), source)
            for part in (
                _parts(document, document.value, ())
                if isinstance(document.value, list)
                else (document,)
            )
        ]
    except FileNotFoundError:
        return [_unread(source, "there is no such file")]
    except OSError as error:
        return [_unread(source, f"cannot be read: {error.strerror}")]
    except BadInput as error:
        return [_unread("", error.message, error.fix)]
    if documents or may_be_empty:
        return documents
    fix = "write a resource, or add --skip-empty"
    return [_unread(source, "there is no document in it", fix)]


def _unread(source: str, problem: str, fix: str | None = None) -> Document:
    told = f"{source}: {problem}" if source else problem
    return Document(source="", value=None, lines={}, faults=(Fault((), told, fix),))


def parse_documents(text: str, source: str) -> tuple[Document, ...]:
    """The documents of one text; empty ones are left out.

    Raises:
        BadInput: the text is no YAML; names line and column.
    """
    try:
        documents = [_document(node, source) for node in compose(text, source)]
    except (yaml.YAMLError, RecursionError) as error:
        # An alias may stand inside what it names.
        problem = "holds itself" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"{source}: is not YAML: {problem}") from None
    return tuple(
        part for document in documents if document.value is not None for part in _items(document)
    )


def refuse(faults: Sequence[tuple[Document, Fault]], error: type[PodwireError] = BadInput) -> None:
    """Raise all faults as one error, in the order of the lines.

    Raises:
        BadInput, or the other error: there are faults; a line each, beginning with file and line.
    """
    if not faults:
        return
    lines = [
        (f"{document.place(fault.path)}: " if document.source else "")
        + str(fault)
        + (f" ({fault.fix})" if fault.fix and len(faults) > 1 else "")
        for document, fault in faults
    ]
    count = f"\n{len(lines)} faults; nothing was written" if len(lines) > 1 else ""
    raise error("\n".join(lines) + count, fix=faults[0][1].fix if len(faults) == 1 else None)


def _text(path: Path, source: str) -> str:
    if source == "<stdin>" and sys.stdin is None:
        raise BadInput(f"{source}: standard input is closed", fix="name a file, or pipe one in")
    with (
        contextlib.nullcontext(sys.stdin.buffer) if source == "<stdin>" else path.open("rb") as file
    ):
        # A device or a pipe may never end.
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise BadInput(f"{source}: is larger than {LARGEST_FILE >> 20} MiB", fix="split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{source}:{line}: is not UTF-8 text", fix="save the file as UTF-8"
        ) from None


def _document(node: yaml.Node, source: str) -> Document:
    reader = _Reader()
    value = reader.read(node, ())
    return Document(source=source, value=value, lines=reader.lines, faults=tuple(reader.faults))


def _items(document: Document) -> Iterable[Document]:
    value = document.value
    kind = value.get("kind") if isinstance(value, dict) else None
    items = value.get("items") if isinstance(value, dict) else None
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
        yield document
        return
    yield from _parts(document, items, ("items",))


def _parts(document: Document, items: Sequence[JSON], path: FieldPath) -> Iterable[Document]:
    """The members of a list that stands at the path, each as a document."""
    for position, item in enumerate(items):
        top = (*path, position)
        deep = len(top)
        yield Document(
            source=document.source,
            value=item,
            lines={path[deep:]: n for path, n in document.lines.items() if path[:deep] == top},
            faults=tuple(
                Fault(fault.path[deep:], fault.problem, fault.fix)
                for fault in document.faults
                if fault.path[:deep] == top
            ),
        )


@dataclass(slots=True)
class _Reader:
    """Turns YAML nodes into JSON values and remembers the lines."""

    lines: dict[FieldPath, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _scalars: yaml.SafeLoader = field(default_factory=lambda: yaml.SafeLoader(""))

    def read(self, node: yaml.Node, path: FieldPath) -> JSON:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if len(self.lines) > LARGEST:
            raise yaml.YAMLError(f"more than {LARGEST} values")
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path)
            case yaml.SequenceNode():
                return [self.read(item, (*path, n)) for n, item in enumerate(node.value)]
            case _:
                return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, JSON]:
        value: dict[str, JSON] = {}
        for key, item in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            here = (*path, str(name))
            line = key.start_mark.line + 1
            if name is None or key.tag == f"{_TAG}merge":
                self.lines.setdefault(here, line)
                self.faults.append(Fault(here, "cannot be a key", "write every field out"))
            elif name in value:
                problem = f"is given twice, in line {self.lines[here]} and again in line {line}"
                self.faults.append(Fault(here, problem, "keep one of them"))
            else:
                self.lines[here] = line
                value[name] = self.read(item, here)
        return value

    def _scalar(self, node: yaml.Node, path: FieldPath) -> JSON:
        # A time stays the text it was written as; so does whatever has a tag of its own.
        if node.tag.removeprefix(_TAG) not in {"int", "float", "bool", "null"}:
            return str(node.value)
        try:
            return self._scalars.construct_object(node)
        except (ValueError, yaml.YAMLError):
            self.faults.append(Fault(path, f"{node.value!r} is no number", "put it in quotes"))
            return None
