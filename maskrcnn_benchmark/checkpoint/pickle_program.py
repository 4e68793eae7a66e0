"""A pickle is a program: what it would do is read before anything of it runs.

Readers that give a program nothing harmful to call can still be made to take all memory, or to follow tuples inside
tuples until the stack of the machine is full. Neither happens to a program that passes here.
"""

from __future__ import annotations

import itertools
import pickletools
from typing import IO

# The registry of extension codes hands out objects that were never asked for by name; out-of-band buffers are not in
# the file.
_REFUSED_OPCODES = frozenset({"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"})
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
# Bytes that hold the length of a string.
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
# A tensor takes about 25 instructions, so this is ten times as many as the largest published model has. Each makes an
# object of 100 bytes at most, beside the text that is in the file.
MOST_OPCODES = 1 << 19
# Comparing and hashing tuples in tuples goes as deep as they are, on the stack of the machine.
MOST_NESTED = 100
_MARK = -1


class RefusedError(Exception):
    """The pickle asks for something that a file of weights has no use for."""


def check_program(file: IO[bytes], size: int) -> None:
    """Read a pickle from where ``file`` stands to its end, without running it.

    Args:
        file: seekable; then stands behind the pickle.
        size: of the file, in bytes.

    Raises:
        RefusedError: it uses an instruction that is refused, has too many, or nests tuples too deeply.
        EOFError: it is damaged or ends early.
    """
    depths = _Depths()
    for count in itertools.count(1):
        code = file.read(1)
        opcode = pickletools.code2op.get(code.decode("latin-1"))
        if opcode is None:
            raise EOFError(f"unknown opcode {code!r}" if code else "it ends early")
        if opcode.name in _REFUSED_OPCODES:
            raise RefusedError(f"it uses the opcode {opcode.name}")
        if count > MOST_OPCODES:
            raise RefusedError(f"it has more than {MOST_OPCODES} instructions")
        argument = _read_argument(file, opcode, size)
        number = 0
        if opcode.name in _PUT or opcode.name in _GET:
            number = _number(argument) if opcode.name in ("PUT", "GET") else int.from_bytes(argument, "little")
            # Writers number what they remember; a wild number would make the reader allocate that many slots.
            if opcode.name in _PUT and not 0 <= number <= count:
                raise RefusedError(f"it remembers an object under the number {number}")
        if opcode.name == "STOP":
            return
        depths.follow(opcode, number)


class _Depths:
    """The stack of the program; of each object on it no more than how deep tuples are nested in it."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.memo: dict[int, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, number: int) -> None:
        """What an instruction takes from the stack and what it leaves there; ``number``: of GET and PUT."""
        name = opcode.name
        if name in _PUT or name == "MEMOIZE":
            self.memo[number if name in _PUT else len(self.memo)] = self._top()
        elif name in _GET:
            self.stack.append(self.memo.get(number, 0))
        elif name == "DUP":
            self.stack.append(self._top())
        elif name == "MARK":
            self.stack.append(_MARK)
        else:
            taken = self._take(opcode)
            if "TUPLE" in name:
                depth = 1 + max(taken, default=0)
                if depth > MOST_NESTED:
                    raise RefusedError(f"it nests tuples more than {MOST_NESTED} deep")
                self.stack.append(depth)
            else:  # nothing else that can be the key of a dict contains what is in it
                self.stack.extend([0] * len(opcode.stack_after))

    def _top(self) -> int:
        if not self.stack or self.stack[-1] == _MARK:
            raise EOFError("it takes from an empty stack")
        return self.stack[-1]

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[int]:
        before = opcode.stack_before
        if pickletools.markobject in before:
            count, taken = before.index(pickletools.markobject), []
            while self.stack and (depth := self.stack.pop()) != _MARK:
                taken.append(depth)
        elif opcode.name == "POP" and self.stack and self.stack[-1] == _MARK:
            count, taken = 1, []
        else:
            count, taken = len(before), []
        if count > len(self.stack):
            raise EOFError("it takes from an empty stack")
        if count:
            taken += self.stack[-count:]
            del self.stack[-count:]
        return taken


def _number(text: bytes) -> int:
    """The decimal number of a PUT or GET; no file has one of more than 18 digits."""
    if not text.strip().isdigit() or len(text) > 20:
        raise EOFError("a number in it is none")
    return int(text)


def _read_argument(file: IO[bytes], opcode: pickletools.OpcodeInfo, size: int) -> bytes:
    """The bytes of an opcode's argument; those of strings are skipped."""
    length = opcode.arg.n if opcode.arg is not None else 0
    if length >= 0:
        return file.read(length)
    if length == pickletools.UP_TO_NEWLINE:
        if opcode.name in ("GLOBAL", "INST"):  # module and name
            file.readline()
        return file.readline()
    end = int.from_bytes(file.read(_LENGTH_BYTES[length]), "little") + file.tell()
    if end > size:
        raise EOFError("it ends early")
    file.seek(end)
    return b""
