"""What large requests took is given back when they are answered, whatever small blocks outlive them."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from millpond.server.allocator import give_back_large_blocks

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

if sys.argv[1] == "told":
    assert give_back_large_blocks()
for size in (5_000_000, 9_000_000, 20_000_000):  # what the allocator would learn from
    del (freed := [bytearray(size) for _ in range(4)])[:]
before, kept = resident(), []
for _ in range(4):
    bodies = []
    for _ in range(10):
        bodies.append(bytearray(b"1") * 6_000_000)
        kept.append(bytes(5_000))
    highest = resident() - before
    del bodies
print(highest, resident() - before)
"""


def _measure(how):
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return tuple(map(float, done.stdout.split()))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and tells glibc")
def test_large_blocks_are_given_back_when_they_are_freed():
    highest, left = _measure("told")
    assert highest > 50
    assert left < 6
    _, left_alone = _measure("left alone")
    assert left_alone > 2 * left, "the allocator does it by itself; nothing need be told"
