"""One pass for all analyses; rows that depend on nothing but the image, the condition and the seed."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from small import items
from small import model as model_of_32

import vitlens as vl

ANALYSES = [vl.Prediction(), vl.LogitLens(), vl.AttentionEntropy()]


@pytest.fixture
def model(small_timm):
    return vl.HookedViT(small_timm)


def same(a, b):
    xr.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(batch_size=st.integers(1, 9), order=st.permutations(range(7)))
def test_rows_are_invariant_to_batch_size_and_order(batch_size, order):
    torch.manual_seed(0)
    import timm

    model = vl.HookedViT(
        timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=10
        )
    )
    dataset = items(7)
    conditions = ["clean", "gaussian_noise@3"]
    wanted = vl.run(model, dataset, ANALYSES, conditions=conditions, batch_size=7, progress=False)
    shuffled = [dataset[index] for index in order]
    got = vl.run(model, shuffled, ANALYSES, conditions=conditions, batch_size=batch_size, progress=False)
    same(got.sel(image=wanted["image"]), wanted)


def test_a_generator_is_read_once_for_all_conditions(model):
    wanted = vl.run(model, items(5), ANALYSES, conditions=["clean", "contrast@2"], progress=False)
    got = vl.run(
        model, iter(items(5)), ANALYSES, conditions=["clean", "contrast@2"], batch_size=2, progress=False
    )
    same(got, wanted)


def test_workers_give_what_loading_in_between_gives(model):
    dataset = items(7)
    settings = {"conditions": ["clean", "gaussian_noise@2"], "batch_size": 2, "progress": False}
    wanted = vl.run(model, dataset, ANALYSES, **settings)
    xr.testing.assert_identical(vl.run(model, dataset, ANALYSES, num_workers=2, **settings), wanted)


def test_the_model_is_left_as_it_was(model):
    model.model.train()
    model.model.blocks[1].eval()
    modes = [module.training for module in model.model.modules()]
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    vl.run(model, items(3), ANALYSES, progress=False)
    assert [module.training for module in model.model.modules()] == modes
    assert not any(point.listens() for point in model.hook_dict.values())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_dropout_is_off_while_measuring(small_timm):
    for module in small_timm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    model = vl.HookedViT(small_timm.train())
    same(*(vl.run(model, items(3), [vl.Prediction()], progress=False) for _ in range(2)))


def test_one_forward_pass_serves_all_analyses(model):
    passes = []
    model.model.patch_embed.register_forward_hook(lambda *_: passes.append(1))
    vl.run(model, items(6), ANALYSES, conditions=["clean", "contrast@1"], batch_size=3, progress=False)
    assert len(passes) == 4  # two batches, two conditions


def test_checkpoints_are_measured_in_step_on_the_same_pixels(model):
    seen = []
    condition = {"mine": lambda pixels: seen.append(pixels.clone()) or pixels * 0.5}
    data = vl.run({"a": model, "b": model}, items(4), ANALYSES, conditions=[condition], progress=False)
    assert len(seen) == 1
    same(data.sel(checkpoint="a", drop=True), data.sel(checkpoint="b", drop=True))
    assert data["correct_probability"].dims == ("checkpoint", "condition", "image")


def test_two_analyses_may_reduce_one_hook_differently(model):
    name = "blocks.1.hook_resid_post"

    @dataclass(frozen=True)
    class Reduced:
        variable: str
        reduction: object

        def hooks(self, model):
            return {name: self.reduction}

        def __call__(self, model, cache, logits, batch):
            assert list(cache) == [name]
            return vl.table({self.variable: ((), cache[name].flatten(1).sum(1))})

    mean = Reduced("of_mean", lambda x: x.mean(1))
    whole = Reduced("of_whole", None)
    data = vl.run(model, items(3), [mean, whole], progress=False)
    np.testing.assert_allclose(data["of_whole"], data["of_mean"] * 17, rtol=1e-3)


def test_no_more_than_one_pattern_is_alive(model):
    import gc
    import weakref

    alive = []

    @dataclass(frozen=True)
    class Watch:
        def hooks(self, model):
            return {f"blocks.{layer}.attn.hook_pattern": self.reduce for layer in range(3)}

        def reduce(self, pattern):
            gc.collect()
            alive[:] = [reference for reference in alive if reference() is not None]
            alive.append(weakref.ref(pattern))
            assert len(alive) == 1
            return pattern.sum((1, 2, 3))

        def __call__(self, model, cache, logits, batch):
            return vl.table({"total": ((), sum(cache[name] for name in cache))})

    vl.run(model, items(2), [Watch(), vl.AttentionEntropy()], progress=False)
    assert alive


def returns(variables):
    class Odd:
        def hooks(self, model):
            return {}

        def __call__(self, model, cache, logits, batch):
            return variables(logits)

    return Odd()


@pytest.mark.parametrize(
    ("analysis", "message"),
    [
        (returns(lambda logits: {"x": 1}), "Odd returned dict"),
        (
            returns(lambda logits: xr.Dataset({"x": ("layer", [1, 2, 3])})),
            r"'x' with axes {'layer': 3} for a batch of 3",
        ),
        (returns(lambda logits: xr.Dataset({"x": ("image", [1.0])})), "'image' first, with 3 rows"),
        (
            returns(lambda logits: xr.Dataset({"x": logits.mean().item()})),
            "An analysis gives values per image",
        ),
    ],
)
def test_an_analysis_that_breaks_the_protocol_is_named(model, analysis, message):
    with pytest.raises(vl.errors.AnalysisError, match=message):
        vl.run(model, items(3), [analysis], progress=False)


def test_two_analyses_with_one_variable_are_refused(model):
    with pytest.raises(vl.errors.AnalysisError, match="Prediction and Prediction both give the variable"):
        vl.run(model, items(2), [vl.Prediction(), vl.Prediction()], progress=False)


def test_an_analysis_that_asks_for_a_hook_the_model_has_not_is_refused_before_any_image_is_read(model):
    class Wants:
        def hooks(self, model):
            return {"blocks.9.hook_resid_post": None}

        def __call__(self, model, cache, logits, batch):
            raise AssertionError("a batch was measured")

    def never():
        raise AssertionError("an image was read")
        yield

    with pytest.raises(
        vl.errors.AnalysisError, match=r"Wants needs 'blocks.9.hook_resid_post'.*nearest: 'blocks"
    ):
        vl.run(model, never(), [Wants()], progress=False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"label": 10}, vl.errors.LabelError, "10"),
        ({"label": -1}, vl.errors.LabelError, "-1"),
        ({"pixels": torch.full((3, 32, 32), 1.5)}, vl.errors.PixelError, "image 2"),
        ({"pixels": torch.full((3, 32, 32), torch.nan)}, vl.errors.PixelError, "image 2"),
        ({"pixels": torch.zeros(3, 40, 40)}, vl.errors.PixelError, "40"),
        ({"pixels": torch.zeros(3, 32, 32, dtype=torch.uint8)}, vl.errors.PixelError, "uint8"),
        ({"image_id": "image 0"}, vl.errors.DatasetError, "image 0"),
    ],
)
def test_a_bad_item_is_named(model, change, error, message):
    dataset = items(4)
    dataset[2] = dataset[2] | change
    with pytest.raises(error, match=message):
        vl.run(model, dataset, [vl.Prediction()], progress=False)


def test_images_of_another_size_than_the_models_are_refused(model):
    with pytest.raises(vl.errors.PixelError, match=r"image 0.*64 × 64 pixels.*32 × 32"):
        vl.run(model, items(2, size=64), [vl.Prediction()], progress=False)


def test_an_empty_data_set_is_refused(model):
    with pytest.raises(vl.errors.DatasetError, match="no image"):
        vl.run(model, [], [vl.Prediction()], progress=False)


def test_an_unknown_condition_is_refused_before_any_image_is_read(model):
    def never():
        raise AssertionError("an image was read")
        yield

    with pytest.raises(vl.errors.ConditionError, match="gaussian_blur"):
        vl.run(model, never(), [vl.Prediction()], conditions=["gausian_blur@3"], progress=False)


def test_activations_are_tokens_in_order(model):
    dataset = items(5)
    rows = vl.activations(model, dataset, "blocks.1.hook_resid_post", batch_size=2, progress=False)
    images = model.normalize(torch.stack([item["pixels"] for item in dataset]))
    with torch.no_grad():
        _, cache = model.run_with_cache(images, names_filter="blocks.1.hook_resid_post")
    torch.testing.assert_close(rows, cache["resid_post", 1][:, 1:].flatten(0, 1))
    assert vl.activations(model, dataset, "hook_embed", tokens="cls", progress=False).shape == (5, 32)
    assert vl.activations(model, dataset, "hook_embed", tokens="all", progress=False).shape == (85, 32)
    with pytest.raises(vl.errors.ArchitectureError, match="no 'register' token"):
        vl.activations(model, dataset, "hook_embed", tokens="register", progress=False)
    with pytest.raises(vl.errors.AnalysisError, match=r"Expected: an activation of \[batch, pos, d_in\]"):
        vl.activations(model, dataset, "blocks.0.attn.hook_q", progress=False)


def test_models_that_normalize_differently_are_noticed():
    other = vl.HookedViT(model_of_32().model, data_config={"mean": (0.1, 0.2, 0.3)})
    models = {"base": model_of_32(), "tuned": other}
    with pytest.warns(UserWarning, match=r"'base' and 'tuned' normalize .*0\.485, 0\.456.*0\.1, 0\.2, 0\.3"):
        vl.run(models, items(2), [vl.Prediction()], progress=False)
    vl.run({"base": other, "tuned": other}, items(2), [vl.Prediction()], progress=False)


@pytest.mark.parametrize(
    ("variables", "coords", "said"),
    [
        ({"x": (("part",), torch.zeros(3))}, {}, r"x is \(3,\), with the dims image, part"),
        ({"x": ((), torch.tensor(0.5))}, {}, r"x is \(\), with the dims image"),
        ({"x": (("part",), torch.zeros(3, 2))}, {"part": [0, 1, 2]}, r"x has 2 values along part.* are 3"),
        ({"x": ((), torch.zeros(3)), "y": ((), torch.zeros(4))}, {}, "y has 4 values along image"),
    ],
)
def test_a_table_whose_axes_do_not_fit_says_which(variables, coords, said):
    with pytest.raises(vl.errors.AnalysisError, match=said):
        vl.table(variables, **coords)
