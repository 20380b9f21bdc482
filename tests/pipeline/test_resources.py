"""What a cgroup leaves of memory and cores, from files as the two versions of the kernel's interface have them."""

from pathlib import Path

import psutil
import pytest

from splitpipe.workers import resources

MB = 1 << 20


def _cgroup(root: Path, own: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "own").write_text(own)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(resources, "_OWN", root / "own")
    monkeypatch.setattr(resources, "_CGROUP", root / "cgroup")


VERSIONS = {
    "2": (
        "0::/job/one\n",
        {
            "job/one/memory.max": f"{100 * MB}\n",
            "job/one/memory.current": f"{90 * MB}\n",
            "job/one/memory.stat": f"anon {10 * MB}\ninactive_file {50 * MB}\nactive_file {20 * MB}\n",
            "job/one/memory.events": "low 0\noom 3\noom_kill 2\n",
            "job/one/cpu.max": "100000 100000\n",
        },
    ),
    "1": (
        "5:cpuset:/\n4:memory:/job/one\n1:cpu:/job\n0::/\n",
        {
            "memory/job/one/memory.limit_in_bytes": f"{100 * MB}\n",
            "memory/job/one/memory.usage_in_bytes": f"{90 * MB}\n",
            "memory/job/one/memory.stat": f"inactive_file {50 * MB}\nactive_file {20 * MB}\n",
            "memory/job/one/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "cpu/job/cpu.cfs_quota_us": "100000\n",
            "cpu/job/cpu.cfs_period_us": "100000\n",
        },
    ),
    "2, in a container": (
        "0::/kubepods/pod/one\n",
        {
            "memory.max": f"{100 * MB}\n",
            "memory.current": f"{90 * MB}\n",
            "memory.stat": f"inactive_file {50 * MB}\nactive_file {20 * MB}\n",
            "memory.events": "oom_kill 2\n",
            "cpu.max": "50000 100000\n",
        },
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cgroup_leaves_what_it_says(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory with what is only cached, kills, and cores, at least one."""
    _cgroup(tmp_path, *VERSIONS[version], monkeypatch)

    assert resources.available_bytes() == 80 * MB
    assert resources.default_max_bytes() == 20 * MB
    assert resources.out_of_memory_kills() == 2
    assert resources.usable_cores() == 1


@pytest.mark.parametrize("own", ["", "0::/\n"])
def test_without_limits_it_is_the_machine(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cgroup, or one that says "max"."""
    unlimited = {"memory.max": "max\n", "memory.current": "5\n", "cpu.max": "max 100000\n"}
    _cgroup(tmp_path, own, unlimited, monkeypatch)

    assert 0.5 < resources.available_bytes() / psutil.virtual_memory().available < 2
    assert resources.out_of_memory_kills() == 0
    assert resources.usable_cores() == len(psutil.Process().cpu_affinity())
