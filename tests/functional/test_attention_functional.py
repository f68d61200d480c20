"""The pure functions of attention: identities, brute force, and the papers' own recurrences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from vitlens.functional import artifacts, attention, rollout

grids = st.tuples(st.integers(1, 5), st.integers(1, 5))


def patterns(*shape, seed=0, temperature=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (temperature * torch.randn(*shape, generator=generator)).softmax(-1)


# ------------------------------------------------------------------ entropy


@pytest.mark.parametrize("n_pos", [7, 197])
def test_entropy_is_that_of_float64_to_one_part_in_a_hundred_thousand(n_pos):
    pattern = patterns(5, 6, n_pos, n_pos, temperature=4.0)
    wanted = torch.special.entr(pattern.double()).sum(-1)
    torch.testing.assert_close(attention.attention_entropy(pattern).double(), wanted, atol=1e-7, rtol=1e-5)


def test_entropy_is_never_negative_and_underflown_weights_count_as_zero():
    pattern = torch.tensor([[1.0, 0.0, 1e-45], [0.5, 0.5, 0.0]])
    entropy = attention.attention_entropy(pattern)
    assert (entropy >= 0).all()
    torch.testing.assert_close(entropy, torch.tensor([0.0, math.log(2)]))


def test_entropy_of_a_part_of_the_images_is_a_part_of_the_entropies():
    pattern = patterns(9, 3, 197, 197)  # more than one piece
    entropy = attention.attention_entropy(pattern)
    assert torch.equal(attention.attention_entropy(pattern[4:6]), entropy[4:6])
    assert attention.attention_entropy(pattern[:0]).shape == (0, 3, 197)


def test_entropy_has_a_gradient_and_leaves_the_pattern_alone():
    pattern = patterns(2, 4, 6).requires_grad_()
    before = pattern.detach().clone()
    attention.attention_entropy(pattern).sum().backward()
    assert torch.equal(pattern, before)
    torch.testing.assert_close(pattern.grad, -before.log() - 1)


def test_a_pattern_with_nan_has_entropy_nan():
    assert attention.attention_entropy(torch.full((2, 3), torch.nan)).isnan().all()


# ------------------------------------------------------------------ distance


@given(grids, st.sampled_from([(1, 1), (16, 16), (8.0, 14.0)]))
def test_distances_are_euclidean_between_centers(grid, spacing):
    centers = np.array([(r * spacing[0], c * spacing[1]) for r in range(grid[0]) for c in range(grid[1])])
    np.testing.assert_allclose(
        attention.patch_distances(grid, spacing), cdist(centers, centers), rtol=1e-6, atol=1e-6
    )


@given(grids)
def test_uniform_attention_has_the_mean_distance_of_the_grid(grid):
    n = grid[0] * grid[1]
    distances = attention.patch_distances(grid)
    got = attention.attention_distance(torch.full((2, 3, n, n), 1 / n), distances)
    torch.testing.assert_close(got, distances.mean().expand(2, 3))


def test_attention_of_each_patch_to_itself_has_distance_zero():
    assert attention.attention_distance(torch.eye(6), attention.patch_distances((2, 3))) == 0


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_distance_does_not_depend_on_how_much_goes_to_prefix_tokens(seed, factor):
    pattern, distances = patterns(2, 6, 6, seed=seed), attention.patch_distances((2, 3))
    scale = torch.rand(2, 6, 1, generator=torch.Generator().manual_seed(seed)) + factor
    torch.testing.assert_close(
        attention.attention_distance(pattern * scale, distances),
        attention.attention_distance(pattern, distances),
    )


def test_a_query_that_attends_to_no_patch_is_left_out():
    pattern = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    distances = attention.patch_distances((1, 3))
    assert attention.attention_distance(pattern, distances) == (0.5 + 2) / 2
    assert attention.attention_distance(torch.zeros(3, 3), distances).isnan()


# ------------------------------------------------------------------ rollout


def plain_rollout(fused):
    """The paper's recurrence, from the first layer on, whole matrices in float64."""
    result = torch.eye(fused[0].shape[-1], dtype=torch.float64)
    for layer in fused:
        mixed = 0.5 * layer.double() + 0.5 * torch.eye(layer.shape[-1], dtype=torch.float64)
        result = (mixed / mixed.sum(-1, keepdim=True)) @ result
    return result


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.sampled_from(["mean", "max", "min"]), st.integers(0, 99))
def test_rollout_is_the_product_in_layer_order(n_layers, fusion, seed):
    fused = [rollout.fuse_heads(p, fusion) for p in patterns(n_layers, 2, 3, 5, 5, seed=seed)]
    wanted = plain_rollout(fused)
    torch.testing.assert_close(
        rollout.attention_rollout(fused).double(), wanted.expand(2, 5, 5), atol=1e-6, rtol=1e-5
    )
    readers = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(
        rollout.attention_rollout(fused, readers).double(), readers.double() @ wanted, atol=1e-6, rtol=1e-5
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(0, 99))
def test_rows_of_a_rollout_sum_to_one(n_layers, seed):
    rolled = rollout.attention_rollout(list(patterns(n_layers, 2, 6, 6, seed=seed)))
    torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 6))


