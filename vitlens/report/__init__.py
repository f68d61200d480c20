"""The report: figures of a comparison, and one HTML file that holds them.

It knows labelled arrays and no model. Plotly is imported here, so this package is imported only when used.
"""

from .charts import figures
from .charts.fourier import fourier_heat_map_figure
from .page import write
from .protocol import ComparisonLike

__all__ = ["ComparisonLike", "figures", "fourier_heat_map_figure", "write"]
