// Draws the page's figures, light or dark as the reader's system is, and light on paper.
(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const templates = read("templates");
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = () => templates[prefersDark.matches ? "dark" : "light"];
  const plots = [...document.querySelectorAll(".plot")].map((element) => ({
    element,
    ...read(`${element.id}-data`),
  }));

  for (const { element, data, layout, themed } of plots) {
    Plotly.newPlot(element, data, themed ? { ...layout, template: theme() } : layout, {
      responsive: !layout.width,
      displaylogo: false,
      // Saving is all that a reader wants of the bar; the other buttons would cover the menus.
      modeBarButtons: [["toImage"]],
      toImageButtonOptions: { format: "svg", filename: element.id },
    });
  }

  const dress = (template, width) => {
    for (const { element, layout, themed } of plots) {
      const change = themed ? { template } : {};
      if (!layout.width && width !== undefined) Object.assign(change, width ? { width } : { width: null, autosize: true });
      Plotly.relayout(element, change);
    }
  };
  prefersDark.addEventListener("change", () => dress(theme()));
  window.addEventListener("beforeprint", () => dress(templates.light, 680));
  window.addEventListener("afterprint", () => dress(theme(), 0));
})();
