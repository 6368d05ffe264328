"""A portable bundle becomes one of engines: complete or not at all; an interrupted build can be resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hart_edge.bundle.manifest import Manifest, Precision, Target, TargetSpec, to_json
from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.base import BuildProgress, EngineSettings, Profile, Watch
from hart_edge.engines.bundle_build import EngineDone, EngineJob, build_engines, check_portable, engine_reports
from hart_edge.engines.profiles import profiles_of
from hart_edge.errors import BuildError
from tests.bundle.make_bundle import QUALITY, give_engines, make_bundle, narrow_rows
from tests.engines.tensorrt.small_graphs import RTX

NAMES = ["text_model", "transformer", "tokens", "latent", "decoder"]
SETTINGS = EngineSettings(architectures=("sm_86",), images_at_once=2)


class FakeBuilder:
    """Builds engines of a few bytes; raises before the one named `stops_at`."""

    def __init__(self, stops_at: str = "", error: BaseException | None = None) -> None:
        self.stops_at, self.error, self.built = stops_at, error or KeyboardInterrupt(), list[str]()

    def version(self) -> str:
        return "1.7.1"

    def check_graphs(self, manifest: Manifest, settings: EngineSettings) -> None:
        pass

    def prepare(self, settings: EngineSettings) -> EngineSettings:
        return settings

    def build(
        self, graph: Path, profiles: Sequence[Profile], settings: EngineSettings, out: Path, watch: Watch
    ) -> dict[str, Any]:
        if graph.stem == self.stops_at:
            raise self.error
        watch(BuildProgress(graph.stem, "building", 0, 1, 0.0))
        self.built.append(graph.stem)
        out.write_bytes(f"engine of {graph.stem} for {settings.architectures}".encode())
        return {"engine_bytes": out.stat().st_size, "profiles": [profile.scale for profile in profiles]}


@pytest.fixture
def portable(tmp_path: Path) -> Path:
    """The tiny bundle with the target tensorrt-rtx, as if its graphs had been written for it."""
    folder = make_bundle(tmp_path / "portable")
    manifest = open_bundle(folder).manifest
    changed = replace(manifest, target=TargetSpec(Target.TENSORRT_RTX, None))
    (folder / "manifest.json").write_bytes(to_json(changed))
    return folder


def job(portable: Path, out: Path, settings: EngineSettings = SETTINGS) -> EngineJob:
    manifest = open_bundle(portable).manifest

    def card(finished: Manifest, seconds: float) -> str:
        return f"# {finished.name}\n"

    return EngineJob(portable, manifest, Target.TENSORRT_RTX, out, "engines", settings, card)


def run(job: EngineJob, builder: FakeBuilder) -> tuple[Manifest, list[EngineDone]]:
    done: list[EngineDone] = []
    return build_engines(job, builder, lambda _: None, done.append), done


def test_the_result_is_a_whole_bundle(portable: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "engines"
    manifest, done = run(job(portable, out), FakeBuilder())
    bundle = open_bundle(out)
    assert bundle.manifest == manifest
    engines = manifest.target.engines
    assert engines is not None and (engines.version, engines.architectures) == ("1.7.1", ("sm_86",))
    assert engines.images_at_once == 2 and engines.platform.count("-") == 1
    assert [each.file for each in manifest.components] == [f"engines/{name}.engine" for name in NAMES]
    profiles = {str(each.name): each.engine and each.engine.profiles for each in manifest.components}
    assert profiles == dict.fromkeys(("text_model", "decoder"), (None,)) | dict.fromkeys(NAMES[1:4], (0, 1))
    assert set(manifest.files) == {
        *(f"engines/{name}.{kind}" for name in NAMES for kind in ("engine", "json")),
        *("README.md", "constants.bin", "tokenizer.json"),
    }
    assert (out / "README.md").read_text() == "# engines\n"
    assert manifest.quality == QUALITY == open_bundle(portable).manifest.quality
    assert manifest.tools["tensorrt-rtx"] == "1.7.1"
    assert bundle.constant("up.1").tobytes() == open_bundle(portable).constant("up.1").tobytes()
    assert [(each.component, each.again) for each in done] == [(name, False) for name in NAMES]
    assert engine_reports(out, manifest)["latent"]["scheme"] == "plain"
    assert [path.name for path in out.parent.iterdir()] == ["engines"]


def test_shapes_are_those_of_the_plan(portable: Path) -> None:
    manifest = open_bundle(portable).manifest
    components = {str(component.name): component for component in manifest.components}
    tokens = profiles_of(manifest, components["tokens"], 3)
    assert [profile.scale for profile in tokens] == [0, 1]
    assert tokens[1].shapes == {
        "logits": ((2, 4, 16), (2, 4, 16), (6, 4, 16)),
        "uniform": ((1, 4, 16), (1, 4, 16), (3, 4, 16)),
        "cfg_scale": ((1,), (1,), (1,)),
        "top_k": ((1,), (1,), (1,)),
    }


def test_a_component_that_no_step_runs(portable: Path) -> None:
    manifest = open_bundle(portable).manifest
    unused = replace(manifest.components[0], name="encoder")
    assert profiles_of(manifest, unused, 2) == (Profile(None, {"input_ids": ((1, 4), (1, 4), (2, 4))}),)
    open_ended = replace(manifest.components[1], name="encoder")
    with pytest.raises(BuildError, match=r"^encoder: no step of the plan runs it, and its input level leaves n open"):
        profiles_of(manifest, open_ended, 2)


def test_an_interrupted_build_is_resumed(portable: Path, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    with pytest.raises(KeyboardInterrupt):
        run(job(portable, out), FakeBuilder("tokens"))
    assert not out.exists()
    kept = tmp_path / ".engines.engines" / "engines"
    assert sorted(path.stem for path in kept.glob("*.engine")) == ["text_model", "transformer"]
    again = FakeBuilder()
    _, done = run(job(portable, out), again)
    assert again.built == ["tokens", "latent", "decoder"]
    assert [each.component for each in done if each.again] == ["text_model", "transformer"]
    assert open_bundle(out).manifest.components[0].bytes == (out / "engines/text_model.engine").stat().st_size
    assert not (tmp_path / ".engines.engines").exists()


def test_engines_of_other_settings_or_graphs_or_bytes_are_made_again(portable: Path, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    with pytest.raises(KeyboardInterrupt):
        run(job(portable, out), FakeBuilder("decoder"))
    kept = tmp_path / ".engines.engines" / "engines"
    (kept / "tokens.engine").write_bytes(b"half")  # a truncated file
    (kept / "latent.json").write_text("{")
    with pytest.raises(KeyboardInterrupt):
        run(job(portable, out), builder := FakeBuilder("decoder"))
    assert builder.built == ["tokens", "latent"]
    run(job(portable, out, replace(SETTINGS, architectures=("sm_89",))), builder := FakeBuilder())
    assert builder.built == NAMES


def test_a_failed_build_leaves_the_old_bundle(portable: Path, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    run(job(portable, out), FakeBuilder())
    before = (out / "manifest.json").read_bytes()
    other = job(portable, out, replace(SETTINGS, images_at_once=1))
    with pytest.raises(BuildError, match=r"^no room$"):
        run(other, FakeBuilder("latent", BuildError("no room")))
    assert (out / "manifest.json").read_bytes() == before
    run(other, FakeBuilder())
    assert json.loads((out / "manifest.json").read_bytes())["target"]["engines"]["images_at_once"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines", "portable"]


def test_another_folder_is_left_alone(portable: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(BuildError, match="exists and is not a bundle, so it is left alone; choose another --out"):
        run(job(portable, tmp_path / "mine"), FakeBuilder())


def test_bundles_that_cannot_become_engines(portable: Path, tmp_path: Path) -> None:
    manifest = open_bundle(portable).manifest
    with pytest.raises(BuildError, match=r"^tiny-2: its graphs were written for target tensorrt-rtx, and engines"):
        check_portable(manifest, Target.TENSORRT, SETTINGS, RTX)
    narrow = replace(manifest, plan=narrow_rows(manifest.plan, 24))
    message = r"^tiny-2: expected keys and values of a multiple of 256 bytes a token, .* found 192 \(key.0.1\); use a "
    with pytest.raises(BuildError, match=message):
        check_portable(narrow, Target.TENSORRT_RTX, SETTINGS, RTX)
    give_engines(portable)
    engines = open_bundle(portable).manifest
    with pytest.raises(BuildError, match=r"^tiny-2: it holds engines already, for sm_75, sm_89; name the portable"):
        check_portable(engines, Target.TENSORRT_RTX, SETTINGS, RTX)


def test_turing_needs_graphs_of_its_own(portable: Path) -> None:
    manifest = open_bundle(portable).manifest
    turing = replace(SETTINGS, architectures=("sm_75",))
    remedy = "python -m export.build --target tensorrt-rtx --precision fp16 --architectures sm_75"
    fp16 = tuple(replace(component, precision=Precision.FP16) for component in manifest.components)
    for precision, message in (
        (Precision.FP32, "it is fp32, and TensorRT-RTX has no matrix products in float32 for sm_75"),
        (Precision.INT8, "it is int8, and TensorRT-RTX supports no INT8 weights on sm_75"),
    ):
        components = (replace(fp16[0], precision=precision), *fp16[1:])
        with pytest.raises(BuildError, match=f"^text_model: {message}; build the bundle with {remedy}$"):
            check_portable(replace(manifest, components=components), Target.TENSORRT_RTX, turing, RTX)
    check_portable(replace(manifest, components=fp16), Target.TENSORRT_RTX, turing, RTX)