def test_attention_to_oneself_rolls_out_to_the_identity():
    torch.testing.assert_close(rollout.attention_rollout([torch.eye(4)] * 3), torch.eye(4))


def test_mean_fusion_of_half_precision_is_taken_in_float32():
    pattern = patterns(64, 3, 3).bfloat16()
    fused = rollout.fuse_heads(pattern)
    assert fused.dtype == torch.float32
    torch.testing.assert_close(fused, pattern.float().mean(0))


@settings(deadline=None)
@given(st.floats(0, 0.99), st.integers(0, 99))
def test_discarding_takes_the_smallest_weights_of_each_image_and_spares_the_kept_column(ratio, seed):
    fused = patterns(3, 4, 5, seed=seed)
    got = rollout.discard_smallest(fused, ratio, [0])
    assert torch.equal(got[..., 0], fused[..., 0])
    n_discarded = int(ratio * 4 * 4)
    for before, after in zip(fused[..., 1:].flatten(1), got[..., 1:].flatten(1), strict=True):
        wanted = before.clone()
        wanted[before.argsort()[:n_discarded]] = 0
        assert torch.equal(after, wanted)


def test_the_products_are_float32_also_where_the_model_runs_in_mixed_precision():
    fused = list(patterns(4, 8, 8))
    plain = rollout.attention_rollout(fused), rollout.gradient_rollout(fused)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = rollout.attention_rollout(fused), rollout.gradient_rollout(fused)
    assert torch.equal(plain[0], mixed[0])
    assert torch.equal(plain[1], mixed[1])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(0, 99))
def test_gradient_rollout_is_the_papers_recurrence_less_the_identity(n_layers, seed):
    pattern = patterns(n_layers, 2, 3, 5, 5, seed=seed)
    gradient = torch.randn(pattern.shape, generator=torch.Generator().manual_seed(seed))
    result = torch.eye(5, dtype=torch.float64).expand(2, 5, 5)
    for weights, slope in zip(pattern.double(), gradient.double(), strict=True):
        result = result + (weights * slope).clamp(min=0).mean(1) @ result
    relevances = [rollout.attention_relevance(*pair) for pair in zip(pattern, gradient, strict=True)]
    got = rollout.gradient_rollout(relevances)
    torch.testing.assert_close(got.double(), result - torch.eye(5, dtype=torch.float64), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rollout.gradient_rollout(relevances, torch.eye(5)[:1]), got[:, :1])


def test_without_gradients_nothing_is_relevant():
    zeros = torch.zeros(2, 3, 4, 4)
    relevance = rollout.attention_relevance(patterns(2, 3, 4, 4), zeros)
    assert not rollout.gradient_rollout([relevance] * 2).any()


# ------------------------------------------------------------------ artifacts


@given(st.floats(1e-3, 1e3), st.integers(0, 6))
def test_planted_artifacts_are_found_whatever_the_scale_of_the_norms(scale, n_planted):
    norms = 1 + torch.rand(16, generator=torch.Generator().manual_seed(0))
    norms[:n_planted] = 10.0
    found = artifacts.artifact_tokens(scale * norms)
    assert found.tolist() == [index < n_planted for index in range(16)]


def test_a_given_threshold_is_the_same_for_all_images():
    norms = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert artifacts.artifact_tokens(norms, 3.5).tolist() == [[False] * 3, [True] * 3]
