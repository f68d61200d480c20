"""A gallery shows the right images with the right codes in the right places."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vitlens as vl
from vitlens.errors import ArchitectureError, ConditionError, DatasetError, SAEError
from vitlens.images import WhiteBox
from vitlens.saes.gallery import gallery, pair_gallery
from vitlens.saes.growing_histogram import GrowingHistogram
from vitlens.saes.top_images import class_table, middle_half, wilson_low
from vitlens.testing import randomize

from .conftest import make_sae

HOOK = "blocks.1.hook_resid_post"
D_SAE = 12


def items(n, size=(32, 32), n_classes=3):
    generator = torch.Generator().manual_seed(3)
    return [
        {
            "pixels": torch.rand(3, *size, generator=generator),
            "label": i % n_classes,
            "image_id": f"image {i}",
        }
        for i in range(n)
    ]


def vit(seed=0, **settings):
    made = timm.models.VisionTransformer(
        **{"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 10}
        | settings
    )
    return vl.HookedViT(randomize(made, seed=seed))


def sae_for(tokens="patch", seed=0, threshold=2.0):
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(D_SAE, 16, generator=generator)
    return make_sae(
        decoder / decoder.norm(dim=1, keepdim=True), threshold=threshold, hook_name=HOOK, tokens=tokens
    )


def all_codes(sae, model, images, tokens):
    """[image token feature], by the model's own cache."""
    pixels = torch.stack([item["pixels"] for item in images])
    with torch.no_grad():
        _, cache = model.run_with_cache(model.normalize(pixels), names_filter=HOOK)
        return sae.encode(cache[HOOK][:, model.cfg.positions(tokens)]).numpy()


@pytest.fixture(scope="module")
def model():
    return vit()


def show(sae, model, images, features, **options):
    return gallery(sae, model, images, features, progress=False, **options)


@pytest.mark.parametrize("tokens", ["patch", "all", "cls"])
def test_images_and_values_are_those_of_a_look_at_all_codes(model, tokens):
    images, sae = items(23), sae_for(tokens)
    codes = all_codes(sae, model, images, tokens)
    shown = show(sae, model, images, range(D_SAE), n_top_images=5, n_middle_images=0, batch_size=4)
    for exhibit, of_feature in zip(shown.exhibits, np.moveaxis(codes, 2, 0), strict=True):
        largest = of_feature.max(axis=1)
        order = [i for i in np.argsort(-largest, kind="stable") if largest[i] > 0][:5]
        assert [image.image_id for image in exhibit.images] == [f"image {i}" for i in order]
        (profile,) = exhibit.features
        assert sum(profile.n_active_tokens.values()) == (of_feature > 0).sum() == profile.counts.sum()
        assert sum(profile.n_tokens.values()) == of_feature.size
        assert profile.n_active_images == (largest > 0).sum()
        assert profile.largest == pytest.approx(largest.max(), rel=1e-5)
        for i, image in zip(order, exhibit.images, strict=True):
            np.testing.assert_allclose(image.activation, [largest[i]], rtol=1e-5)
            np.testing.assert_array_equal(
                image.pixels, (images[i]["pixels"].permute(1, 2, 0) * 255).round().byte().numpy()
            )
            n_prefix = {"patch": 0, "all": 1, "cls": 1}[tokens]
            np.testing.assert_allclose(image.prefix, of_feature[i][None, :n_prefix], rtol=1e-5)
            if tokens == "cls":
                assert image.heat is None
            else:
                expected = of_feature[i][n_prefix:].reshape(1, 4, 4)
                np.testing.assert_allclose(image.heat, expected, rtol=1e-5, atol=1e-6)


