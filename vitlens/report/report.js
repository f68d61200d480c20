// Draws the page's figures, light or dark as the reader's system is, and light on paper; saves their numbers.
(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const templates = read("templates");
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = () => templates[prefersDark.matches ? "dark" : "light"];
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const save = (text, filename) => {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    const link = make("a", { href: url, download: filename });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (columns) => {
    const names = Object.keys(columns);
    const n = names.length ? columns[names[0]].length : 0;
    const lines = [names.map(cell).join(",")];
    for (let row = 0; row < n; row++) lines.push(names.map((name) => cell(columns[name][row])).join(","));
    return lines.join("\r\n") + "\r\n";
  };

  // Of a figure that keeps no rows: what it draws at the moment, a row for each mark.
  const plain = (label) => new DOMParser().parseFromString(String(label ?? ""), "text/html").body.textContent;
  const drawn = (element) => {
    const columns = { trace: [], x: [], y: [], z: [] };
    const put = (...row) => Object.values(columns).forEach((column, at) => column.push(row[at]));
    element._fullData.forEach((trace, at) => {
      if (trace.visible !== true || (!trace.x && !trace.y && !trace.z)) return;
      const name = plain(trace.name ?? at);
      if (trace.z) {
        trace.z.forEach((line, i) => line.forEach((z, j) => put(name, trace.x?.[j] ?? j, trace.y?.[i] ?? i, z)));
      } else {
        const { x = [], y = [] } = trace;
        for (let i = 0; i < Math.max(x.length, y.length); i++) put(name, x[i], y[i], null);
      }
    });
    return columns;
  };

  const plots = [...document.querySelectorAll(".plot")].map((element) => {
    const figure = element.closest("figure");
    return { element, figure, ...read(`${figure.id}-data`) };
  });

  for (const { element, figure, data, layout, themed, menus, rows } of plots) {
    Plotly.newPlot(element, data, themed ? { ...layout, template: theme() } : layout, {
      responsive: !layout.width,
      displaylogo: false,
      // Saving is all that a reader wants of the bar; the other buttons would cover the panels' titles.
      modeBarButtons: [["toImage"]],
      toImageButtonOptions: { format: "svg", filename: figure.id },
    });
    for (const { name, active, buttons } of menus) {
      const select = make("select", {}, ...buttons.map(({ label }, at) => new Option(label, at)));
      select.selectedIndex = active;
      select.addEventListener("change", () => {
        const { method, args } = buttons[select.selectedIndex];
        Plotly[method](element, ...args);
      });
      figure.querySelector(".choices").append(make("label", {}, `${name} `, select));
    }
    const offer = (name, then) => {
      const button = figure.querySelector(name);
      button.hidden = false;
      button.addEventListener("click", then);
    };
    offer(".save-data", () => save(csv(rows ?? drawn(element)), `${figure.id}.csv`));
    offer(".save-picture", () => {
      Plotly.downloadImage(element, { format: "svg", filename: figure.id, width: element.clientWidth, height: element.clientHeight });
    });
  }
  for (const button of document.querySelectorAll(".save-summary")) {
    button.hidden = false;
    button.addEventListener("click", () => save(csv(read("summary-data")), "summary.csv"));
  }

  // A link may lead into something folded.
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    let folded = target?.closest("details:not([open])");
    if (!folded) return;
    for (; folded; folded = target.closest("details:not([open])")) folded.open = true;
    target.scrollIntoView();
  };
  window.addEventListener("hashchange", unfold);
  unfold();

  const PAPER_PX = 680;
  const dress = (template, width) => {
    for (const { element, layout, themed } of plots) {
      const change = themed ? { template } : {};
      if (!layout.width && width !== undefined) Object.assign(change, width ? { width } : { width: null, autosize: true });
      Plotly.relayout(element, change);
      // What keeps its own width is shrunk as a whole to fit the paper.
      if (layout.width > PAPER_PX && width !== undefined) element.style.zoom = width ? PAPER_PX / layout.width : "";
    }
  };
  let unfolded = [];
  prefersDark.addEventListener("change", () => dress(theme()));
  window.addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details.more:not([open])")];
    for (const each of unfolded) each.open = true;
    dress(templates.light, PAPER_PX);
  });
  window.addEventListener("afterprint", () => {
    for (const each of unfolded) each.open = false;
    dress(theme(), 0);
  });
})();
