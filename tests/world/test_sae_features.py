"""What an SAE's features say of the made world's known factors, beside neurons and chance directions."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

import vitlens as vl

LAYER = 2
HOOK = f"blocks.{LAYER}.hook_resid_post"
N_TRAIN, N_TEST = 2000, 800


def auc(scores, is_so):
    """Area under the ROC curve of each column of `scores`, from ranks (Mann and Whitney, 1947)."""
    ranks = rankdata(scores, axis=0)
    n, m = is_so.sum(), (~is_so).sum()
    return (ranks[is_so].sum(axis=0) - n * (n + 1) / 2) / (n * m)


def best(scores, is_so, chosen_on):
    """The best column on one half of the images, by its area on the other half; either sign may tell."""
    areas = auc(scores[chosen_on], is_so[chosen_on])
    column = np.abs(areas - 0.5).argmax()
    area = auc(scores[~chosen_on][:, [column]], is_so[~chosen_on])[0]
    return area if areas[column] > 0.5 else 1 - area


@pytest.fixture(scope="module")
def areas(checkpoints):
    """[way, factor's value]: images' mean activations over patches, the first two of `ways` learnt."""
    base = checkpoints["base"]
    shown = vl.images.textured_shapes("test", n=N_TEST)

    def by_image(rows):
        return rows.reshape(N_TEST, -1, rows.shape[-1]).mean(dim=1).numpy()

    def taken(hook, dataset):
        return vl.activations(base, dataset, hook, progress=False)

    sae = vl.saes.train(
        taken(HOOK, vl.images.textured_shapes("train", n=N_TRAIN)),
        d_sae=256, k_per_token=4, n_tokens=400_000, batch_size=1024, progress=False,
    )  # fmt: skip
    stream = taken(HOOK, shown)
    generator = torch.Generator().manual_seed(0)
    ways = {
        "features": by_image(sae.encode(stream)),
        "stream": by_image(stream),
        "mlp neurons": by_image(taken(f"blocks.{LAYER}.mlp.hook_post", shown)),
        "chance directions": by_image(stream @ torch.randn(stream.shape[1], 256, generator=generator)),
    }
    half = np.arange(N_TEST) % 2 == 0
    values = {
        f"{factor} {value}": np.asarray(shown.factors[factor]) == value
        for factor in ("shape", "texture")
        for value in np.unique(shown.factors[factor])
    }
    assert len(values) == 8
    return {
        way: {name: best(scores, is_so, half) for name, is_so in values.items()}
        for way, scores in ways.items()
    }


def mean(areas, factor=""):
    return np.mean([area for name, area in areas.items() if name.startswith(factor)])


@pytest.mark.parametrize("other", ["stream", "mlp neurons", "chance directions"])
def test_the_best_feature_tells_a_factor_better_than_the_best_neuron(areas, other):
    assert mean(areas["features"]) > mean(areas[other]) + 0.03


@pytest.mark.parametrize("other", ["stream", "mlp neurons", "chance directions"])
def test_of_textures_most_of_all(areas, other):
    assert mean(areas["features"], "texture") > mean(areas[other], "texture") + 0.08
