// Tables that sort by a click or a key on a heading, and filters above them.
(() => {
  "use strict";
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        for (const each of heads) each.setAttribute("aria-sort", each === head ? way : "none");
        const sign = way === "ascending" ? 1 : -1;
        const keyed = [...body.rows].map((row) => ({ row, key: keyOf(row, column) }));
        // What has no value stands last, whichever the way.
        keyed.sort((a, b) =>
          a.key === null || b.key === null ? (a.key === null) - (b.key === null) : sign * compare(a.key, b.key),
        );
        body.append(...keyed.map(({ row }) => row));
      });
    });
  }

  for (const form of document.querySelectorAll("form.filters")) {
    const rows = [...document.querySelectorAll(`#${form.dataset.table} tbody tr`)];
    const controls = Object.fromEntries([...form.querySelectorAll("[data-filter]")].map((each) => [each.dataset.filter, each]));
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const filter = () => {
      const words = controls.text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const row of rows) {
        const fits =
          (!controls.metric.value || row.dataset.metric === controls.metric.value) &&
          (!controls.verdict.value || row.dataset.verdict === controls.verdict.value) &&
          words.every((word) => texts.get(row).includes(word));
        row.hidden = !fits;
        n += fits;
      }
      const all = rows.length.toLocaleString("en");
      form.querySelector("output").textContent = n === rows.length ? `${all} rows` : `${n.toLocaleString("en")} of ${all} rows`;
    };
    form.hidden = false;
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    // A link to a row that is filtered away shows it again.
    window.addEventListener("hashchange", () => {
      const row = document.getElementById(location.hash.slice(1));
      if (!row?.hidden || !rows.includes(row)) return;
      form.reset();
      filter();
      row.scrollIntoView({ block: "center" });
    });
  }
})();
