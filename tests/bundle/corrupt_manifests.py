"""Ways to spoil the manifest of make_bundle.py's bundle, as data: an edit of the folder, and what the refusal says.

STRUCTURE: one wrong key at a time, which the JSON schema refuses too. CONSISTENCY: keys that contradict each other.
BYTES: malformed JSON. corrupt_bundles.py has edits of files and graphs, and collects all of them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bundle.make_bundle import give_engines

Edit = Callable[[Path], None]


@dataclass(frozen=True)
class Corruption:
    name: str
    edit: Edit
    message: str  # a part of the refusal, in Python's words


# Edits of the manifest.


def put(*keys: str | int, value: Any) -> Edit:
    """Set the value at the path `keys`."""

    def change(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return manifest_edit(change)


def drop(*keys: str | int) -> Edit:
    """Remove the key at the path `keys`."""

    def change(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        del manifest[keys[-1]]

    return manifest_edit(change)


def manifest_edit(change: Callable[[Any], None]) -> Edit:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return edit


def manifest_bytes(change: Callable[[bytes], bytes]) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_bytes(change(path.read_bytes()))

    return edit


def both(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for each in edits:
            each(folder)

    return edit


def list_file(name: str) -> Edit:
    """Add a file entry that is well formed."""
    return put("files", name, value={"bytes": 1, "sha256": "0" * 64})


def engine_edit(*edits: Edit) -> Edit:
    """Turn the bundle into one of engines with give_engines, then edit its manifest."""
    return both(give_engines, *edits)


PATH = "expected a path inside the bundle"
NEEDS = ("target", "engines")
BUFFERS = ("plan", "buffers")


def _exact_again(manifest: Any) -> None:
    manifest["speeds"] = {"exact": manifest["plan"]}


STRUCTURE = (
    Corruption("key_missing", drop("sampling", "top_p"), "sampling.top_p: expected this key, found none"),
    Corruption("key_unknown", put("sampling", "top_q", value=1), 'speed, found "top_q"'),
    Corruption("key_unknown_at_top", put("comment", value=""), 'tools, found "comment"'),
    Corruption("key_of_another_kind", put(*BUFFERS, "nothing", "scale", value=0), 'last, found "scale"'),
    Corruption("version_2", put("format_version", value=2), "format_version: expected 3, found 2; build it again"),
    Corruption("version_4", put("format_version", value=4), "expected 3, found 4; update hart-edge, or rebuild"),
    Corruption("version_text", put("format_version", value="3"), 'format_version: expected 3, found "3"; rebuild'),
    Corruption("version_fraction", put("format_version", value=3.5), "format_version: expected 3, found 3.5; rebuild"),
    Corruption("version_huge", put("format_version", value=10**30), f"expected 3, found {10**30}; update hart-edge"),
    Corruption("version_missing", drop("format_version"), "format_version: expected 3, found no such key; rebuild"),
    Corruption("name_with_slash", put("name", value="../x"), 'name: expected a name of A-Z a-z 0-9 . _ -'),
    Corruption("name_empty", put("name", value=""), 'of at most 100 characters, found ""'),
    Corruption("precision_unknown", put("precision", value="int4"), 'one of fp32, fp16, int8, found "int4"'),
    Corruption("target_unknown", put("target", "name", value="tpu"), 'tensorrt, tensorrt-rtx, found "tpu"'),
    Corruption("target_is_text", put("target", value="cpu"), 'target: expected an object, found "cpu"'),
    Corruption("flag_is_number", put("sampling", "smooth", value=1), "expected true or false, found 1"),
    Corruption("number_is_flag", put("vocab_size", value=True), "an integer from 1 to 1048576, found true"),
    Corruption("integer_is_fraction", put("vocab_size", value=16.5), "1 to 1048576, found 16.5"),
    Corruption(
        "integer_is_text",
        put("sampling", "top_k", 1, value="x"),
        'manifest.json: sampling.top_k[1]: expected an integer from 1 to 1048576, found "x"; rebuild the bundle '
        "with python -m export.build",
    ),
    Corruption("number_is_text", put("sampling", "cfg_scale", value="4"), 'from 0 to 100, found "4"'),
    Corruption("number_is_null", put("sampling", "top_p", value=None), "from 1e-06 to 1, found null"),
    Corruption("top_p_zero", put("sampling", "top_p", value=0), "from 1e-06 to 1, found 0"),
    Corruption("image_absurd", put("image_size", value=2**40), "from 16 to 8192, found 1099511627776"),
    Corruption("tokens_absurd", put("context_tokens", value=8193), "from 1 to 8192, found 8193"),
    Corruption("dim_negative", put("context_dim", value=-8), "from 1 to 1048576, found -8"),
    Corruption("bytes_absurd", put("files", "README.md", "bytes", value=2**63), "9223372036854775808; rebuild"),
    Corruption("integer_of_1000_digits", put("z_channels", value=10**999), "0000000...; rebuild"),
    Corruption("sha256_short", put("files", "README.md", "sha256", value="00"), '64 lower-case hex digits,'),
    Corruption("list_is_object", put("patch_nums", value={}), "a list of 1 to 64 entries, found an object"),
    Corruption("list_empty", put("plan", "steps", value=[]), "plan.steps: expected a list of 1 to 10000"),
    Corruption("scales_65", put("patch_nums", value=[*range(1, 66)]), "found a list of 65"),
    Corruption("patch_nums_from_2", put("patch_nums", 0, value=2), "patch_nums[0]: expected 1, found 2"),
    Corruption("patch_nums_flat", put("patch_nums", 1, value=1), "patch_nums[1]: expected more than 1"),
    Corruption("tokenizer_is_text", put("tokenizer", value="tokenizer.json"), "tokenizer: expected an object"),
    Corruption("embeddings_zero", put("tokenizer", "embeddings", value=0), "an integer from 1 to 2147483647, found 0"),
    Corruption("embeddings_null", put("tokenizer", "embeddings", value=None), 'found "embeddings"'),
    Corruption("instruction_null", put("tokenizer", "instruction", value=None), 'found "instruction"'),
    Corruption("instruction_empty", put("tokenizer", "instruction", "tokens", value=0), "from 1 to 8192, found 0"),
    Corruption("instruction_bare", drop("tokenizer", "instruction", "sha256"), "instruction.sha256: expected this key"),
    Corruption("path_up", put("components", 0, "file", value="../x.onnx"), f"components[0].file: {PATH}"),
    Corruption("path_up_inside", put("tokenizer", "file", value="graphs/../x"), f"tokenizer.file: {PATH}"),
    Corruption("path_absolute", list_file("/etc/passwd"), f'files["/etc/passwd"]: {PATH}'),
    Corruption("path_nul", list_file("a\0b"), f'files["a\\u0000b"]: {PATH}'),
    Corruption("path_backslash", list_file("..\\x"), f'files["..\\\\x"]: {PATH}'),
    Corruption("path_drive", list_file("C:/x"), f'files["C:/x"]: {PATH}'),
    Corruption("path_double_slash", list_file("graphs//x"), f'files["graphs//x"]: {PATH}'),
    Corruption("path_dot", list_file("./x"), f'files["./x"]: {PATH}'),
    Corruption("path_empty", list_file(""), f'files[""]: {PATH}'),
    Corruption("path_newline", list_file("x\n"), f'files["x\\n"]: {PATH}'),
    Corruption("path_surrogate", list_file("\ud800"), f'files["\\ud800"]: {PATH}'),
    Corruption("path_long", list_file("x" * 1001), PATH),
    Corruption("quality_is_number", put("quality", value=1), "quality: expected an object, found 1"),
    Corruption("quality_missing", drop("quality"), "quality: expected this key, found none"),
    Corruption("quality_key_unknown", put("quality", "fid", value=1), 'decoder_psnr, found "fid"'),
    Corruption("quality_no_prompts", put("quality", "prompts", value=0), "quality.prompts: expected an integer from 1"),
    Corruption("quality_no_scales", put("quality", "scales", value=[]), "a list of 1 to 64 entries, found a list of 0"),
    Corruption("quality_scale_lacks", drop("quality", "scales", 1, "kl"), "quality.scales[1].kl: expected this key"),
    Corruption("quality_cosine", put("quality", "scales", 0, "cosine", value=-1.5), "from -1 to 1, found -1.5"),
    Corruption("quality_largest", put("quality", "scales", 0, "largest_error", value=1e31), "from 0 to 1e+30, found"),
    Corruption("quality_top_1", put("quality", "scales", 1, "top_1", value=97.5), "expected a number from 0 to 1"),
    Corruption("quality_kl_negative", put("quality", "scales", 0, "kl", value=-1e-9), "from 0 to 1e+30, found -1e-09"),
    Corruption("quality_guided", put("quality", "scales", 0, "guided_top_1", value=None), "from 0 to 1, found null"),
    Corruption("quality_psnr", put("quality", "decoder_psnr", value=1001), "from 0 to 1000, found 1001"),
    Corruption("text_nul", put("licences", 0, "spdx", value="MIT\0"), "licences[0].spdx: expected text"),
    Corruption("manifest_lists_itself", list_file("manifest.json"), "files: expected every file but manifest"),
    Corruption("engines_missing", drop("target", "engines"), "target.engines: expected this key, found none"),
    Corruption("engines_of_cpu", engine_edit(put("target", "name", value="cpu")), "target.engines: expected null for"),
    Corruption("engines_key_missing", engine_edit(drop(*NEEDS, "version")), "engines.version: expected this key"),
    Corruption("engines_key_unknown", engine_edit(put(*NEEDS, "sm", value=75)), 'images_at_once, found "sm"'),
    Corruption("engines_version", engine_edit(put(*NEEDS, "version", value="1.7rc")), "such as 10.13.3.9, of"),
    Corruption("engines_version_line", engine_edit(put(*NEEDS, "version", value="1.7\n")), 'found "1.7\\n"'),
    Corruption("engines_platform", engine_edit(put(*NEEDS, "platform", value="qnx-aarch64")), "linux or windows, -,"),
    Corruption("architectures_empty", engine_edit(put(*NEEDS, "architectures", value=[])), "1 to 32 entries, found"),
    Corruption("architecture_twice", engine_edit(put(*NEEDS, "architectures", 0, value="sm_89")), "architecture once"),
    Corruption("architecture_dotted", engine_edit(put(*NEEDS, "architectures", 0, value="7.5")), "such as sm_86,"),
    Corruption("compatibility", engine_edit(put(*NEEDS, "hardware_compatibility", value="any")), "ampere-plus, found"),
    Corruption("no_images_at_once", engine_edit(put(*NEEDS, "images_at_once", value=0)), "from 1 to 1024, found 0"),
    Corruption("reason_missing", drop("components", 0, "reason"), "components[0].reason: expected this key"),
    Corruption("reason_long", put("components", 0, "reason", value="x" * 10_001), "components[0].reason: expected"),
    Corruption("products_no_list", put("components", 0, "float_products", value="w"), "products: expected a list"),
    Corruption("products_number", put("components", 0, "float_products", value=["w", 1]), "products[1]: expected"),
    Corruption("engine_missing", engine_edit(drop("components", 0, "engine")), "components[0].engine: expected this"),
    Corruption("engine_is_null", engine_edit(put("components", 0, "engine", value=None)), "an object, found null"),
    Corruption("engine_of_graph", put("components", 0, "engine", value={"profiles": [None]}), 'found "engine"'),
    Corruption("profiles_empty", engine_edit(put("components", 0, "engine", "profiles", value=[])), "1 to 65 entries"),
    Corruption("profile_text", engine_edit(put("components", 0, "engine", "profiles", 0, value="0")), 'from 0 to 63'),
    Corruption("profile_twice", engine_edit(put("components", 1, "engine", "profiles", 0, value=1)), "scale once, fou"),
    Corruption("graph_not_onnx", put("components", 0, "file", value="README.md"), "that ends with .onnx"),
    Corruption("component_unknown", put("components", 0, "name", value="vae"), 'encoder, found "vae"'),
    Corruption("dtype_unknown", put("constants", "up.0", "dtype", value="float64"), 'found "float64"'),
    Corruption("extent_symbol", put(*BUFFERS, "context", "shape", 0, value="3B"), '"B" or "2B", found "3B"'),
    Corruption("extent_negative", put(*BUFFERS, "context", "shape", 1, value=-4), '"B" or "2B", found -4'),
    Corruption("rank_9", put(*BUFFERS, "nothing", "shape", value=[1] * 9), "0 to 8 entries, found a list of 9"),
    Corruption("buffer_kind", put(*BUFFERS, "nothing", "kind", value="file"), 'cache, rows, found "file"'),
    Corruption("setting_is_null", put(*BUFFERS, "top_k.0", "setting", value=None), "temperature, found null"),
    Corruption("constant_is_null", put(*BUFFERS, "up.0", "constant", value=None), "characters, found null"),
    Corruption("buffer_kind_is_list", put(*BUFFERS, "nothing", "kind", value=[]), "found a list of 0"),
    Corruption("draw_beyond", put(*BUFFERS, "uniform.0", "draw", value=1001), "an integer from 0 to 1000, found 1001"),
    Corruption("speed_unknown", put("sampling", "speed", value="slow"), "one of exact, balanced, fast"),
    Corruption("exact_as_a_further_speed", manifest_edit(_exact_again), "one of balanced, fast"),
    Corruption("no_further_speed", put("speeds", value={}), "no keys but format_version"),
    Corruption("purpose_unknown", put(*BUFFERS, "uniform.0", "purpose", value=2), "from 0 to 1, found 2"),
    Corruption("noise_without_scale", put(*BUFFERS, "uniform.0", "scale", value=None), "a scale for noise, found null"),
    Corruption("noise_of_int64", put(*BUFFERS, "uniform.0", "dtype", value="int64"), "the size at B = 1"),
    Corruption("table_without_scale", put(*BUFFERS, "top_k.0", "scale", value=None), "a scale for top_k"),
    Corruption("scale_without_table", put(*BUFFERS, "cfg_scale", "scale", value=0), "null for cfg_scale"),
    Corruption("constant_unaligned", put("constants", "up.0", "offset", value=4), "a multiple of 64, found 4"),
)  # fmt: skip

STEPS = ("plan", "steps")


def _huge_buffer(manifest: Any) -> None:
    for buffer in manifest["plan"]["buffers"].values():
        if buffer["kind"] == "zero":
            buffer["shape"] = ["B", 2**20, 2**20]


def _same_component_twice(manifest: Any) -> None:
    manifest["components"][1]["name"] = "text_model"


def _swap_first_steps(manifest: Any) -> None:
    steps = manifest["plan"]["steps"]
    steps[0], steps[1] = steps[1], steps[0]
    manifest["plan"]["buffers"]["input_ids"].update(first=1, last=1)
    manifest["plan"]["buffers"]["level.0"].update(first=0, last=0)
    manifest["plan"]["buffers"]["logits.0"].update(first=0)


def _write_twice(manifest: Any) -> None:
    manifest["plan"]["steps"][4]["outputs"]["logits"] = "logits.0"
    manifest["plan"]["steps"][5]["inputs"]["logits"] = "logits.0"
    manifest["plan"]["buffers"]["logits.0"]["last"] = 5
    del manifest["plan"]["buffers"]["logits.1"]


def _write_a_constant(manifest: Any) -> None:
    manifest["plan"]["steps"][7]["outputs"]["finite"] = "up.1"
    manifest["plan"]["buffers"]["up.1"]["last"] = 7
    del manifest["plan"]["buffers"]["finite"]


def _no_finite(manifest: Any) -> None:
    del manifest["plan"]["steps"][7]["outputs"]["finite"]
    del manifest["plan"]["buffers"]["finite"]


def _unused_buffer(manifest: Any) -> None:
    manifest["plan"]["buffers"]["spare"] = dict(manifest["plan"]["buffers"]["nothing"])


def _add_speed(manifest: Any) -> Any:
    """A further speed, whose plan is that of the exact one; returns it."""
    manifest["speeds"] = {"fast": json.loads(json.dumps(manifest["plan"]))}
    return manifest["speeds"]["fast"]


def _other_first_steps(manifest: Any) -> None:
    plan = _add_speed(manifest)
    plan["buffers"]["words"] = plan["buffers"].pop("context")
    for step in plan["steps"]:
        for wires in (step["inputs"], step["outputs"]):
            wires |= {tensor: "words" for tensor, name in wires.items() if name == "context"}


def _other_form(manifest: Any) -> None:
    """A context that the text model writes into rows of a cache."""
    plan = _add_speed(manifest)
    text, transformer = manifest["components"][:2]
    for spec in (text["outputs"][0], transformer["inputs"][0]):
        spec["shape"][0] = "A"
    context = plan["buffers"]["context"]
    context |= {"kind": "rows", "shape": [1, *context["shape"][1:]], "cache": "contexts", "start": 0}
    own = {"kind": "cache", "shape": context["shape"], "dtype": context["dtype"]}
    plan["buffers"]["contexts"] = own | {key: context[key] for key in ("bytes_per_image", "first", "last")}


def _fault_in_a_speed(manifest: Any) -> None:
    _add_speed(manifest)["buffers"]["logits.0"]["last"] = 7


def _wrong_noise(manifest: Any) -> None:
    """One axis too many in every place: consistent, but not what docs/randomness.md specifies."""
    manifest["plan"]["buffers"]["uniform.0"]["shape"] = ["B", 1, 4, 4]
    manifest["components"][2]["inputs"][1]["shape"] = ["B", "n", "a", "b"]
    manifest["plan"]["buffers"]["uniform.1"]["shape"] = ["B", 4, 4, 4]


def _setting_of_two(manifest: Any) -> None:
    manifest["plan"]["buffers"]["cfg_scale"].update(shape=[2], bytes_per_image=8)
    manifest["components"][2]["inputs"][2]["shape"] = [2]


def _input_of_int32(manifest: Any) -> None:
    manifest["plan"]["buffers"]["input_ids"].update(dtype="int32", bytes_per_image=16)
    manifest["components"][0]["inputs"][0]["dtype"] = "int32"


def _decode_another(manifest: Any) -> None:
    manifest["plan"]["steps"][7]["inputs"]["f_hat"] = "f_hat.0"
    manifest["plan"]["buffers"]["f_hat.0"]["last"] = 7
    manifest["plan"]["buffers"]["f_hat.1"]["last"] = 6


def _f_hat_differs(manifest: Any) -> None:
    """f_hat.0 has another shape, which the graphs that write and read it accept, since they have symbols there."""
    manifest["plan"]["buffers"]["f_hat.0"].update(shape=["B", 4, 1, 4])
    manifest["components"][3]["inputs"][2]["shape"] = ["B", 4, "y", "x"]
    manifest["components"][3]["outputs"][0]["shape"] = ["B", 4, "h", "w"]


def _cache_of_a_number(manifest: Any) -> None:
    manifest["plan"]["buffers"]["key.0"].update(shape=[], bytes_per_image=4)


def _read_a_cache(manifest: Any) -> None:
    manifest["plan"]["steps"][4]["inputs"]["past_key.0"] = "key.0"


def _rows_of_images(manifest: Any) -> None:
    manifest["plan"]["buffers"]["key.0.0"]["shape"] = ["B", "2B", 32]


def _rows_of_another_shape(manifest: Any) -> None:
    manifest["plan"]["buffers"]["key.0.0"]["shape"] = [1, 2, 32]


def _read_rows_too_early(manifest: Any) -> None:
    manifest["plan"]["buffers"]["past_key.0.0"].update(shape=[1, "2B", 32], bytes_per_image=256)


def _f_hat_in_rows(manifest: Any) -> None:
    """A cache has no value that a preview could decode."""
    buffers = manifest["plan"]["buffers"]
    common = {"dtype": "float32", "bytes_per_image": 64, "first": 3, "last": 6}
    buffers["cache"] = {"kind": "cache", "shape": [1, 4, 2, 2], **common}
    buffers["f_hat.0"] = {"kind": "rows", "shape": [1, 4, 2, 2], "cache": "cache", "start": 0, **common}
    manifest["components"][3]["outputs"][0]["shape"] = ["b", 4, 2, 2]


CONSISTENCY = (
    Corruption("image_size", put("image_size", value=48), "image_size: expected 32, 16 times the last of"),
    Corruption("graph_among_engines", engine_edit(put("components", 0, "file", value="a.onnx"), drop("components", 0,
               "engine"), list_file("a.onnx")), 'components[0].file: expected a path that ends with .engine, found "a'),
    Corruption("engine_among_graphs", both(engine_edit(), put("target", "engines", value=None)), "ends with .onnx"),
    Corruption("profile_beyond", engine_edit(put("components", 1, "engine", "profiles", 0, value=2)), "from 0 to 1, f"),
    Corruption("profile_lacks", engine_edit(put("components", 1, "engine", "profiles", value=[0])), "for scale 1, whi"),
    Corruption("profile_lacks_null", engine_edit(put("components", 0, "engine", "profiles", value=[0])), "scale null"),
    Corruption("table_short", put("sampling", "temperature", value=[1.0]), "2 entries, one per scale, found 1"),
    Corruption("top_k_above_vocab", put("sampling", "top_k", 0, value=17), "at most 16, the vocab_size, found"),
    Corruption("quality_short", drop("quality", "scales", 0), "quality.scales: expected 2 entries, one per scale, fou"),
    Corruption("timesteps_fall", put("residual", "timesteps", value=[9, 3]), "timesteps[1]: expected more than 9"),
    Corruption("noise_steps", put("residual", "noise_steps", value=2), "3, one more than timesteps, found 2"),
    Corruption("file_not_listed", drop("files", "graphs/latent.onnx"), "a path in files, found \"graphs/latent"),
    Corruption("tokenizer_not_listed", put("tokenizer", "file", value="t"), "tokenizer.file: expected a path in"),
    Corruption("pad_beyond", put("tokenizer", "pad_token_id", value=32), "pad_token_id: expected an id below 32"),
    Corruption("file_is_folder_too", list_file("README.md/x"), "a file in a folder, found \"README.md\" as a file"),
    Corruption("component_twice", manifest_edit(_same_component_twice), '"text_model" twice'),
    Corruption(
        "tensor_twice", put("components", 1, "inputs", 1, "name", value="context"), "every tensor once"
    ),
    Corruption("constants_not_listed", drop("files", "constants.bin"), "expected constants.bin in files"),
    Corruption("constant_beyond", put("constants", "up.1", "offset", value=320), "within the 320 bytes of"),
    Corruption("constant_huge", put("constants", "up.1", "shape", value=[2**20] * 3), "at most 1099511627776"),
    Corruption("constant_unknown", put(*BUFFERS, "up.0", "constant", value="no"), "constants, found \"no\""),
    Corruption("constant_differs", put("constants", "up.0", "shape", value=[1, 4]), "float32 [1, 4] as in"),
    Corruption("buffer_bytes", put(*BUFFERS, "logits.0", "bytes_per_image", value=64), "expected 128, the size"),
    Corruption("buffer_huge", manifest_edit(_huge_buffer), "at most 1099511627776 bytes per image, found"),
    Corruption("buffer_first", put(*BUFFERS, "context", "first", value=1), "first: expected 0, the first step"),
    Corruption("buffer_last", put(*BUFFERS, "context", "last", value=1), "last: expected 4, the last step"),
    Corruption("buffer_unused", manifest_edit(_unused_buffer), "plan.buffers.spare: expected a buffer that"),
    Corruption("buffer_scale", put(*BUFFERS, "uniform.0", "scale", value=2), "from 0 to 1, found 2"),
    Corruption("noise_shape", manifest_edit(_wrong_noise), "expected ['B', 1, 16] or fewer tokens, found ['B', 1"),
    Corruption("step_scale", put(*STEPS, 1, "scale", value=2), "plan.steps[1].scale: expected an integer from"),
    Corruption("step_graph", put(*STEPS, 1, "graph", value="embed"), "name of a component, found \"embed\""),
    Corruption("input_unknown", put(*STEPS, 1, "inputs", "no", value="context"), "level, past_key.0, found \"no\""),
    Corruption("output_unknown", put(*STEPS, 0, "outputs", "no", value="pixels"), "component: context, found"),
    Corruption("input_unfed", drop(*STEPS, 1, "inputs", "context"), "every input of transformer, found no"),
    Corruption("buffer_unknown", put(*STEPS, 1, "inputs", "level", value="no"), "name of a buffer, found \"no\""),
    Corruption("read_too_early", manifest_edit(_swap_first_steps), "a buffer that an earlier step wrote"),
    Corruption("written_twice", manifest_edit(_write_twice), "that nothing wrote before, found \"logits.0\""),
    Corruption("constant_written", manifest_edit(_write_a_constant), "kind value or rows, found \"up.1 of kind"),
    Corruption("cache_of_a_value", put(*BUFFERS, "key.0.1", "cache", value="logits.0"), "kind cache, found \"logits."),
    Corruption("cache_unknown", put(*BUFFERS, "key.0.1", "cache", value="no"), "of kind cache, found \"no\""),
    Corruption("cache_of_a_number", manifest_edit(_cache_of_a_number), "rows on axis 0 of cache, found []"),
    Corruption("cache_in_a_step", manifest_edit(_read_a_cache), "rows of a cache, found \"key.0 of kind cache\""),
    Corruption("cache_written", put(*STEPS, 1, "outputs", "key.0", value="key.0"), "value or rows, found \"key.0 of"),
    Corruption("rows_of_images", manifest_edit(_rows_of_images), "rows on axis 0 of rows, found ['B', '2B', 32]"),
    Corruption("rows_beyond", put(*BUFFERS, "key.0.1", "start", value=2), "within the 5 of \"key.0\", found rows 2"),
    Corruption("rows_differ", manifest_edit(_rows_of_another_shape), "rows of float32 ['2B', 32] as in \"key.0\""),
    Corruption("rows_again", put(*BUFFERS, "key.0.1", "start", value=0), "rows from 1 of \"key.0\" on, the first that"),
    Corruption("rows_read_too_early", manifest_edit(_read_rows_too_early), "rows that earlier steps wrote, 0 of"),
    Corruption("rows_without_start", drop(*BUFFERS, "key.0.1", "start"), "start: expected this key, found none"),
    Corruption("start_of_a_value", put(*BUFFERS, "context", "start", value=0), "last, found \"start\""),
    Corruption("cache_last", put(*BUFFERS, "key.0", "last", value=3), "last: expected 4, the last step"),
    Corruption("f_hat_in_rows", manifest_edit(_f_hat_in_rows), "the value f_hat.0 to be written by now, found none"),
    Corruption("dtype_differs", put("components", 0, "inputs", 0, "dtype", value="int32"), "a buffer of int32"),
    Corruption("rank_differs", put("components", 0, "inputs", 0, "shape", value=["B"]), "of 1 dimensions"),
    Corruption("extent_differs", put("components", 0, "inputs", 0, "shape", 1, value=5), "extent 5 on axis 1"),
    Corruption("symbol_differs", put("components", 3, "inputs", 1, "shape", 0, value="n"), "extent 1 on axis 0, found"),
    Corruption("scale_not_ended", put(*STEPS, 6, "ends_scale", value=False), "2 steps with ends_scale, one per"),
    Corruption("scale_ends_twice", put(*STEPS, 6, "scale", value=0), "scale 1 to end next, found scale 0"),
    Corruption("scale_ends_early", put(*STEPS, 1, "ends_scale", value=True), "f_hat.0 to be written by now"),
    Corruption("no_finite", manifest_edit(_no_finite), "a step that writes finite, found none"),
    Corruption("noise_distribution", put(*BUFFERS, "uniform.0", "distribution", value="normal"), '"uniform", found'),
    Corruption("setting_of_two", manifest_edit(_setting_of_two), "[1] for a setting, found [2]"),
    Corruption("input_of_int32", manifest_edit(_input_of_int32), "int64 ['B', 4], found int32 ['B', 4]"),
    Corruption("no_tokenizer", put("tokenizer", value=None), "a tokenizer, because the plan takes input_ids"),
    Corruption("decodes_another_scale", manifest_edit(_decode_another), "the decoder with f_hat.1 as f_hat"),
    Corruption("f_hat_differs", manifest_edit(_f_hat_differs), "plan.buffers.f_hat.0: expected float32 ['B', 4, 2"),
    Corruption("draw_of_tokens", put(*BUFFERS, "uniform.0", "draw", value=0), "none, since tokens have one draw"),
    Corruption("speed_that_is_not_there", put("sampling", "speed", value="fast"), "exact, or a speed of speeds, found"),
    Corruption("speed_of_another_prompt", manifest_edit(_other_first_steps), "the first 2 steps of plan, which"),
    Corruption("speed_of_another_form", manifest_edit(_other_form), 'speeds.fast.buffers: expected "context" as in'),
    Corruption("speed_with_a_fault", manifest_edit(_fault_in_a_speed), 'speeds.fast.buffers["logits.0"].last: '),
    Corruption("no_input", put(*BUFFERS, "input_ids", "kind", value="zero"), "input_ids, or context and context"),
)  # fmt: skip


def _repeat_key(data: bytes) -> bytes:
    return data.replace(b'"smooth"', b'"top_p": 0.5, "smooth"', 1)


BYTES = (
    Corruption("duplicate_key", manifest_bytes(_repeat_key), 'every key once in an object, found "top_p" twice'),
    Corruption("nan", manifest_bytes(lambda data: data.replace(b"4.5", b"NaN")), "expected finite numbers, found NaN"),
    Corruption("infinity", manifest_bytes(lambda data: data.replace(b"4.5", b"-Infinity")), "numbers, found -Infinity"),
    Corruption("overflow", manifest_bytes(lambda data: data.replace(b"4.5", b"1e999")), "a number that is not finite"),
    Corruption("digits", manifest_bytes(lambda data: data.replace(b"4.5", b"9" * 5000)), "expected JSON, found"),
    Corruption("truncated", manifest_bytes(lambda data: data[:-9]), "manifest.json: top level: expected JSON"),
    Corruption("empty", manifest_bytes(lambda data: b""), "top level: expected JSON, found Expecting value"),
    Corruption("trailing", manifest_bytes(lambda data: data + b"{}"), "expected JSON, found Extra data"),
    Corruption("list", manifest_bytes(lambda data: b"[]"), "top level: expected an object, found a list of 0"),
    Corruption("latin_1", manifest_bytes(lambda data: data.replace(b"MIT", b"\xe9")), "expected UTF-8, found"),
    Corruption("utf_16", manifest_bytes(lambda data: data.decode().encode("utf-16")), "expected UTF-8, found"),
    Corruption("deep", manifest_bytes(lambda data: b"[" * 500_000), "found nesting without end"),
    Corruption("large", manifest_bytes(lambda data: data + b" " * 2**24), "expected at most 16777216 bytes"),
)
