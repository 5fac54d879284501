"""The classic BPF machine, as the kernel runs it, for trying filters on frames of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.drivers.capture import bpf

if TYPE_CHECKING:
    from podwire.drivers.capture.bpf import Instruction

SIZES = {bpf.W: 4, bpf.H: 2, bpf.B: 1}


def run(program: tuple[Instruction, ...], packet: bytes, hatype: int = 1) -> int:
    """Bytes the program hands out of a packet; 0: it refuses it."""
    a = x = at = 0
    while True:
        one = program[at]
        at += 1
        if one.code == bpf.RET:
            return one.operand
        if one.code == bpf.LD | bpf.W | bpf.LEN:
            a = len(packet)
        elif one.code & 0x07 == bpf.LD:
            if one.operand == bpf.HATYPE:
                a = hatype
                continue
            size = SIZES[one.code & 0x18]
            start = one.operand + (x if one.code & 0xE0 == bpf.IND else 0)
            if start + size > len(packet):
                return 0
            a = int.from_bytes(packet[start : start + size], "big")
        elif one.code == bpf.MISC | bpf.TAX:
            x = a
        elif one.code == bpf.ALU | bpf.SUB:
            a = (a - one.operand) & 0xFFFFFFFF
        elif one.code == bpf.ALU | bpf.AND:
            a &= one.operand
        elif one.code == bpf.JMP | bpf.JA:
            at += one.operand
        elif one.code == bpf.JMP | bpf.JEQ:
            at += one.if_true if a == one.operand else one.if_false
        elif one.code == bpf.JMP | bpf.JGE:
            at += one.if_true if a >= one.operand else one.if_false
        else:
            raise AssertionError(f"code {one.code:#x}")
