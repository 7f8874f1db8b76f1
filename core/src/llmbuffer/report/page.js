"use strict";
(() => {
  const root = document.documentElement;
  const all = (query, within = document) => [...within.querySelectorAll(query)];

  // Light, dark, or what the system says.
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const spell = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; spell(); });
  dark.addEventListener("change", spell);
  spell();

  // Tables with more rows than the page holds: the rows of each page are made when it is shown.
  const rest = JSON.parse(document.getElementById("rows").textContent);
  const SIZE = 200;
  const pagers = new Map();

  const cell = (text, title) => {
    const made = document.createElement("td");
    const inner = document.createElement("bdi");
    inner.textContent = text;
    made.className = title;
    made.append(inner);
    return made;
  };

  const filled = (table, rows, first) => rows.map((row, index) => {
    const made = document.createElement("tr");
    made.id = `${table.dataset.row}${rest[table.id].ids[first + index]}`;
    made.append(...row.map((text, column) => cell(text, rest[table.id].kinds[column])));
    return made;
  });

  const show = (table, page) => {
    const { pager, rows } = pagers.get(table.id);
    const last = Math.max(0, Math.ceil(rows.length / SIZE) - 1);
    const at = Math.min(Math.max(0, page), last);
    table.tBodies[0].replaceChildren(...filled(table, rows.slice(at * SIZE, (at + 1) * SIZE), at * SIZE));
    const [back, where, next] = pager.children;
    back.disabled = at === 0;
    next.disabled = at === last;
    const end = Math.min(rows.length, (at + 1) * SIZE);
    where.textContent = `${(at * SIZE + 1).toLocaleString("en")} to ${end.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
    pager.dataset.page = at;
  };

  for (const table of all("table[data-row]")) {
    if (!rest[table.id]) continue;
    const pager = document.createElement("div");
    pager.className = "pager";
    const make = (name, text) => Object.assign(document.createElement(name), { textContent: text });
    const [back, where, next] = [make("button", "Back"), make("span", ""), make("button", "Next")];
    where.setAttribute("role", "status");
    pager.append(back, where, next);
    pagers.set(table.id, { pager, rows: rest[table.id].rows });
    back.addEventListener("click", () => show(table, Number(pager.dataset.page) - 1));
    next.addEventListener("click", () => show(table, Number(pager.dataset.page) + 1));
    table.closest(".wide").before(pager);
    show(table, 0);
  }
  for (const note of all(".without-script")) note.remove();

  // A click or Enter on a picture opens what stands behind it.
  const opened = (target) => {
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  };
  const reach = (id) => {
    const found = document.getElementById(id);
    if (found) return found;
    for (const [name, { rows }] of pagers) {
      const table = document.getElementById(name);
      const index = rest[name].ids.findIndex((each) => `${table.dataset.row}${each}` === id);
      if (index < 0) continue;
      show(table, Math.floor(index / SIZE));
      return document.getElementById(id);
    }
    return null;
  };
  const go = (id) => {
    const target = reach(id);
    if (!target) return false;
    for (const row of all("tr.here")) row.classList.remove("here");
    if (target.tagName === "TR") target.classList.add("here");
    opened(target);
    const focus = target.tagName === "DETAILS" ? target.querySelector("summary") : target;
    if (focus === target) target.tabIndex = -1;
    focus.focus({ preventScroll: true });
    target.scrollIntoView({ block: "center" });
    return true;
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[href^='#']");
    if (link && go(link.getAttribute("href").slice(1))) event.preventDefault();
  });

  // One stop for Tab among the columns of a picture; arrow keys go from one to the next.
  for (const picture of all("svg.lb")) {
    for (const kind of ["a.lb-bar", "a.lb-mark"]) {
      const links = all(kind, picture);
      links.forEach((link, index) => { link.setAttribute("tabindex", index ? "-1" : "0"); });
      links.forEach((link, index) => link.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1, Home: -links.length, End: links.length }[event.key];
        if (!step) return;
        const next = links[Math.min(links.length - 1, Math.max(0, index + step))];
        link.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
        event.preventDefault();
      }));
    }
  }
  if (location.hash) go(decodeURIComponent(location.hash.slice(1)));
})();
