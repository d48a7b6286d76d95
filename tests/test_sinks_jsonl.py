"""JSON lines: every record whole, once and in order, through rotation, full disks and several processes."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from records import record

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sinks import JsonLinesSink, Sink


def requests(*paths: Path) -> list[str]:
    """The requests in files of whole lines, each of them a record."""
    lines = b"".join(path.read_bytes() for path in paths)
    assert not lines or lines.endswith(b"\n")
    return [Record.from_dict(json.loads(line)).request for line in lines.splitlines()]


def numbered(path: Path, *numbers: int) -> list[Path]:
    return [Path(f"{path}.{i}") for i in numbers]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    written = record(1, mass=None, content={"answer": "line\nbreak – and ünïcode"})
    sink = JsonLinesSink(tmp_path / "records.jsonl")
    assert isinstance(sink, Sink)
    sink.write(written)
    sink.close()
    [line] = sink.path.read_text().splitlines()
    assert Record.from_dict(json.loads(line)) == written


def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "records.jsonl", max_bytes=3000, keep=2)
    for i in range(20):
        sink.write(record(i))
    files = [*numbered(sink.path, 2, 1), sink.path]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(path.stat().st_size <= 3000 for path in files)
    kept = requests(*files)
    assert kept == [f"r{i}" for i in range(20 - len(kept), 20)]
    assert len(kept) >= 5


def test_rotation_fills_a_gap_before_it_drops_anything(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "records.jsonl", max_bytes=1, keep=3)
    for i in range(4):
        sink.write(record(i))
    numbered(sink.path, 2)[0].unlink()  # as a rotation does that was cut short
    sink.write(record(4))
    assert requests(*numbered(sink.path, 3, 2, 1), sink.path) == ["r0", "r2", "r3", "r4"]


def test_a_long_line_has_a_file_for_itself(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "records.jsonl", max_bytes=1)
    for i in range(3):
        sink.write(record(i))
    assert [requests(path) for path in (*numbered(sink.path, 2, 1), sink.path)] == [["r0"], ["r1"], ["r2"]]


def test_the_file_may_be_moved_away_or_removed(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "records.jsonl")
    sink.write(record(0))
    sink.path.rename(tmp_path / "old")
    sink.write(record(1))
    assert (requests(tmp_path / "old"), requests(sink.path)) == (["r0"], ["r1"])
    sink.path.unlink()
    sink.write(record(2))
    assert requests(sink.path) == ["r2"]


def test_half_a_line_of_a_power_cut_stays_apart(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"request": "hal')
    JsonLinesSink(path, fsync=True).write(record(1))
    first, second = path.read_text().splitlines()
    assert first == '{"request": "hal'
    assert json.loads(second)["request"] == "r1"


def write_on_a_small_disk(path: str, limit: int) -> None:
    """In a process of its own: the kernel ends every file at ``limit`` bytes, in the middle of a line."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sink = JsonLinesSink(path)
    raised = 0
    for i in range(10):
        try:
            sink.write(record(i))
        except OSError as error:
            raised += error.errno == errno.EFBIG
    print(raised)


def test_a_full_disk_raises_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    code = f"import test_sinks_jsonl as own; own.write_on_a_small_disk({str(path)!r}, 3000)"
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": search}
    )
    assert done.returncode == 0, done.stderr
    kept = requests(path)
    assert 1 <= len(kept) < 10
    assert int(done.stdout) == 10 - len(kept)
    JsonLinesSink(path).write(record(10))  # room again
    assert requests(path) == [*kept, "r10"]


def test_a_device_without_space_raises_its_own_error() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        JsonLinesSink("/dev/full").write(record(0))
    assert caught.value.errno == errno.ENOSPC


