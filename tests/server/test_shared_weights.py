"""Several workers of a server open prepared graphs, from a folder that goes with the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hart_edge.server.running import shared_folder
from hart_edge.server.worker import WorkerPlan


def test_the_folder_goes_with_the_server() -> None:
    with shared_folder(2) as folder:
        assert folder is not None and folder.is_dir()
        (folder / "graph").touch()
    assert not folder.exists()
    with shared_folder(1) as folder:
        assert folder is None


def test_a_worker_opens_a_bundle_with_its_folder(tmp_path: Path) -> None:
    def load(folder: Path, **options: Any) -> Any:
        return folder, options

    folders = {"cpu": tmp_path / "cpu", "gpu": tmp_path / "gpu"}
    plan = WorkerPlan(folders, 2, load=load, prepared={"cpu": tmp_path / "shared"})
    shared: Any = {"threads": 2, "low_memory": False, "prepared": tmp_path / "shared"}
    assert plan.open("cpu") == (tmp_path / "cpu", shared)
    assert plan.open("gpu") == (tmp_path / "gpu", {"threads": 2, "low_memory": False})
