"""Shared memory by name: there while its owner lives, and swept when it was killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from gateway.backends.triton.segments import PREFIX, SHM, Segment, is_left, new_name, sweep

OWNER = """\
from gateway.backends.triton.segments import Segment
segments = [Segment(1 << 16) for _ in range(3)]
print(*(each.name for each in segments), flush=True)
{end}
"""


def names() -> set[str]:
    return {path.name for path in SHM.glob(f"{PREFIX}{os.getpid()}-*")}


def owner(end: str) -> tuple[subprocess.Popen[str], list[str]]:
    command = [sys.executable, "-c", OWNER.format(end=end)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().split()


def test_it_is_memory_that_others_find_by_its_name_alone() -> None:
    segment = Segment(100_000)
    file = SHM / segment.name
    assert file.stat().st_size == segment.size == 100_000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_blocks * 512 >= 100_000  # it is there, and not promised
    segment.memory[5:8] = b"abc"
    assert file.read_bytes()[4:9] == b"\0abc\0"
    assert len({new_name() for _ in range(100)}) == 100
    segment.unlink()
    assert not file.exists()
    assert segment.memory[5:8] == b"abc"


def test_it_goes_with_the_last_who_knows_it() -> None:
    segment = Segment(4096)
    name = segment.name
    assert name in names()
    del segment
    assert name not in names()


def test_more_than_the_machine_has_is_an_error_and_leaves_nothing() -> None:
    before = names()
    space = os.statvfs(SHM)
    with pytest.raises(OSError, match=r"No space left|Cannot allocate"):
        Segment((space.f_blocks + 1) * space.f_frsize)
    assert names() == before


def test_what_a_killed_process_left_is_swept_and_what_lives_is_not() -> None:
    mine = Segment(4096)
    living, theirs = owner("input()")
    killed, left = owner("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    try:
        killed.wait()
        assert all((SHM / name).exists() for name in (*left, *theirs, mine.name))
        assert all(is_left(name) for name in left)
        assert not any(is_left(name) for name in (*theirs, mine.name))
        assert set(left) <= set(sweep())
        assert not any((SHM / name).exists() for name in left)
        assert all((SHM / name).exists() for name in (*theirs, mine.name))
    finally:
        living.kill()
        living.wait()
        sweep()
    assert not any((SHM / name).exists() for name in theirs)
    for process in (living, killed):
        process.communicate()


def test_who_ends_by_himself_leaves_nothing() -> None:
    process, theirs = owner("")
    process.communicate()
    assert theirs
    assert not any((SHM / name).exists() for name in theirs)