def test_an_active_feature_is_there_to_be_tested(model):
    codes = all_codes(sae_for(), model, items(23), "patch")
    assert ((codes > 0).any(axis=(0, 1))).sum() > D_SAE / 2


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 3), (2, 1)])
def test_heat_stands_on_the_one_patch_that_differs(row, column):
    model = vit(img_size=(24, 32))
    pixels = torch.full((3, 24, 32), 0.2)
    marked = pixels.clone()
    marked[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1.0
    images = [
        {"pixels": each, "label": 0, "image_id": name}
        for name, each in (("plain", pixels), ("marked", marked))
    ]
    hook = "hook_embed"  # before attention and positions: a patch sees itself alone
    with torch.no_grad():
        _, cache = model.run_with_cache(model.normalize(torch.stack([pixels, marked])), names_filter=hook)
        direction = (cache[hook][1] - cache[hook][0])[1 + 4 * row + column]
        direction = direction / direction.norm()
        middle = (cache[hook][:, 1 + 4 * row + column] @ direction).mean()
    sae = make_sae(direction[None], threshold=float(middle), hook_name=hook, tokens="patch")
    (exhibit,) = show(sae, model, images, [0], batch_size=1).exhibits
    (image,) = exhibit.images
    assert image.image_id == "marked"
    assert image.heat.shape == (1, 3, 4)
    assert np.argwhere(image.heat[0] > 0).tolist() == [[row, column]]
    assert image.pixels[8 * row, 8 * column].tolist() == [255, 51, 51]
    table = show(sae, model, images, [0]).table()
    assert table[["patch_row", "patch_column"]].values.tolist() == [[row, column]]


def same(a, b):
    pd.testing.assert_frame_equal(a.table(), b.table(), rtol=1e-5)
    for one, other in zip(a.exhibits, b.exhibits, strict=True):
        for left, right in zip(one.features, other.features, strict=True):
            np.testing.assert_array_equal(left.counts, right.counts)
            np.testing.assert_array_equal(left.edges, right.edges)
            pd.testing.assert_frame_equal(left.classes, right.classes, rtol=1e-5)


def test_neither_batch_size_nor_the_kind_of_data_set_matters(model):
    images, sae = items(19), sae_for("all")
    whole = show(sae, model, images, [1, 4, 7], batch_size=19)
    same(whole, show(sae, model, images, [1, 4, 7], batch_size=3))
    same(whole, show(sae, model, iter(images), [1, 4, 7], batch_size=5))


def test_of_equal_images_the_first_are_shown(model):
    image = items(1)[0]
    images = [{**image, "image_id": f"copy {i}"} for i in range(7)]
    sae = sae_for(threshold=0.0)
    (exhibit,) = show(sae, model, images, [0], n_top_images=3, n_middle_images=0, batch_size=2).exhibits
    assert [each.image_id for each in exhibit.images] == ["copy 0", "copy 1", "copy 2"]


def test_images_of_the_middle_lie_between_the_quartiles_and_hang_on_the_seed(model):
    images, sae = items(60), sae_for(threshold=0.5)
    largest = all_codes(sae, model, images, "patch").max(axis=1)
    drawn = {}
    for seed in (0, 1):
        shown = show(sae, model, images, range(D_SAE), n_top_images=4, n_middle_images=3, seed=seed)
        for number, exhibit in enumerate(shown.exhibits):
            allowed = {f"image {i}" for i in middle_half(largest[:, number])}
            picked = [image.image_id for image in exhibit.images if image.picked == "middle"]
            assert set(picked) <= allowed
            n_active = int((largest[:, number] > 0).sum())
            assert len(picked) == 3 or n_active < 12
            drawn[seed, number] = picked
    assert any(drawn[0, number] != drawn[1, number] for number in range(D_SAE))


def test_a_feature_that_is_never_active_is_said_to_be_so(model):
    shown = show(sae_for(threshold=1e6), model, items(5), [3])
    (exhibit,) = shown.exhibits
    (profile,) = exhibit.features
    assert exhibit.images == ()
    assert (profile.n_active_images, profile.largest, len(profile.counts), len(profile.classes)) == (
        0,
        0,
        0,
        0,
    )
    assert len(shown.table()) == 0


def test_classes_are_those_of_a_count_by_hand(model):
    images, sae = items(30, n_classes=3), sae_for(threshold=2.5)
    codes = all_codes(sae, model, images, "patch")
    for number, exhibit in enumerate(show(sae, model, images, range(D_SAE)).exhibits):
        active = codes[..., number].max(axis=1) > 0
        rows = exhibit.features[0].classes.set_index("label")
        for label in range(3):
            own = active[label::3]
            if not own.any():
                assert label not in rows.index
                continue
            assert rows.loc[label, "n_images"] == 10
            assert rows.loc[label, "n_active_images"] == own.sum()
            assert rows.loc[label, "lift"] == pytest.approx(own.mean() / active.mean())
            mean = codes[label::3, :, number].mean()
            assert rows.loc[label, "mean_activation"] == pytest.approx(mean, rel=1e-5)


def test_a_class_seen_once_does_not_stand_above_one_seen_often():
    labels = np.array([0] + [1] * 10 + [2] * 10)
    active = np.array([True] + [True] * 9 + [False] * 11)
    assert class_table(labels, active, active.astype(float))["label"].tolist() == [1, 0]


def test_the_lower_end_of_a_share_is_wilsons():
    from scipy.stats import binomtest

    for k, n in ((0, 4), (3, 7), (10, 10)):
        expected = binomtest(k, n).proportion_ci(method="wilson").low
        assert wilson_low(np.array([k]), np.array([n]))[0] == pytest.approx(expected, abs=1e-6)


@given(
    st.lists(st.lists(st.floats(2.0**-20, 2.0**20, width=32), max_size=8), max_size=6),
)
@settings(deadline=None, max_examples=40)
def test_a_histogram_in_parts_is_that_of_one_look(parts):
    growing, whole = GrowingHistogram(), GrowingHistogram()
    for part in parts:
        growing.add(np.array(part, dtype=np.float32))
    values = np.array([value for part in parts for value in part], dtype=np.float32)
    whole.add(values)
    counts, edges = growing.finish()
    for mine, other in zip(whole.finish(), (counts, edges), strict=True):
        np.testing.assert_array_equal(mine, other)
    if len(values):
        np.testing.assert_array_equal(counts, np.histogram(values.astype(float), bins=edges)[0])
        assert edges[-2] <= values.max() < edges[-1]


def test_a_condition_changes_what_is_shown_and_coded(model):
    images, sae = items(8), sae_for(threshold=0.0)
    dark = {"dark": lambda pixels: pixels / 2}
    (exhibit,) = show(sae, model, images, [2], condition=dark).exhibits
    darkened = [{**item, "pixels": item["pixels"] / 2} for item in images]
    (expected,) = show(sae, model, darkened, [2]).exhibits
    for one, other in zip(exhibit.images, expected.images, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.heat, other.heat)


# ------------------------------------------------------------------ pairs


def pairs_of(*features):
    frame = pd.DataFrame(features, columns=["feature_a", "feature_b"])
    return frame.assign(decoder_cosine=0.5)


def test_a_pair_shows_what_either_would_show_alone_with_both_codes(model):
    images, tuned = items(31), vit(seed=1)
    saes, models = {"base": sae_for("all"), "tuned": sae_for("all", seed=1)}, {"base": model, "tuned": tuned}
    options = {"n_top_images": 4, "n_middle_images": 0, "batch_size": 7, "progress": False}
    shown = pair_gallery(saes, models, images, pairs=pairs_of((0, 5), (3, 3)), **options)
    assert shown.checkpoints == ("base", "tuned")
    alone = [
        gallery(saes["base"], model, images, [0, 3], **options),
        gallery(saes["tuned"], tuned, images, [5, 3], **options),
    ]
    codes = {name: all_codes(saes[name], models[name], images, "all") for name in saes}
    for number, (exhibit, features) in enumerate(zip(shown.exhibits, ((0, 5), (3, 3)), strict=True)):
        own = [{image.image_id for image in each.exhibits[number].images} for each in alone]
        assert {image.image_id for image in exhibit.images} == own[0] | own[1]
        assert exhibit.similarity == {"decoder_cosine": 0.5}
        for image in exhibit.images:
            i = int(image.image_id.split()[1])
            both = np.stack([codes[name][i, :, f] for name, f in zip(saes, features, strict=True)])
            np.testing.assert_allclose(image.activation, both.max(axis=1), rtol=1e-5)
            np.testing.assert_allclose(image.heat.reshape(2, -1), both[:, 1:], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(image.prefix, both[:, :1], rtol=1e-5, atol=1e-6)
        for at, each in enumerate(alone):
            np.testing.assert_array_equal(
                exhibit.features[at].counts, each.exhibits[number].features[0].counts
            )


def test_what_is_no_pair_is_refused(model):
    sae, images = sae_for(), items(3)
    one, both = {"base": sae}, {"base": sae, "tuned": sae}
    models = {"base": model, "tuned": model}
    with pytest.raises(SAEError, match=r"The SAEs are of \['base'\], the models \['base', 'tuned'\]"):
        pair_gallery(one, models, images, pairs=pairs_of((0, 0)))
    with pytest.raises(SAEError, match="pairs has no column 'feature_b'"):
        pair_gallery(both, models, images, pairs=pd.DataFrame({"feature_a": [0]}))
    with pytest.raises(SAEError, match="feature_b of pairs holds 99"):
        pair_gallery(both, models, images, pairs=pairs_of((0, 99)))
    with pytest.raises(SAEError, match="pairs holds a pair twice"):
        pair_gallery(both, models, images, pairs=pairs_of((0, 1), (0, 1)))
    with pytest.raises(SAEError, match="The SAEs read different tokens"):
        pair_gallery({"base": sae, "tuned": sae_for("cls")}, models, images, pairs=pairs_of((0, 0)))
    with pytest.raises(ArchitectureError, match="of different architectures"):
        pair_gallery(both, {"base": model, "tuned": vit(depth=3)}, images, pairs=pairs_of((0, 0)))
    own = {"attack": WhiteBox(lambda model, pixels, labels: pixels)}
    with pytest.raises(ConditionError, match="'attack' each checkpoint sees pixels of its own"):
        pair_gallery(both, models, images, pairs=pairs_of((0, 0)), condition=own)


# ------------------------------------------------------------------ choice and bad input


def test_features_are_chosen_as_asked(model):
    images, sae = items(20), sae_for(threshold=2.5)
    n_tokens = (all_codes(sae, model, images, "patch") > 0).sum(axis=(0, 1))

    def chosen(choose, n_features=4, seed=0):
        shown = gallery(
            sae, model, images, choose=choose, n_features=n_features, seed=seed, progress=False, batch_size=6
        )
        return [exhibit.features[0].feature for exhibit in shown.exhibits]

    assert chosen("most_active") == np.argsort(-n_tokens, kind="stable")[:4].tolist()
    drawn = chosen("random")
    assert drawn == sorted(drawn)
    assert all(n_tokens[feature] > 0 for feature in drawn)
    assert any(chosen("random", seed=seed) != drawn for seed in (1, 2, 3))
    assert set(chosen("random", n_features=99)) == set(np.flatnonzero(n_tokens).tolist())


def test_the_feature_that_tells_a_class_is_found():
    model = vit()
    generator = torch.Generator().manual_seed(0)
    images = items(40, n_classes=4)
    for item in images:
        item["pixels"] = 0.3 * torch.rand(3, 32, 32, generator=generator)
        if item["label"] == 2:
            item["pixels"][1] = 1.0
    hook = "hook_embed"
    with torch.no_grad():
        pixels = torch.stack([item["pixels"] for item in images])
        _, cache = model.run_with_cache(model.normalize(pixels), names_filter=hook)
    patches = cache[hook][:, 1:]
    told = patches[2::4].mean(dim=(0, 1)) - patches[0::4].mean(dim=(0, 1))
    decoder = torch.randn(6, 16, generator=generator)
    decoder[4] = told / told.norm()
    cut = float((patches @ decoder[4]).mean())
    sae = make_sae(decoder, threshold=cut, hook_name=hook, tokens="patch")
    shown = gallery(sae, model, images, choose="class_lift", n_features=1, progress=False)
    (profile,) = shown.exhibits[0].features
    assert profile.feature == 4
    assert profile.classes["label"].tolist() == [2]
    assert profile.classes["lift"].tolist() == [4.0]


def test_bad_input_is_refused_with_what_to_do(model, tmp_path):
    sae, images = sae_for(), items(3)
    with pytest.raises(SAEError, match=r"features holds 12\. Expected: at least one feature, from 0 to 11"):
        gallery(sae, model, images, [12])
    with pytest.raises(SAEError, match="features is empty"):
        gallery(sae, model, images, [])
    with pytest.raises(SAEError, match="features holds a feature twice"):
        gallery(sae, model, images, [1, 1])
    with pytest.raises(SAEError, match=r"choose is 'most_activ'.*most_active"):
        gallery(sae, model, images, choose="most_activ")
    with pytest.raises(SAEError, match="used up after one pass"):
        gallery(sae, model, iter(images))
    with pytest.raises(SAEError, match="n_top_images is 0"):
        gallery(sae, model, images, [1], n_top_images=0)
    with pytest.raises(SAEError, match="No feature of the SAE is active on any token"):
        gallery(sae_for(threshold=1e6), model, images, progress=False)
    with pytest.raises(DatasetError, match="has no images"):
        gallery(sae, model, [], [1], progress=False)
    with pytest.raises(SAEError, match="is a folder"):
        show(sae, model, images, [1]).report(tmp_path)


def test_memory_holds_the_pixels_of_what_may_be_shown_alone(model):
    from vitlens.saes.top_images import N_SPARE, Collector

    held = []
    whole = Collector.add

    def counting(self, *given):
        whole(self, *given)
        held.append(len(self._images))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collector, "add", counting)
        show(sae_for(threshold=0.0), model, items(80), [0], n_top_images=2, n_middle_images=1, batch_size=4)
    assert max(held) <= 2 + N_SPARE


def test_the_models_mode_and_the_random_state_are_left_alone(model):
    model.train()
    sae = sae_for()
    state = torch.get_rng_state()
    show(sae, model, items(4), [0])
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
