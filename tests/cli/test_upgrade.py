"""`hart-edge upgrade`: the build that it starts for a bundle of an earlier format, and what it leaves alone."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from hart_edge.bundle.manifest import FORMAT_VERSION, Manifest, Precision, Target, parse
from hart_edge.calib.calibrate.ranges import RANGES_VERSION
from hart_edge.cli.upgrade import run as run_upgrade
from hart_edge.export.options import BuildOptions, Progress
from hart_edge.reference.presets import SHIPPED_MODEL
from tests.bundle.corrupt_manifests import put
from tests.bundle.make_bundle import make_bundle
from tests.cli.command_line import Run


class Build:
    """Stands in for a build, and records its options."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.asked = manifest, list[BuildOptions]()

    def __call__(self, options: BuildOptions, progress: Progress) -> Manifest:
        self.asked.append(options)
        return self.manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle of format 2, whose other keys differ too."""
    made = make_bundle(tmp_path / "old")
    manifest = json.loads((made / "manifest.json").read_bytes())
    manifest |= {"format_version": FORMAT_VERSION - 1, "name": "hart-emoji-int8", "precision": "int8", "further": 1}
    manifest["sampling"]["top_p"] = 0.25
    (made / "manifest.json").write_text(json.dumps(manifest))
    return made


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(parse((make_bundle(tmp_path / "new") / "manifest.json").read_bytes()))


def test_an_earlier_bundle_is_built_again_as_it_was(run: Run, folder: Path, build: Build) -> None:
    (folder / "calibration.json").write_text(json.dumps({"format_version": RANGES_VERSION}))
    status, out, err = run("upgrade", folder, by=functools.partial(run_upgrade, build=build))
    assert (status, err) == (0, "") and out.startswith(f"{folder}: ")
    (options,) = build.asked
    assert (options.checkpoint, options.out) == (SHIPPED_MODEL, folder)
    assert (options.precision, options.target) == (Precision.INT8, Target.CPU)
    assert options.settings["top_p"] == 0.25 and options.ranges == folder / "calibration.json"


def test_ranges_of_another_format_are_collected_anew(run: Run, folder: Path, build: Build) -> None:
    (folder / "calibration.json").write_text(json.dumps({"format_version": RANGES_VERSION - 1}))
    by = functools.partial(run_upgrade, build=build)
    assert run("upgrade", folder, "--checkpoint", "mine", "--out", "there", by=by)[0] == 0
    (folder / "calibration.json").write_text(json.dumps({"format_version": RANGES_VERSION}))
    assert run("upgrade", folder, "--calibrate", by=by)[0] == 0
    first, second = build.asked
    assert (first.checkpoint, first.out, first.ranges) == (Path("mine"), Path("there"), None)
    assert second.ranges is None


def test_the_present_format_is_left_alone(run: Run, tmp_path: Path, build: Build) -> None:
    folder, by = tmp_path / "new", functools.partial(run_upgrade, build=build)
    assert run("upgrade", folder, by=by) == (0, f"{folder}: has format 3, the present one; nothing to do\n", "")
    assert json.loads(run("upgrade", folder, "--json", by=by)[1])["upgraded"] is False
    assert build.asked == []
    assert run("upgrade", folder, "--anyway", "--checkpoint", "mine", by=by)[0] == 0 and len(build.asked) == 1


def test_a_preset_is_known_by_the_bundles_name(run: Run, folder: Path, build: Build) -> None:
    put("name", value="hart-0.7b-256-int8-random")(folder)
    assert run("upgrade", folder, by=functools.partial(run_upgrade, build=build))[0] == 0
    assert build.asked[0].checkpoint == "hart-0.7b-256"


@pytest.mark.parametrize(
    ("key", "value", "status", "message"),
    [
        ("name", "mine", 2, "expected --checkpoint, since a bundle does not name the folder that it was built from; "),
        ("format_version", 99, 1, "has format 99, this version reads 3; update hart-edge"),
        ("format_version", "2", 1, 'manifest.json: format_version: expected 1 or more, found "2"; build the bundle'),
        ("precision", "int4", 1, "--precision: expected one of fp32, fp16, int8, found int4"),
        ("target", {"name": "npu"}, 1, "manifest.json: target.name: expected cpu, cuda, tensorrt, tensorrt-rtx, found"),
        ("target", {"name": "tensorrt", "engines": {}}, 1, "holds engines, which hart-edge engines makes; upgrade the"),
        ("sampling", None, 1, "manifest.json: name and sampling: expected text and an object, found"),
    ],
)
def test_bundles_that_cannot_be_built_again(
    run: Run, folder: Path, build: Build, key: str, value: object, status: int, message: str
) -> None:
    put(key, value=value)(folder)
    ended, out, err = run("upgrade", folder, by=functools.partial(run_upgrade, build=build))
    assert (ended, out) == (status, "") and message in err and build.asked == []


def test_a_folder_that_is_no_bundle_is_refused(run: Run, tmp_path: Path) -> None:
    status, _, err = run("upgrade", "nowhere")
    assert status == 1 and err.startswith("error: nowhere: expected a bundle with manifest.json (")
    (tmp_path / "manifest.json").write_text("[1]")
    assert "manifest.json: top level: expected an object, found a list of 1" in run("upgrade", tmp_path)[2]
