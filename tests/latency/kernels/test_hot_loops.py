"""The innermost loops of the AVX-512 kernels keep their sums in registers: one that does not is 1.6 times as slow."""

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest

from latency.kernels import build

OBJDUMP = shutil.which("objdump")
VECTOR_STORED = re.compile(r"%zmm\d+,-?\w*\(%rsp")
DOTS = 14  # two vectors of outputs for 7 pixels; smaller tiles are for what is left over


@dataclass(frozen=True)
class Loop:
    function: str
    instructions: tuple[str, ...]

    @property
    def dots(self):
        return sum(text.startswith("vpdpbusd") and "%zmm" in text for text in self.instructions)

    @property
    def adds_up(self):
        """Whether it does nothing else: those that make codes too have more constants than there are registers."""
        return not any(text.startswith("vcvt") for text in self.instructions)

    @property
    def stack(self):
        """What reads or writes the stack; where GCC aligns it, its address is in rsp all the same."""
        return [text for text in self.instructions if "(%rsp" in text]


@pytest.fixture(scope="module")
def functions():
    """Names and instructions of the library that the other tests run."""
    if platform.machine() != "x86_64":
        pytest.skip(f"the kernels for {platform.machine()} have no AVX-512")
    if OBJDUMP is None:
        pytest.skip("there is no objdump to take the library apart")
    made_by = subprocess.run([build.compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    if "Free Software Foundation" not in made_by:
        pytest.skip(f"written for GCC's code, not that of {made_by.splitlines()[0]}")
    command = [OBJDUMP, "--disassemble", "--no-show-raw-insn", str(build.library())]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"^[0-9a-f]+ <(.+)>:\n((?:.+\n?)+)", text, re.MULTILINE)


@pytest.fixture(scope="module")
def loops(functions):
    """The innermost loops with many dot products."""
    return [loop for name, body in functions if "zmm" in body for loop in innermost(name, body) if loop.dots >= DOTS]


def innermost(name, body):
    """The loops of a function that hold no other: what lies between a jump backwards and its target."""
    places, texts = zip(*re.findall(r"^ *([0-9a-f]+):\t(.+?) *$", body, re.MULTILINE), strict=True)
    at = {place: i for i, place in enumerate(places)}
    jumps = [(re.match(r"j\w+ +([0-9a-f]+) ", text), end) for end, text in enumerate(texts)]
    spans = [(at[jump[1]], end) for jump, end in jumps if jump and at.get(jump[1], end + 1) <= end]
    for begin, end in spans:
        if not any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in spans):
            yield Loop(name, texts[begin : end + 1])


def test_loops_that_add_up_do_not_touch_the_stack(loops):
    dense = [loop for loop in loops if loop.adds_up and "of_blocks" not in loop.function]
    assert max(loop.dots for loop in dense) >= 21  # three vectors for 7 pixels
    for loop in dense:
        assert not loop.stack, loop.function


def test_no_loop_puts_vectors_on_the_stack(loops):
    """Loops over blocks that are not zero may have their ends there."""
    for loop in loops:
        assert not [text for text in loop.stack if VECTOR_STORED.search(text)], loop.function


def test_depthwise_sums_never_leave_registers(functions):
    """Their functions are without loops."""
    sifted = {name: body for name, body in functions if re.search("sift(_two)?ILi", name) and "zmm" in body}
    alone = [body for name, body in sifted.items() if "sift_two" not in name]
    assert sum(body.count("vpdpbusd") >= DOTS for body in alone) >= 6 < len(sifted) - len(alone)  # kernels and strides
    for name, body in sifted.items():
        assert not VECTOR_STORED.search(body), name
