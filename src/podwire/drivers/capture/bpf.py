"""Classic BPF: the little machine that decides in the kernel which packets a socket gets.

An accumulator, an index register, forward jumps. Two things to know: a load beyond the end of the
packet ends the program and refuses the packet, and a conditional jump reaches 255 instructions.
Source: Documentation/networking/filter.rst, include/uapi/linux/{filter,bpf_common}.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

from podwire.errors import BadInput

LD, LDX, ALU, JMP, RET, MISC = 0x00, 0x01, 0x04, 0x05, 0x06, 0x07
W, H, B = 0x00, 0x08, 0x10
IMM, ABS, IND, LEN = 0x00, 0x20, 0x40, 0x80
SUB, AND = 0x10, 0x50
JA, JEQ, JGT, JGE = 0x00, 0x10, 0x20, 0x30
TAX = 0x00

HATYPE = 0xFFFFF000 + 28
"""Address that loads the device's ARPHRD type instead of packet bytes (SKF_AD_HATYPE)."""
MAX_INSTRUCTIONS = 4096
MAX_JUMP = 255

INSTRUCTION = Struct("=HBBI")
"""sock_filter: code, jump if true, jump if false, operand."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; jumps count from the next one."""

    code: int
    if_true: int
    if_false: int
    operand: int


@dataclass(slots=True)
class _Draft:
    code: int
    operand: int = 0
    if_true: str | None = None
    if_false: str | None = None


@dataclass(slots=True)
class Assembler:
    """Collects instructions and labels; a label left out means: go on with the next one."""

    _drafts: list[_Draft] = field(default_factory=list)
    _labels: dict[str, int] = field(default_factory=dict)

    def label(self, name: str) -> None:
        """Name the next instruction."""
        if name in self._labels:
            raise BadInput(f"label {name} is taken")
        self._labels[name] = len(self._drafts)

    def load(self, offset: int, size: int = W) -> None:
        """A = bytes of the packet at a fixed place, or an ancillary value."""
        self._add(LD | size | ABS, offset)

    def load_indexed(self, offset: int, size: int = W) -> None:
        """A = bytes of the packet at X + offset."""
        self._add(LD | size | IND, offset)

    def load_length(self) -> None:
        """A = bytes of the whole packet."""
        self._add(LD | W | LEN)

    def subtract(self, value: int) -> None:
        """A = A - value."""
        self._add(ALU | SUB, value)

    def mask(self, value: int) -> None:
        """A = A & value."""
        self._add(ALU | AND, value)

    def to_index(self) -> None:
        """X = A."""
        self._add(MISC | TAX)

    def jump(self, label: str) -> None:
        """Go on at a label, however far."""
        self._drafts.append(_Draft(JMP | JA, 0, label))

    def if_equal(self, value: int, then: str | None = None, other: str | None = None) -> None:
        """Branch on A == value."""
        self._drafts.append(_Draft(JMP | JEQ, value, then, other))

    def if_at_least(self, value: int, then: str | None = None, other: str | None = None) -> None:
        """Branch on A >= value."""
        self._drafts.append(_Draft(JMP | JGE, value, then, other))

    def give(self, size: int) -> None:
        """End: hand out this many bytes of the packet; 0 refuses it."""
        self._add(RET, size)

    def _add(self, code: int, operand: int = 0) -> None:
        self._drafts.append(_Draft(code, operand))

    def assemble(self) -> tuple[Instruction, ...]:
        """The program with its jumps counted.

        Raises:
            BadInput: a label is unknown or lies behind, a jump is too far, the program is too long.
        """
        if not 0 < len(self._drafts) <= MAX_INSTRUCTIONS:
            raise BadInput(f"a filter has 1 to {MAX_INSTRUCTIONS} instructions")
        return tuple(self._finish(place, draft) for place, draft in enumerate(self._drafts))

    def _finish(self, place: int, draft: _Draft) -> Instruction:
        if draft.code == JMP | JA:
            return Instruction(draft.code, 0, 0, self._distance(place, draft.if_true))
        true, false = (self._distance(place, name) for name in (draft.if_true, draft.if_false))
        if max(true, false) > MAX_JUMP:
            raise BadInput(f"instruction {place} jumps further than {MAX_JUMP}")
        return Instruction(draft.code, true, false, draft.operand)

    def _distance(self, place: int, name: str | None) -> int:
        if name is None:
            return 0
        target = self._labels.get(name, -1)
        if not place < target < len(self._drafts):
            raise BadInput(f"label {name} is not ahead of instruction {place}")
        return target - place - 1


def encode(program: tuple[Instruction, ...]) -> bytes:
    """The program as the kernel wants it: an array of sock_filter."""
    return b"".join(
        INSTRUCTION.pack(each.code, each.if_true, each.if_false, each.operand) for each in program
    )
