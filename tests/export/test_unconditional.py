"""One constant key in place of the T context tokens of the unconditional branch, compared with all T of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from hart_edge.export.unconditional import attend_branches, compute_unconditional_branch, key_bias, to_rows
from hart_edge.reference.hart import double_context
from hart_edge.reference.transformer import context_rotary, visual_rotary
from hart_edge.runtime.loop import Array
from tests.export.reference_walk import largest, run_reference, tiny_inputs, tiny_model, walk_plan
from tests.export.test_graphs import ADAPTIVE, PLAIN, SHARED, SMOOTH

FLAVOURS = {
    "plain": PLAIN,
    "plain, no L2 norm": PLAIN | {"attn_l2_norm": False},
    "plain, bare": PLAIN | {"use_context_norm": False, "use_timestep_embed": False},
    "shared": SHARED,
    "adaptive from the maximum": ADAPTIVE,
    "adaptive from the average, no L2 norm": ADAPTIVE | {"sep_aln_pooling_mode": "avg", "attn_l2_norm": False},
}


@pytest.mark.long
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("context_tokens", [1, 6, 31])
def test_every_context_token_equals_the_constant_key(tmp_path: Path, flavour: str, context_tokens: int) -> None:
    """At scale 0 of the reference's unconditional branch, whatever the prompt."""
    model = tiny_model(tmp_path, 5, llm=FLAVOURS[flavour] | {"context_token": context_tokens})
    inputs = tiny_inputs(model, (min(4, context_tokens), 1))
    transformer, null = model.transformer, compute_unconditional_branch(model)
    with torch.no_grad():
        context, mask = double_context(inputs["context"], inputs["context_mask"])
        tokens = transformer.embed_context(context)
        modulation, angles = transformer.modulation(tokens, mask), context_rotary(mask.cumsum(1) - 1, 16)
        hidden, cache = transformer(tokens + transformer.level(0), *angles, modulation)
        head_modulation = transformer.head_modulation(tokens)
    for row in (2, 3):
        assert largest(hidden[row], null.hidden[0].expand(context_tokens, -1)) <= 1e-4
        assert largest(head_modulation[row], null.head_modulation[0]) <= 1e-5
        for pair, expected in zip(cache, null.cache, strict=True):
            for part, one in zip(pair, expected, strict=True):
                assert one.shape == (1, 2, 1, 16)
                assert largest(part[row], one[0].expand(-1, context_tokens, -1)) <= 1e-4
    assert (modulation is None) == (null.modulation is None)
    if modulation is not None and null.modulation is not None:
        assert largest(modulation[2:], null.modulation.expand(2, -1, -1)) <= 1e-5


def test_bias_of_the_keys() -> None:
    assert key_bias(4, 300).tolist() == pytest.approx([5.703782, 0, 0, 0])
    assert key_bias(1, 1).tolist() == [0.0]


@pytest.mark.parametrize("l2_norm", [True, False])
@pytest.mark.parametrize("images", [1, 3])
def test_one_key_with_log_t_is_t_equal_keys(tmp_path: Path, l2_norm: bool, images: int) -> None:
    attention = tiny_model(tmp_path, 6, llm={"attn_l2_norm": l2_norm}).transformer.blocks[0].attn
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    x, angles = draw(2 * images, 4, 32), visual_rotary(draw(4, 2), draw(2 * images, 1), 16)
    past, null_visual, null = ([draw(images, 2, n, 16) for _ in range(2)] for n in (7, 3, 1))
    null_past = [torch.cat(pair, 2) for pair in zip(null, null_visual, strict=True)]
    rows = [to_rows(part) for part in (*past, *null_past)]
    repeated = [torch.cat([one.expand(-1, -1, 300, -1), part], 2) for one, part in zip(null, null_visual, strict=True)]
    with torch.no_grad():
        found, new = attend_branches(attention, x, *angles, rows, images, key_bias(8, 300))
        for half, own in ((slice(images), past), (slice(images, None), repeated)):
            expected, kept = attention(x[half], *(part[half] for part in angles), own, None)
            assert largest(found[half], expected) <= 1e-5
        without, _ = attend_branches(attention, x, *angles, rows, images, key_bias(8, 1))
    assert torch.equal(without[:images], found[:images]) and largest(without[images:], found[images:]) > 0.01
    assert [part.shape for part in new] == [(4, images, 2, 16)] * 4
    assert torch.equal(new[2], to_rows(kept[0][:, :, 303:]))


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("context_tokens", "images"), [(2, 3), (17, 1)])
def test_the_loop_of_the_graphs_is_the_plain_loop(
    tmp_path: Path, flavour: str, context_tokens: int, images: int
) -> None:
    model = tiny_model(tmp_path, 7, llm=FLAVOURS[flavour] | {"context_token": context_tokens})
    inputs, seeds = tiny_inputs(model, (2, 1, 2)[:images]), [21, 22, 23][:images]
    drawn = []

    def observe(graph: str, _: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        if graph == "tokens":
            drawn.append({name: torch.from_numpy(array) for name, array in outputs.items()})

    image = walk_plan(model, inputs, seeds, SMOOTH, observe)
    results, expected = run_reference(model, inputs, seeds, SMOOTH)
    for result, tokens in zip(results, drawn, strict=True):
        assert torch.equal(tokens["indices"], result.indices)
        assert largest(tokens["logits"], result.logits) <= 1e-3
    assert largest(image, expected) <= 5e-4  # guidance amplifies rounding in every denoising step
