"""manifest.json: the reader, the writer and the JSON schema agree."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import hart_edge.bundle.manifest
from hart_edge.bundle.manifest import (
    FORMAT_VERSION,
    Component,
    Dtype,
    Engines,
    HardwareCompatibility,
    Instruction,
    Manifest,
    PaddingSide,
    Precision,
    Quality,
    Residual,
    ScaleQuality,
    Target,
    TargetSpec,
    Tokenizer,
    parse,
    to_json,
)
from hart_edge.bundle.plan import bytes_per_image
from hart_edge.bundle.settings import Speed
from hart_edge.errors import BundleError
from tests.bundle.corrupt_manifests import BYTES, CONSISTENCY, STRUCTURE, Corruption
from tests.bundle.make_bundle import give_engines, make_bundle

SCHEMA = json.loads((Path(hart_edge.bundle.manifest.__file__).parent / "manifest.schema.json").read_bytes())
PAGE = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text("utf-8")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def data(pristine: Path) -> bytes:
    return (pristine / "manifest.json").read_bytes()


@pytest.fixture(scope="module")
def engine_data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest of the same bundle with engines."""
    folder = make_bundle(tmp_path_factory.mktemp("engines") / "tiny")
    give_engines(folder)
    return (folder / "manifest.json").read_bytes()


@pytest.fixture(params=["graphs", "engines"])
def either(request: pytest.FixtureRequest, data: bytes, engine_data: bytes) -> bytes:
    return data if request.param == "graphs" else engine_data


def spoil(pristine: Path, tmp_path: Path, corruption: Corruption) -> bytes:
    folder = shutil.copytree(pristine, tmp_path / "spoilt")
    corruption.edit(folder)
    return (folder / "manifest.json").read_bytes()


