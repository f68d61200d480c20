"""The table of where each corruption lies in frequency, measured on photographs.

    python docs/tables/frequency.py PHOTOGRAPHS [--every 5]

PHOTOGRAPHS is a folder of class folders. Writes vitlens/images/corruptions/frequency.csv, from which the
groups of corruptions follow, and docs/tables/frequency.md, which docs/corruptions.md shows.
"""

import argparse
from pathlib import Path

import pandas as pd
import timm
from torch.utils.data import Subset

import vitlens as vl
from vitlens.images import frequency_group, measure_frequency

HERE = Path(__file__).parent
SHIPPED = Path(vl.images.__file__).parent / "corruptions" / "frequency.csv"


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--every", type=int, default=5, metavar="N", help="every Nth photograph (default 5)")
    chosen = parser.parse_args()
    # Only the size and the crop of the model count: 224 × 224 pixels out of the middle.
    model = vl.HookedViT(timm.create_model("deit_tiny_patch16_224"))
    photographs = vl.images.folder(chosen.photographs, model)
    some = Subset(photographs, range(0, len(photographs), chosen.every))
    names = [name for name, spec in vl.CORRUPTIONS.items() if not spec.needs_assets]
    table = measure_frequency(some, [f"{name}@1-5" for name in names])
    table[["corruption", "severity"]] = table.condition.str.split("@", expand=True)
    table["severity"] = table.severity.astype(int)
    columns = ["corruption", "severity", "hf_energy", "delta_hf_db", "rms"]
    table[columns].to_csv(SHIPPED, index=False, float_format="%.4f", lineterminator="\n")
    (HERE / "frequency.md").write_text(_markdown(table), encoding="utf-8")


def _markdown(table: pd.DataFrame) -> str:
    """A row for each corruption, three figures for each severity, the worst interval below."""
    lines = [
        "| corruption | group | severity 1 | 2 | 3 | 4 | 5 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in table.groupby("corruption", sort=False):
        third = rows[rows.severity == 3].iloc[0]
        group = frequency_group(vl.CORRUPTIONS[name].family, third.hf_energy, third.delta_hf_db)
        cells = [
            f"{row.hf_energy:.2f} / {row.delta_hf_db:+.1f} / {255 * row.rms:.0f}".replace("-0.0", "+0.0")
            .replace("-", "−")
            .replace(" ", "\N{NO-BREAK SPACE}")
            for row in rows.sort_values("severity").itertuples()
        ]
        lines.append(f"| `{name}` | {group or '–'} | {' | '.join(cells)} |")
    reach = {
        name: ((table[f"{name}_high"] - table[f"{name}_low"]) / 2).max()
        for name in ("hf_energy", "delta_hf_db", "rms")
    }
    lines.append(
        "\nShare above 1/8 cycle per pixel / change in dB / rms in levels of 255; means over "
        f"{table.n_images.iloc[0]} photographs, whose 95 % intervals reach at most "
        f"±{reach['hf_energy']:.2f}, ±{reach['delta_hf_db']:.1f} dB and ±{255 * reach['rms']:.1f} levels."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
