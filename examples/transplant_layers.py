r"""Where does the robustness live? One checkpoint's activations, put into another part by part.

Without arguments, on scanned digits, with small models that it trains first, in seconds:

    python examples/transplant_layers.py

With arguments, on anybody's:

    python examples/transplant_layers.py --base base.safetensors --tuned tuned/model.safetensors \
        --data photographs/ --condition gaussian_blur@3
"""

# %% [markdown]
# # Transplanting layers
#
# Two checkpoints differ in accuracy on corrupted images. Which part of the better one makes the difference?
# A transplant runs the worse one with one part's activations taken from the better one, on the same pixels,
# and asks how much of the gap that part closes.

# %%
import torch
from common import checkpoints, class_names, flags, images, read, show

import vitlens as vl

parser = flags("transplant_layers", __doc__)
parser.add_argument("--condition", default="gaussian_blur@3", help="where they differ (default: %(default)s)")
options = read(parser)
models = checkpoints(options)
(reference, recipient), (name, donor), *_ = models.items()
pair = {reference: recipient, name: donor}
dataset = images(options, recipient)

# %% [markdown]
# ## One transplant by hand
#
# The recipient with the donor's residual stream after block 0: everything above that is the recipient's own.
# And the other way round: what of its lead does the donor keep if it is given the recipient's stream?

# %%
condition = vl.images.parse_condition(options.condition)
items = [dataset[i] for i in range(len(dataset))]
pixels = condition.apply(
    torch.stack([item["pixels"] for item in items]), [item["image_id"] for item in items]
)
labels = torch.tensor([item["label"] for item in items])


def accuracy(logits):
    """Share of images whose class stands on top."""
    return float((logits.argmax(-1) == labels).float().mean())


hook = "blocks.0.hook_resid_post"
with torch.inference_mode():
    own = {each: accuracy(model(model.normalize(pixels))) for each, model in pair.items()}
    given = accuracy(vl.transplant(donor, recipient, pixels, hook))
    taken = accuracy(vl.transplant(recipient, donor, pixels, hook))
print(f"{options.condition}: {reference} {own[reference]:.3f}, {name} {own[name]:.3f}")
print(f"{reference} from {name}'s block 0 on: {given:.3f}; {name} from {reference}'s block 0 on: {taken:.3f}")

# %% [markdown]
# ## Every part, one by one
#
# `Transplant` does so for the residual stream after each block, for each block's attention and MLP, for each
# head, and for the classifier. `gap_closed` is 0 where a part changes nothing and 1 where it brings the
# whole difference; its interval resamples images. Shares of several parts need not add up.

# %%
comparison = vl.compare(
    pair,
    dataset,
    analyses=[vl.Prediction(), vl.Transplant()],
    conditions=[options.condition],
    class_names=class_names(dataset),
    n_examples=0,
)
closed = vl.gap_closed(comparison.data)
closed.to_csv(options.folder / "gap_closed.csv", index=False)
show(comparison.figures()["transplant_gap"], "gap_closed", options)
by_accuracy = closed[closed["metric"] == "accuracy"]
layers = by_accuracy[by_accuracy["component"].str.contains("resid_post|attn_out|mlp_out")]
print(layers[["component", "gap_closed", "ci_low", "ci_high"]].round(2).to_string(index=False))

# %% [markdown]
# ## What was found

# %%
kept = (
    (taken - own[reference]) / (own[name] - own[reference]) if own[name] != own[reference] else float("nan")
)
gap = by_accuracy.iloc[0]
print(
    f"Under {options.condition}, {name} is {100 * gap['gap']:+.1f} points from {reference} in accuracy "
    f"(95 % interval {100 * gap['gap_ci_low']:+.1f} to {100 * gap['gap_ci_high']:+.1f}, {gap['n']} images)."
)
sure = layers.dropna(subset=["ci_low"])
if sure.empty:
    print("The interval includes none at all: there may be no gap to close.")
else:
    streams = sure[sure["component"].str.endswith("resid_post")]
    enough = streams[streams["gap_closed"] >= 0.5].head(1)
    best = sure.drop(streams.index).sort_values("gap_closed").tail(1)
    for said, row in (
        ("the stream that is the first to close half of it", enough),
        ("the block's attention or MLP that closes most by itself", best),
    ):
        for part, share, low, high in row[["component", "gap_closed", "ci_low", "ci_high"]].values:
            print(f"{part} is {said}: {share:.2f} ({low:.2f} to {high:.2f}).")
    print(f"With {reference}'s stream after block 0, {name} keeps {kept:.2f} of its lead.")