def write_many(path: Path, start: int) -> None:
    sink = JsonLinesSink(path, max_bytes=20_000, keep=50)
    for i in range(start, start + 100):
        sink.write(record(i))


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(path, start)) for start in (0, 100, 200)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    files = list(tmp_path.iterdir())
    assert len(files) > 5
    assert sorted(requests(*files)) == sorted(f"r{i}" for i in range(300))


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"absent.*folder must exist"):
        JsonLinesSink(tmp_path / "absent" / "records.jsonl")
    with pytest.raises(InvalidInputError, match="max_bytes=0"):
        JsonLinesSink(tmp_path / "records.jsonl", max_bytes=0)
    with pytest.raises(InvalidInputError, match="keep=0"):
        JsonLinesSink(tmp_path / "records.jsonl", keep=0)


def test_content_that_json_cannot_hold_leaves_the_file_alone(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "records.jsonl")
    for content in ({"answer": float("nan")}, {"answer": object()}):
        with pytest.raises((ValueError, TypeError)):
            sink.write(record(0, content=content))
    assert sink.path.read_bytes() == b""


SAID = {"answer": "a cat"}


def permissions(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths]


@pytest.mark.parametrize("mode", [0o644, 0o664, 0o600])
def test_what_was_said_is_for_the_owner_alone(tmp_path: Path, mode: int) -> None:
    sink = JsonLinesSink(tmp_path / "records.jsonl", max_bytes=1)
    sink.path.chmod(mode)
    sink.write(record(0))
    assert permissions(sink.path) == [mode]
    sink.write(record(1, content=SAID))
    sink.write(record(2, content=SAID))
    sink.write(record(3))
    assert requests(*numbered(sink.path, 3, 2, 1)) == ["r0", "r1", "r2"]
    assert permissions(*numbered(sink.path, 3, 2, 1)) == [mode, 0o600, 0o600]


def test_a_file_that_gets_to_hold_what_was_said_is_closed_to_others(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "records.jsonl")
    assert permissions(sink.path) == [0o644 & ~umask()]
    for one in (record(0), record(1, content=SAID), record(2)):
        sink.write(one)
    assert (requests(sink.path), permissions(sink.path)) == (["r0", "r1", "r2"], [0o600])


def test_a_device_keeps_its_permissions() -> None:
    before = permissions(Path("/dev/null"))
    JsonLinesSink("/dev/null").write(record(0, content=SAID))
    assert permissions(Path("/dev/null")) == before


def umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


@pytest.mark.parametrize("lines", [1, 2, 5])
def test_a_file_of_exactly_max_bytes_is_not_too_large(tmp_path: Path, lines: int) -> None:
    length = len(json.dumps(record(0).to_dict(), separators=(",", ":"))) + 1
    for less, kept in ((0, lines), (1, max(lines - 1, 1))):
        path = tmp_path / f"{less}.jsonl"
        sink = JsonLinesSink(path, max_bytes=lines * length - less)
        for i in range(lines):
            sink.write(record(i))
        assert len(requests(path, *(tmp_path.glob(f"{less}.jsonl.*")))) == lines
        first = next(iter(numbered(path, 1))) if kept < lines else path
        assert len(requests(first)) == kept


def test_a_file_rotated_while_its_lock_was_awaited_is_not_written_to(tmp_path: Path) -> None:
    """The name is looked at again once the lock is there: the line goes where the name leads now."""
    sink = JsonLinesSink(tmp_path / "records.jsonl")
    sink.write(record(0))
    with sink.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writing = threading.Thread(target=sink.write, args=(record(1),))
        writing.start()
        while not waiting_for_a_lock(writing):
            time.sleep(0.001)
        sink.path.rename(tmp_path / "away")
    writing.join(10)
    assert (requests(tmp_path / "away"), requests(sink.path)) == (["r0"], ["r1"])


def waiting_for_a_lock(thread: threading.Thread) -> bool:
    """The system's own list of locks: it marks who waits with an arrow. Without that list, a moment has to do."""
    assert thread.is_alive()
    locks = Path("/proc/locks")
    if not locks.exists():
        time.sleep(0.2)
        return True
    return any("->" in line and f" {os.getpid()} " in line for line in locks.read_text().splitlines())
