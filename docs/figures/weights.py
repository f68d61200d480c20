"""Draws the figure of weight space on the page of analyses, as a web page to be photographed.

python docs/figures/weights.py BASE TUNED PHOTOGRAPHS OUT.html
"""

import sys

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.stats import binomtest
from torch.utils.data import Subset

import vitlens as vl

base = vl.load(sys.argv[1], architecture="deit_tiny_patch16_224")
tuned = vl.load(sys.argv[2])
photographs = vl.images.folder(sys.argv[3], base)
some = Subset(photographs, list(range(0, 1000, 10)))
distance = vl.weight_distance(base, tuned)["weight_distance"]
matrices = [name for name in distance["matrix"].values if name.startswith("W")]
conditions = ["clean", "gaussian_blur@3"]
line = vl.interpolate(base, tuned, some, conditions=conditions)["rank"] == 0
titles = ["Relative distance of the weights", "Accuracy between the checkpoints (n = 100)"]
figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.16)
cells = distance.sel(matrix=matrices)
bar = {"x": 0.43, "thickness": 12}
figure.add_heatmap(z=cells.values, x=matrices, y=cells["layer"].values, colorbar=bar, row=1, col=1)
for condition in conditions:
    share = line.sel(condition=condition).mean("image")
    n = line.sizes["image"]
    ends = [binomtest(round(n * value), n).proportion_ci(method="wilson") for value in share.values]
    bars = {
        "array": [end.high - value for end, value in zip(ends, share.values, strict=True)],
        "arrayminus": [value - end.low for end, value in zip(ends, share.values, strict=True)],
    }
    figure.add_trace(go.Scatter(x=share["alpha"], y=share, error_y=bars, name=condition), row=1, col=2)
figure.update_yaxes(title_text="layer", row=1, col=1)
figure.update_xaxes(title_text="alpha: 0 base, 1 tuned", row=1, col=2)
figure.update_yaxes(title_text="top-1 accuracy, Wilson 95 % interval", row=1, col=2)
figure.update_layout(
    width=1000,
    height=400,
    margin={"t": 50, "l": 70, "r": 30, "b": 70},
    template="plotly_white",
    legend={"orientation": "h", "x": 0.58, "y": -0.25},
)
figure.write_html(sys.argv[4], config={"displayModeBar": False})
