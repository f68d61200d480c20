r"""How widely and how far do heads look, and which heads did fine-tuning change?

Without arguments, on scanned digits, with small models that it trains first, in seconds:

    python examples/attention.py

With arguments, on anybody's:

    python examples/attention.py --base base.safetensors --tuned tuned/model.safetensors \
        --data photographs/
"""

# %% [markdown]
# # Attention
#
# Two numbers say much of what a head does. *Entropy*: how widely it spreads its attention, from 0 (one
# token) to the logarithm of the number of tokens. *Distance*: how far away, in patches, the patches are that
# it looks at. Both are taken inside the hook, so that no more than one layer's pattern is held at a time.

# %%
from common import checkpoints, class_names, flags, images, read, show

import vitlens as vl

parser = flags("attention", __doc__)
parser.add_argument("--condition", default="clean", help="what is done to the images (default: clean)")
options = read(parser)
models = checkpoints(options)
reference, model = next(iter(models.items()))
dataset = images(options, model)

comparison = vl.compare(
    models,
    dataset,
    analyses=[vl.Prediction(), vl.AttentionEntropy(), vl.AttentionDistance()],
    conditions=[options.condition],
    class_names=class_names(dataset),
    n_examples=2,
)
data = comparison.data
print(dict(data["attention_entropy_nats"].sizes))

# %% [markdown]
# ## Where heads look
#
# The attention of the class token to each patch, averaged over a layer's heads, for a few images.

# %%
figures = comparison.figures()
show(figures["attention_maps"], "maps", options)

# %% [markdown]
# ## How widely, by layer

# %%
show(figures["attention_entropy"], "entropy", options)
by_layer = data["attention_entropy_nats"].isel(checkpoint=0, condition=0).mean(("image", "head"))
print(f"entropy in {reference}, in nats, mean over images and heads")
print(by_layer.to_pandas().round(2).to_string())

# %% [markdown]
# ## Which heads changed
#
# The summary has a row for each layer, head and kind of query. One family of tests over all heads (max-T)
# keeps the chance of even one false *changed* below 5 %, so that the map can be read head by head. The
# images are what was sampled: that another training of the same recipe would move the same heads is not
# said.

# %%
summary = comparison.summary()
heads = summary[summary["metric"].str.startswith("attention_entropy_nats")]
show(figures["attention_entropy_difference"], "entropy_difference", options)
strongest = heads.reindex(heads["difference"].abs().sort_values(ascending=False).index).head(5)
columns = ["metric", "checkpoint", "layer", "head", "value_reference", "value", "difference", "verdict"]
print(strongest[columns].round(3).to_string(index=False))

# %% [markdown]
# ## What was found

# %%
for name, rows in heads.groupby("checkpoint", sort=False):
    changed = rows[rows["verdict"] == "changed"]
    sharper = int((changed["difference"] < 0).sum())
    print(
        f"{name} against {reference}: of {len(rows)} pairs of a head and a kind of query "
        f"{len(changed)} changed ({sharper} look more narrowly, {len(changed) - sharper} more widely), by "
        f"{changed['difference'].abs().max() if len(changed) else 0:.2f} nats at most."
    )
distance = data["attention_distance_patches"].isel(checkpoint=0, condition=0).mean("image")
near, far = (distance.where(distance == end, drop=True) for end in (distance.min(), distance.max()))
print(
    f"In {reference}, head {near['head'].item()} of layer {near['layer'].item()} looks nearest "
    f"({near.item():.2f} patches), head {far['head'].item()} of layer {far['layer'].item()} farthest "
    f"({far.item():.2f})."
)
