"""Every hook of every kind of block gives a gradient, and reading leaves gradients right."""

import pytest
import torch
from test_all_names import small

import vitlens as vl

KINDS = {
    "rotary, gated MLP with a norm": "eva02_base_patch14_448",
    "rotary, shared keys and values": "vit_base_patch16_sapiens2",
    "norm after the branch": "vit_base_patch16_rpn_224",
    "rotary, norm after the branch": "eva02_enormous_patch14_clip_224",
    "relative position bias": "beit_base_patch16_224",
    "joint projection": "vit_base_patch16_xp_224",
    "joint projection, differential": "vit_dpwee_patch16_reg1_gap_256",
    "differential": "vit_dwee_patch16_reg1_gap_256",
    "side by side": "vit_small_patch16_18x2_224",
}


@pytest.fixture(params=KINDS, scope="module")
def model(request):
    return vl.HookedViT(vl.testing.randomize(small(KINDS[request.param])))


def test_every_hook_gives_a_gradient(model):
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, point in model.hook_dict.items():
        seen = []
        point.add_hook(lambda grad, hook, seen=seen: seen.append(grad.abs().sum().item()), dir="bwd")
        model(images).square().sum().backward()
        point.remove_hooks("both")
        assert seen, name
        assert seen[0] > 0, name


def test_reading_every_hook_leaves_the_gradients_right(model):
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weight = model.model.patch_embed.proj.weight
    (wanted,) = torch.autograd.grad(model.model(images).square().sum(), weight)
    output, _ = model.run_with_cache(images, names_filter=lambda name: True)
    (got,) = torch.autograd.grad(output.square().sum(), weight)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_the_kinds_cover_every_block_and_attention_that_can_be_opened():
    from vitlens.models.opened import ATTENTIONS, BLOCKS, PARALLEL_BLOCKS, SIDE_BY_SIDE_BLOCKS

    blocks = [small(name).blocks[0] for name in KINDS.values()]
    plain = {"Block", "EvaBlock", "Attention"}  # plain ones have tests of their own
    seen = {type(block).__name__ for block in blocks}
    seen |= {type(block.attn).__name__ for block in blocks if hasattr(block, "attn")}
    known = (*ATTENTIONS, *BLOCKS, *PARALLEL_BLOCKS, *SIDE_BY_SIDE_BLOCKS)
    assert {cls.__name__ for cls in known} - plain <= seen
