"""The memory that may be used: the least that any of the control groups around a process allows."""

from __future__ import annotations

import pytest

from clipbench.core import machine_memory
from clipbench.core.machine_memory import usable_memory

V1, V2 = "memory.limit_in_bytes", "memory.max"
UNLIMITED = "9223372036854771712"


@pytest.mark.parametrize(
    ("own", "limits", "most"),
    [
        ("0::/\n", {V2: "500000000"}, 500_000_000),
        ("0::/\n", {V2: "max"}, None),
        (
            "0::/job_1/step_0\n",
            {f"job_1/{V2}": "400000000", f"job_1/step_0/{V2}": "max", f"job_2/{V2}": "1000"},
            400_000_000,
        ),
        ("0::/not/seen/from/here\n", {V2: "500000000"}, 500_000_000),
        (
            "4:cpu,memory:/job_1/step_0\n3:cpuset:/\n0::/\n",
            {f"memory/job_1/step_0/{V1}": UNLIMITED, f"memory/job_1/{V1}": "300000000", f"memory/{V1}": UNLIMITED},
            300_000_000,
        ),
        ("4:memory:/../elsewhere\n", {f"memory/{V1}": "200000000"}, 200_000_000),
        ("", {}, None),
    ],
)
def test_the_least_limit_around_a_process_counts(tmp_path, monkeypatch, own, limits, most):
    monkeypatch.setattr(machine_memory, "OWN_GROUPS", tmp_path / "missing")
    there = usable_memory()
    (tmp_path / "own").write_text(own)
    for path, limit in limits.items():
        file = tmp_path / "groups" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(limit + "\n")
    monkeypatch.setattr(machine_memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine_memory, "ALL_GROUPS", tmp_path / "groups")
    assert usable_memory() == (there if most is None else int(0.9 * most))
