"""Training steps against those of sae-lens's own trainer, and a training taken up again."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load, save

from vitlens.errors import SAEError
from vitlens.saes._sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    SAETrainer,
    SAETrainerConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
)
from vitlens.saes.lean import LeanStandardTrainingSAE
from vitlens.saes.sparse import SparseBatchTopKTrainingSAE
from vitlens.saes.trainer import Trainer

D_IN, D_SAE, N, SCALE, N_STEPS, WINDOW_STEPS = 24, 192, 128, 0.5, 20, 3


def widths(**settings):
    return {"d_in": D_IN, "d_sae": D_SAE, **settings}


def batch_topk():
    return BatchTopKTrainingSAEConfig(**widths(k=2))


def vanilla():
    return StandardTrainingSAEConfig(**widths(l1_coefficient=0.5, l1_warm_up_steps=5))


def others():
    """Training classes of sae-lens that are taken as they are."""
    import sae_lens

    return {
        "topk": lambda: sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(**widths(k=2))),
        "sparse topk": lambda: sae_lens.TopKTrainingSAE(
            # with the norms, sae-lens 6.54 has no gradient for sparse codes
            sae_lens.TopKTrainingSAEConfig(
                **widths(k=2, use_sparse_activations=True, rescale_acts_by_decoder_norm=False)
            )
        ),
        "jumprelu": lambda: sae_lens.JumpReLUTrainingSAE(
            sae_lens.JumpReLUTrainingSAEConfig(**widths(l0_coefficient=0.1, l0_warm_up_steps=5))
        ),
        "matryoshka": lambda: sae_lens.MatryoshkaBatchTopKTrainingSAE(
            sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(**widths(k=2, matryoshka_widths=[64, D_SAE]))
        ),
    }


OURS = {
    "batch_topk": lambda: SparseBatchTopKTrainingSAE(batch_topk()),
    "vanilla": lambda: LeanStandardTrainingSAE(vanilla()),
}
THEIRS = {
    "batch_topk": lambda: BatchTopKTrainingSAE(batch_topk()),
    "vanilla": lambda: StandardTrainingSAE(vanilla()),
}
KINDS = [*OURS, "topk", "sparse topk", "jumprelu", "matryoshka"]


def new_sae(kind: str, makers=OURS):
    """An untrained SAE, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (makers | others() if kind not in makers else makers)[kind]()


def config() -> SAETrainerConfig:
    return SAETrainerConfig(
        total_training_samples=N_STEPS * N,
        train_batch_size_samples=N,
        lr=3e-3,
        lr_end=3e-3,
        lr_warm_up_steps=4,
        lr_decay_steps=6,
        dead_feature_window=WINDOW_STEPS,
    )


def trainer(kind: str) -> Trainer:
    # sae-lens calls a latent dead after more than so many steps
    return Trainer(config(), new_sae(kind), scale=SCALE, dead_window_tokens=(WINDOW_STEPS + 1) * N)


@pytest.fixture(scope="module")
def batches() -> torch.Tensor:
    return 3 * torch.randn(N_STEPS, N, D_IN, generator=torch.Generator().manual_seed(1)) + 1


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # by sae-lens's sparse TopK
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_sae_lens(kind, batches):
    theirs = SAETrainer(config(), new_sae(kind, THEIRS), data_provider=iter(()))
    theirs.activation_scaler.scaling_factor = SCALE
    ours = trainer(kind)
    n_dead = []
    for batch in batches:
        assert torch.equal(ours.dead_neurons, theirs.dead_neurons)
        n_dead.append(int(ours.dead_neurons.sum()))
        one, other = theirs.step(batch), ours.step(batch)
        theirs.n_training_steps += 1
        torch.testing.assert_close(other.loss, one.loss, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.sae_in, one.sae_in)
        n_active = int((one.feature_acts.detach().to_dense() != 0).sum())
        assert other.metrics["l0"] == pytest.approx(n_active / N)
    assert (ours.n_training_steps, ours.n_training_samples) == (N_STEPS, N_STEPS * N)
    assert kind in ("vanilla", "jumprelu") or max(n_dead) > D_IN // 2  # the auxiliary loss was at work
    for name, tensor in theirs.sae.state_dict().items():
        torch.testing.assert_close(ours.sae.state_dict()[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("n_steps", [0, 3, 9, 17])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_taken_up_again_ends_with_the_same_weights(kind, n_steps, batches):
    unbroken = trainer(kind)
    for batch in batches[:n_steps]:
        unbroken.step(batch)
    state = unbroken.state()
    written = save(state)
    losses = [unbroken.step(batch).loss.detach() for batch in batches[n_steps:]]

    assert save(state) == written  # a copy: later steps do not change it
    resumed = trainer(kind)
    for batch in batches[: 2 * (n_steps == 3)]:  # also one that has gone another way
        resumed.step(batch)
    resumed.load_state(load(written))
    for batch, loss in zip(batches[n_steps:], losses, strict=True):
        assert torch.equal(resumed.step(batch).loss, loss)
    ended, again = unbroken.state(), resumed.state()
    assert ended.keys() == again.keys()
    for name, tensor in ended.items():
        assert torch.equal(again[name], tensor), name


def test_a_loaded_state_stays_as_it_was(batches):
    first = trainer("batch_topk")
    first.step(batches[0])
    state = first.state()
    written = save(state)
    second = trainer("batch_topk")
    second.load_state(state)
    second.step(batches[1])
    assert save(state) == written


def test_dead_is_counted_in_tokens(batches):
    sae = new_sae("batch_topk")
    with torch.no_grad():
        sae.b_enc[:5] = -1e3  # these never fire
    counting = Trainer(config(), sae, scale=1.0, dead_window_tokens=100)
    n_tokens = 0
    for size in (64, 35, 1, 20):
        counting.step(batches[0, :size])
        n_tokens += size
        assert bool(counting.dead_neurons[:5].all()) == (n_tokens >= 100)
        assert int(counting.n_tokens_since_fired[:5].unique()) == n_tokens
    assert not counting.dead_neurons.all()


def test_steps_draw_no_random_numbers(batches):
    before = torch.get_rng_state()
    training = trainer("batch_topk")
    training.step(batches[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_of_another_training_is_refused(batches):
    training = trainer("batch_topk")
    training.step(batches[0])
    state = training.state()
    before = save(state)
    for wrong, named in (
        (trainer("vanilla").state(), ".*sae.topk_threshold"),
        (state | {"sae.W_enc": torch.zeros(2, 2)}, "sae.W_enc"),
        ({name: tensor for name, tensor in state.items() if name != "adam.b_dec.step"}, "adam.b_dec.step"),
        ({name: tensor for name, tensor in state.items() if name != "progress"}, "progress"),
    ):
        with pytest.raises(SAEError, match=f"does not fit this training, in {named}"):
            training.load_state(copy.copy(wrong))
    assert save(training.state()) == before
