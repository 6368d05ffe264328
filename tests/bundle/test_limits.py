"""The memory of this process, read from a tree of kernel files that the tests write, with limits of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from hart_edge.bundle.limits import ADDRESSES, GROUP, Memory, available_memory, machine_memory, process_memory

MB = 2**20
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


def no_limit() -> None:
    return None


def write(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 64 MiB, half of them free, and no limit."""
    return write(tmp_path, {"proc/meminfo": "MemTotal: 65536 kB\nMemFree: 1 kB\n\nMemAvailable: 32768 kB\nHuge: 0"})


def test_a_machine_without_limits(machine: Path, tmp_path: Path) -> None:
    whole = Memory(64 * MB, 32 * MB, 64 * MB)
    assert machine_memory(machine / "proc/meminfo") == process_memory(machine, no_limit) == whole
    assert available_memory(machine) == 32 * MB
    write(machine, {"proc/meminfo": "MemTotal: 65536 kB"})
    assert process_memory(machine, no_limit) == Memory(64 * MB, None, 64 * MB)
    assert process_memory(tmp_path / "none", no_limit) == Memory(None, None, None)


def test_version_2_and_the_groups_above(machine: Path) -> None:
    group = "sys/fs/cgroup/kubepods/pod1/box"
    write(
        machine,
        {
            "proc/self/cgroup": "0::/kubepods/pod1/box",
            "proc/self/mountinfo": V2,
            f"{group}/memory.max": "max",
            f"{group}/memory.current": 3 * MB,
            "sys/fs/cgroup/kubepods/pod1/memory.max": 16 * MB,
            "sys/fs/cgroup/kubepods/pod1/memory.current": 12 * MB,
            "sys/fs/cgroup/kubepods/pod1/memory.stat": f"anon 5\ninactive_file {2 * MB}\nactive_file {MB}",
            "sys/fs/cgroup/kubepods/memory.max": 48 * MB,
            "sys/fs/cgroup/kubepods/memory.current": 47 * MB,
        },
    )
    assert process_memory(machine, no_limit) == Memory(16 * MB, MB, 64 * MB, GROUP)  # the outermost group has 1 MB left
    write(machine, {f"{group}/memory.max": 4 * MB})
    assert process_memory(machine, no_limit) == Memory(4 * MB, MB, 64 * MB, GROUP)
    write(machine, {f"{group}/memory.current": 9 * MB})
    assert process_memory(machine, no_limit).available == 0


@pytest.mark.parametrize("mounted", ["/", "/docker/0123"])
def test_version_1_as_the_host_and_as_a_container_sees_it(machine: Path, mounted: str) -> None:
    """Without its own cgroup namespace a container reads its path on the host, but has only its own group mounted."""
    folder = "sys/fs/cgroup/memory" + ("/docker/0123" if mounted == "/" else "")
    write(
        machine,
        {
            "proc/self/cgroup": "5:devices:/docker/0123\n4:cpu,memory:/docker/0123\n1:name=systemd:/\n0::/",
            "proc/self/mountinfo": V1.format(root=mounted),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            f"{folder}/memory.limit_in_bytes": 8 * MB,
            f"{folder}/memory.usage_in_bytes": 5 * MB,
            f"{folder}/memory.stat": f"inactive_file 7\ntotal_inactive_file {MB}",
        },
    )
    assert process_memory(machine, no_limit) == Memory(8 * MB, 4 * MB, 64 * MB, GROUP)


def test_a_namespace_whose_group_lies_outside(machine: Path) -> None:
    write(machine, {"proc/self/cgroup": "0::/../other", "sys/fs/cgroup/memory.max": 2 * MB})
    assert process_memory(machine, no_limit) == Memory(2 * MB, 2 * MB, 64 * MB, GROUP)  # mountinfo is missing


def test_a_limit_above_the_machines_memory_is_none(machine: Path) -> None:
    write(machine, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": 2**40})
    assert process_memory(machine, no_limit) == Memory(64 * MB, 32 * MB, 64 * MB)


def test_malformed_files_of_the_kernel(machine: Path) -> None:
    write(machine, {"proc/self/cgroup": "what\n0::/a\n::", "proc/self/mountinfo": "1 2\n - cgroup2\n" + V2})
    write(machine, {"sys/fs/cgroup/a/memory.max": "many", "sys/fs/cgroup/memory.max": ""})
    assert process_memory(machine, no_limit) == Memory(64 * MB, 32 * MB, 64 * MB)


def test_a_limit_on_addresses(machine: Path) -> None:
    write(machine, {"proc/self/status": "Name: python\nVmSize: 10240 kB"})
    assert process_memory(machine, lambda: 12 * MB) == Memory(12 * MB, 2 * MB, 64 * MB, ADDRESSES)