def reordered(value: Any) -> Any:
    """The same JSON with the keys of every object in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


def test_the_manifest_is_read_as_dataclasses(data: bytes) -> None:
    manifest = parse(data)
    assert manifest.format_version == FORMAT_VERSION == 3
    assert (manifest.precision, manifest.target.name) == (Precision.FP32, Target.CPU)
    assert manifest.sampling.top_k == (6, 3)
    assert manifest.components[0].inputs[0].shape == ("B", 4)
    assert manifest.plan.buffers["logits.1"].bytes_per_image == 2 * 4 * 16 * 4
    assert manifest.plan.buffers["cfg_scale"].scale is None
    assert manifest.plan.steps[3].ends_scale


def test_engines_are_read_as_dataclasses(engine_data: bytes) -> None:
    manifest = parse(engine_data)
    assert manifest.target == TargetSpec(
        Target.TENSORRT_RTX,
        Engines("1.7.1.116", "linux-x86_64", ("sm_75", "sm_89"), HardwareCompatibility.NONE, False, 2),
    )
    profiles = {str(each.name): each.engine and each.engine.profiles for each in manifest.components}
    assert profiles == {
        "text_model": (None,),
        "transformer": (0, 1),
        "tokens": (0, 1),
        "latent": (0, 1),
        "decoder": (None,),
    }


def test_a_portable_bundle_holds_graphs_for_tensorrt(data: bytes) -> None:
    for target in (Target.TENSORRT, Target.TENSORRT_RTX):
        manifest = parse(data.replace(b'"name": "cpu"', f'"name": "{target}"'.encode()))
        assert manifest.target == TargetSpec(target, None)
        assert all(component.engine is None for component in manifest.components)


def test_writing_and_reading_are_inverse(either: bytes) -> None:
    manifest = parse(either)
    assert parse(to_json(manifest)) == manifest
    assert to_json(manifest) == either


def test_equal_manifests_give_equal_bytes(either: bytes) -> None:
    backwards = json.dumps(reordered(json.loads(either))).encode()
    assert backwards != either
    assert to_json(parse(backwards)) == either


def test_an_integer_is_accepted_where_a_number_is_expected(data: bytes) -> None:
    manifest = parse(data.replace(b'"cfg_scale": 4.5', b'"cfg_scale": 4'))
    assert manifest.sampling.cfg_scale == 4.0 and isinstance(manifest.sampling.cfg_scale, float)
    assert parse(to_json(manifest)) == manifest


def test_a_manifest_that_no_reader_would_accept_is_not_written(data: bytes) -> None:
    manifest = dataclasses.replace(parse(data), residual=Residual((0, 999), 7))
    with pytest.raises(BundleError, match=r"residual\.noise_steps: expected 3, one more than timesteps, found 7"):
        to_json(manifest)


def test_a_bundle_may_take_a_context_array(data: bytes) -> None:
    """Without the text model: context and its mask come from the caller, and no tokenizer is named."""
    value = json.loads(data)
    del value["plan"]["steps"][0], value["plan"]["buffers"]["input_ids"], value["components"][0]
    mask = {"kind": "input", "dtype": "bool", "shape": ["B", 4], "bytes_per_image": 4, "first": 0, "last": 0}
    for buffer in value["plan"]["buffers"].values():
        buffer.update(first=max(0, buffer["first"] - 1), last=buffer["last"] - 1)
    value["plan"]["buffers"] |= {"context_mask": mask}
    value["plan"]["buffers"]["context"]["kind"] = "input"
    value["components"][0]["inputs"].append({"name": "mask", "dtype": "bool", "shape": ["B", 4]})
    for step, key in ((0, "first"), (3, "last")):
        value["plan"]["steps"][step]["inputs"]["mask"] = "context_mask"
        mask[key] = step
    with pytest.raises(BundleError, match="tokenizer: expected null, because the plan takes a context array"):
        parse(json.dumps(value).encode())
    value["tokenizer"] = None
    assert parse(json.dumps(value).encode()).tokenizer is None


def test_a_bundle_may_have_further_speeds(data: bytes) -> None:
    value = json.loads(data)
    value["speeds"] = {"fast": value["plan"]}
    value["sampling"]["speed"] = "fast"
    manifest = parse(json.dumps(value).encode())
    assert manifest.plans == {Speed.EXACT: manifest.plan, Speed.FAST: manifest.plan}
    assert manifest.sampling.speed is Speed.FAST
    assert json.loads(to_json(manifest)) == value
    assert Draft202012Validator(SCHEMA).is_valid(value)


def test_quality_may_be_unknown_and_a_decoder_exact(either: bytes) -> None:
    value = json.loads(either)
    value["quality"]["decoder_psnr"] = None
    quality = parse(json.dumps(value).encode()).quality
    assert quality is not None and quality.decoder_psnr is None
    assert quality.scales[1] == ScaleQuality(0.9, 2.5, 0.75, 0.5, guided_top_1=0.5, guided_kl=4.5)
    value["quality"] = None
    manifest = parse(json.dumps(value).encode())
    assert manifest.quality is None and parse(to_json(manifest)) == manifest


@pytest.mark.parametrize("corruption", [*STRUCTURE, *CONSISTENCY, *BYTES], ids=lambda each: each.name)
def test_a_spoilt_manifest_is_refused(pristine: Path, tmp_path: Path, corruption: Corruption) -> None:
    with pytest.raises(BundleError) as refusal:
        parse(spoil(pristine, tmp_path, corruption))
    assert corruption.message in str(refusal.value)
    assert str(refusal.value).startswith("manifest.json: ")
    assert any(remedy in str(refusal.value) for remedy in ("export.build", "update hart-edge", "hart-edge upgrade"))


def test_a_manifest_beyond_the_size_limit_is_not_decoded() -> None:
    with pytest.raises(BundleError, match="top level: expected at most 16777216 bytes, found 16777217"):
        parse(b" " * (2**24 + 1))


def test_the_version_is_checked_first() -> None:
    with pytest.raises(BundleError) as refusal:
        parse(b'{"format_version": 2, "everything": "else differs"}')
    assert str(refusal.value) == (
        "manifest.json: format_version: expected 3, found 2; build it again with hart-edge upgrade BUNDLE"
    )


# The schema.


def test_the_schema_is_one_and_takes_the_valid_manifest(either: bytes) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(json.loads(either))


@pytest.mark.parametrize("corruption", STRUCTURE, ids=lambda each: each.name)
def test_the_schema_refuses_what_the_reader_refuses(pristine: Path, tmp_path: Path, corruption: Corruption) -> None:
    spoilt = json.loads(spoil(pristine, tmp_path, corruption))
    assert not Draft202012Validator(SCHEMA).is_valid(spoilt), corruption.name


def objects(value: Any, where: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every JSON object inside `value`, with its path."""
    found = [(where, value)] if isinstance(value, dict) else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += objects(item, f"{where}/{key}")
    return found


MAY_BE_ABSENT = {"/tokenizer": ("embeddings", "instruction"), "/sampling": ("speed",)}
TABLES = ("/files", "/constants", "/plan/buffers", "/tools")  # their keys are names, not keys of the format


