r"""From which layer on does a ViT say the right class, and does fine-tuning move that layer?

Without arguments, on scanned digits, with small models that it trains first, in seconds:

    python examples/logit_lens.py

With arguments, on anybody's:

    python examples/logit_lens.py --base base.safetensors --tuned tuned/model.safetensors \
        --data photographs/
"""

# %% [markdown]
# # The logit lens
#
# The lens reads the residual stream between two blocks as if it were the last one, through the model's own
# final norm, pooling and head. Where it first says the correct class, the class can be read off; later
# layers may still lose it again.

# %%
import torch
from common import checkpoints, class_names, flags, images, read, show

import vitlens as vl

parser = flags("logit_lens", __doc__)
parser.add_argument("--conditions", nargs="+", default=["clean", "gaussian_blur@3"])
options = read(parser)
models = checkpoints(options)
reference, model = next(iter(models.items()))
dataset = images(options, model)
names = class_names(dataset)

# %% [markdown]
# ## One image by hand
#
# `model.readout` is the lens: any residual stream in, logits out. Place 0 is what enters block 0, place `l`
# the output of block `l - 1`; at the last place the lens is the model's own answer.

# %%
item = dataset[0]
with torch.inference_mode():
    logits, cache = model.run_with_cache(
        model.normalize(item["pixels"][None]),
        names_filter=lambda name: name.endswith(("hook_resid_pre", "hook_resid_post")),
    )
    stream = [cache["resid_pre", 0], *(cache["resid_post", layer] for layer in range(model.cfg.n_layers))]
    said = torch.stack([model.readout(resid)[0] for resid in stream]).softmax(-1)
print(f"{item['image_id']} is: {names[item['label']]}")
for place, probabilities in enumerate(said):
    top = int(probabilities.argmax())
    print(
        f"  place {place}: {names[top]} {probabilities[top]:.2f}, correct {probabilities[item['label']]:.2f}"
    )

# %% [markdown]
# ## Many images, several checkpoints, with intervals
#
# `vl.compare` measures all checkpoints on the same pixels, a row an image. `first_correct_layer` is the
# place at which the correct class first stands on top, and has no value where it never does.

# %%
comparison = vl.compare(
    models,
    dataset,
    analyses=[vl.Prediction(), vl.LogitLens()],
    conditions=options.conditions,
    class_names=names,
    n_examples=0,
)
figures = comparison.figures()
show(figures["lens_accuracy"], "lens_accuracy", options)

# %%
summary = comparison.summary()
columns = [
    "condition",
    "checkpoint",
    "value_reference",
    "value",
    "difference",
    "ci_low",
    "ci_high",
    "verdict",
]
rows = summary[summary["metric"] == "first_correct_layer"]
print(rows[columns].round(3).to_string(index=False))

# %% [markdown]
# Lenses differ between checkpoints for two reasons: the stream says something else, or it says it in a basis
# that the head does not read yet. `vl.TunedLens`, trained per checkpoint, corrects the basis.
#
# ## What was found

# %%
data = comparison.data
for condition in data["condition"].values:
    first = data["first_correct_layer"].sel(checkpoint=reference, condition=condition)
    right = data["lens_rank"].sel(checkpoint=reference, condition=condition).isel(resid_layer=-1) == 0
    lost = float((first.notnull() & ~right).mean())
    print(
        f"{condition}: in {reference} the correct class first stands on top at place "
        f"{float(first.median()):.0f} of {model.cfg.n_layers} for the median image that has it anywhere; "
        f"{100 * lost:.0f} % of images have it somewhere and lose it."
    )
for row in rows.itertuples():
    print(
        f"{row.condition}: {row.checkpoint} says it {abs(row.difference):.3f} places "
        f"{'earlier' if row.difference < 0 else 'later'} than {reference} on average "
        f"(95 % interval {row.ci_low:+.3f} to {row.ci_high:+.3f}): {row.verdict}."
    )
