r"""Read any activation of a ViT, change it, and see what becomes of the logits.

Without arguments, on scanned digits, with small models that it trains first, in seconds:

    python examples/hooks_and_cache.py

With arguments, on anybody's:

    python examples/hooks_and_cache.py --base base.safetensors --architecture deit_tiny_patch16_224 \
        --data photographs/
"""

# %% [markdown]
# # Hooks and the cache
#
# `HookedViT` wraps a live timm module. It shares the module's parameters, copies nothing, and has a named
# point at every step of the computation: reading there is exact, and what is written there counts.

# %%
import plotly.graph_objects as go
import torch
from common import checkpoint, class_names, flags, images, read, show

import vitlens as vl

options = read(flags("hooks_and_cache", __doc__, n_images=32, checkpoints="one"))
model = checkpoint(options)
dataset = images(options, model)
cfg = model.cfg
print(f"{cfg.n_layers} blocks of {cfg.n_heads} heads, d_model {cfg.d_model}, {len(model.hook_names)} hooks")

# %% [markdown]
# ## The same numbers as timm
#
# Images are what the model takes: pixels in [0, 1] that went through `model.normalize`, the one place that
# knows mean and standard deviation. While no attention pattern is asked for, the logits are timm's to the
# last bit.

# %%
batch = [dataset[i] for i in range(len(dataset))]
pixels = model.normalize(torch.stack([item["pixels"] for item in batch]))
labels = torch.tensor([item["label"] for item in batch])
with torch.inference_mode():
    logits = model(pixels)
    same = torch.equal(logits, model.model(pixels))
print(f"equal to timm's, bit for bit: {same}")

# %% [markdown]
# ## The cache
#
# `run_with_cache` keeps what `names_filter` names, and nothing else. Short names work, as in
# TransformerLens: `cache["pattern", 0]` is `cache["blocks.0.attn.hook_pattern"]`.

# %%
last = cfg.n_layers - 1
with torch.inference_mode():
    _, cache = model.run_with_cache(
        pixels, names_filter=[f"blocks.{last}.hook_resid_post", f"blocks.{last}.attn.hook_pattern"]
    )
for name, activation in cache.items():
    print(name, tuple(activation.shape))
entropy = vl.functional.attention_entropy(cache["pattern", last])[:, :, 0].mean(0)
print("entropy of the class token's attention, by head, in nats:", [round(e, 2) for e in entropy.tolist()])

# %% [markdown]
# ## The parts add up
#
# Every block adds what its attention and its MLP say, after LayerScale where there is one. The parts sum to
# the residual stream, and each part's share of the correct class's logit sums, with the biases, to that
# logit.

# %%
with torch.inference_mode():
    logits, cache = model.run_with_cache(pixels)
    written = cache["resid_pre", last] + cache["attn_out", last]
    print(f"resid_mid is resid_pre + attn_out: {torch.equal(written, cache['resid_mid', last])}")

    parts, names = cache.decompose_resid(return_labels=True)
    shares = cache.logit_attrs(parts, tokens=labels)
    total = shares.sum(0) + cache.logit_constant(labels)
    correct = logits[torch.arange(len(labels)), labels]
print(f"largest error of the summed shares: {(total - correct).abs().max():.1e}")
for name, share in zip(names, shares.mean(1).tolist(), strict=True):
    print(f"  {name:>12} {share:+.2f}")

# %% [markdown]
# ## Writing
#
# A hook's return value takes the activation's place. Here each head in turn is silenced: its `z`, what it
# hands to the output projection, becomes zero for every token. `vl.Ablation` does the same over a whole data
# set, with other values than zero if wanted, and keeps a row an image.

# %%
with torch.inference_mode():
    before = logits.softmax(-1)[torch.arange(len(labels)), labels].mean()
    loss = torch.zeros(cfg.n_layers, cfg.n_heads)
    for layer in range(cfg.n_layers):
        for head in range(cfg.n_heads):

            def silence(z, hook, head=head):
                """Nothing from this head, for any token."""
                z[:, :, head] = 0
                return z

            without = model.run_with_hooks(pixels, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", silence)])
            after = without.softmax(-1)[torch.arange(len(labels)), labels].mean()
            loss[layer, head] = before - after

figure = go.Figure(
    go.Heatmap(z=100 * loss, colorscale="RdBu_r", zmid=0, colorbar_title="points", xgap=2, ygap=2),
    go.Layout(
        title="What silencing a head costs: probability of the correct class",
        xaxis={"title": "head", "dtick": 1},
        yaxis={"title": "layer", "dtick": 1},
        height=380,
        template="plotly_white",
    ),
)
show(figure, "silenced_heads", options)

# %% [markdown]
# ## What was found

# %%
layer, head = divmod(int(loss.argmax()), cfg.n_heads)
name = class_names(dataset)[int(labels[0])]
print(
    f"Mean probability of the correct class on {len(labels)} images: {before:.3f}. Head {head} of layer "
    f"{layer} matters most: without it, {before - loss.max():.3f}. {int((loss.abs() < 0.01).sum())} of "
    f"{loss.numel()} heads change it by less than one point when silenced alone."
)
loudest = names[int(shares[:, 0].argmax())]
print(f"On the first image ({name}) the part that says the class loudest is {loudest}.")