def one_of_each(manifest: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a manifest; of those that a reader treats alike, such as the steps, only the first."""
    kinds: dict[object, tuple[str, dict[str, Any]]] = {}
    for where, item in objects(manifest):
        table = next((each for each in TABLES if where.startswith(each + "/")), None)
        place = table or re.sub(r"/\d+", "/0", where)
        types = () if where in TABLES else tuple((key, type(value)) for key, value in item.items())
        kinds.setdefault((place, item.get("kind"), types), (where, item))
    return list(kinds.values())


@pytest.mark.long
def test_reader_and_schema_agree_on_every_key(either: bytes) -> None:
    """Each key left out, and an unknown one put in, in every object of the manifest that has fixed keys."""
    whole = json.loads(either)
    validator = Draft202012Validator(SCHEMA)
    tried = 0
    for where, item in one_of_each(whole):
        if where in TABLES or where.endswith(("/inputs", "/outputs")):
            continue
        for key in [*(key for key in item if key not in MAY_BE_ABSENT.get(where, ())), "unknown"]:
            kept = dict(item)
            item.pop(key, None)
            if key == "unknown":
                item[key] = 0
            with pytest.raises(BundleError, match="expected"):
                parse(json.dumps(whole).encode())
            assert not validator.is_valid(whole), f"{where}/{key}"
            item.clear()
            item.update(kept)
            tried += 1
    assert tried > 100
    assert to_json(parse(json.dumps(whole).encode())) == either


def test_keys_of_later_builds_may_be_absent(either: bytes) -> None:
    whole = json.loads(either)
    assert parse(either).tokenizer == Tokenizer("tokenizer.json", 0, PaddingSide.RIGHT, 32, Instruction(3, "a" * 64))
    del whole["tokenizer"]["instruction"], whole["tokenizer"]["embeddings"], whole["sampling"]["speed"]
    before = parse(json.dumps(whole).encode())
    assert before.tokenizer == Tokenizer("tokenizer.json", 0, PaddingSide.RIGHT)
    assert before.sampling.speed is Speed.EXACT and before.plans == {Speed.EXACT: before.plan}
    whole["sampling"]["speed"] = "exact"
    assert json.loads(to_json(before)) == whole
    assert Draft202012Validator(SCHEMA).is_valid(whole)


@pytest.mark.long
def test_reader_and_schema_agree_on_every_type(either: bytes) -> None:
    """Every value replaced by one of each JSON type: both accept it or both refuse its structure."""
    whole = json.loads(either)
    validator = Draft202012Validator(SCHEMA)
    for where, item in one_of_each(whole):
        for key, kept in list(item.items()):
            for other in (None, True, 1, -1, 0.5, "x", [], [{}], {}, {"x": 1}):
                item[key] = other
                try:
                    parse(json.dumps(whole).encode())
                except BundleError:
                    continue  # the reader may be stricter: it also checks the keys against each other
                assert validator.is_valid(whole), f"{where}/{key} = {other!r}"
            item[key] = kept


# The page.


def test_the_page_names_every_key_and_every_enum() -> None:
    for field in dataclasses.fields(Manifest):
        assert f"| {field.name}" in PAGE or f" {field.name}," in PAGE or f", {field.name} " in PAGE, field.name
    for field in dataclasses.fields(Component):
        assert f'"{field.name}"' in PAGE or f"`{field.name}`" in PAGE, field.name
    for dtype in Dtype:
        assert f"`{dtype}`" in PAGE
    for target in Target:
        assert f'"{target}"' in PAGE
    for field in dataclasses.fields(Engines):
        assert f"\n| {field.name} | " in PAGE, field.name
    for field in (*dataclasses.fields(Quality), *dataclasses.fields(ScaleQuality)):
        assert f'"{field.name}"' in PAGE or f"`{field.name}`" in PAGE, field.name
    for compatibility in HardwareCompatibility:
        assert f"`{compatibility}`" in PAGE


def test_sizes_count_both_branches_of_guidance() -> None:
    assert bytes_per_image(Dtype.FLOAT16, ("2B", 3, 5)) == 60
    assert bytes_per_image(Dtype.INT64, ("B",)) == 8
    assert bytes_per_image(Dtype.BOOL, ()) == 1
    assert bytes_per_image(Dtype.FLOAT32, (4, 0)) == 0
