"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 24;
const find = (id) => document.getElementById(id);

function make(name, text, kind) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

// Theme: the system's, until the user chooses another.
const theme = find("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
function showTheme(dark) {
  theme.setAttribute("aria-pressed", String(dark));
}
showTheme(systemDark.matches);
theme.addEventListener("click", () => {
  const dark = theme.getAttribute("aria-pressed") !== "true";
  document.documentElement.classList.toggle("dark", dark);
  document.documentElement.classList.toggle("light", !dark);
  showTheme(dark);
});

// Each picture is stored once and referred to by its id.
for (const image of document.querySelectorAll("img[data-picture]")) {
  const source = data.pictures[image.dataset.picture];
  if (source) image.src = source;
  else image.remove();
}

const gallery = find("gallery");
if (gallery) {
  const is = find("is"), said = find("said"), wrong = find("wrong"), looked = find("looked");
  let limit = PAGE;

  const chosen = () => data.shots.filter((shot) =>
    (!is.value || shot.label === is.value) && (!said.value || shot.said === said.value) &&
    (!wrong.checked || shot.label !== shot.said));

  function card(shot) {
    const item = make("li");
    const showMap = looked.getAttribute("aria-pressed") === "true";
    const source = (showMap && data.maps[shot.id]) || data.pictures[shot.id];
    if (source) {
      const image = make("img");
      image.src = source;
      image.alt = shot.id;
      image.loading = "lazy";
      item.append(image);
    }
    const right = shot.label === shot.said;
    const answer = make("p");
    answer.append(make("span", right ? "correct: " : "predicted: ", right ? "rightly" : "wrongly"));
    answer.append(make("bdi", shot.said));
    answer.append(` ${(100 * shot.sure).toFixed(0)}\u00a0%`);
    item.append(answer);
    if (!right) {
      const truth = make("p");
      truth.append("true class: ");
      truth.append(make("bdi", shot.label));
      item.append(truth);
    }
    item.append(make("p", shot.id, "id"));
    return item;
  }

  function show() {
    const shots = chosen();
    gallery.replaceChildren(...shots.slice(0, limit).map(card));
    find("more").hidden = shots.length <= limit;
    const cell = document.querySelector(".cell.chosen");
    const all = cell ? ` of ${cell.dataset.count} test images in this cell` : "";
    const shown = Math.min(limit, shots.length);
    find("told").textContent = shots.length
      ? `${shown} picture${shown === 1 ? "" : "s"}${all || (shots.length > shown ? ` of ${shots.length}` : "")}`
      : "No pictures match.";
  }

  function choose(button) {
    for (const other of document.querySelectorAll(".cell.chosen")) other.classList.remove("chosen");
    if (button) button.classList.add("chosen");
    limit = PAGE;
    show();
  }

  for (const control of [is, said, wrong]) control.addEventListener("change", () => choose(null));
  find("more").addEventListener("click", () => { limit += PAGE; show(); });
  looked.addEventListener("click", () => {
    looked.setAttribute("aria-pressed", String(looked.getAttribute("aria-pressed") !== "true"));
    show();
  });
  looked.hidden = Object.keys(data.maps).length === 0;
  find("reset").addEventListener("click", () => {
    is.value = said.value = "";
    wrong.checked = true;
    looked.setAttribute("aria-pressed", "false");
    choose(null);
  });
  for (const button of document.querySelectorAll(".cell")) {
    button.addEventListener("click", () => {
      is.value = button.dataset.label;
      said.value = button.dataset.said;
      wrong.checked = is.value !== said.value;
      choose(button);
      find("pictures").scrollIntoView();
      find("reset").focus({ preventScroll: true });
    });
  }
  show();
}

const table = find("table");
if (table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "ascending" ? 1 : -1;
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => down * (column ? key(a) - key(b) : key(a).localeCompare(key(b))));
    table.tBodies[0].append(...rows);
  }));
}

// Filter an audit's findings by class.
const of = find("of");
if (of) {
  const items = [...document.querySelectorAll(".finding li")];
  const show = () => {
    for (const item of items) item.hidden = Boolean(of.value) && !JSON.parse(item.dataset.labels).includes(of.value);
    for (const kind of document.querySelectorAll(".finding")) kind.hidden = !kind.querySelector("li:not([hidden])");
    const shown = items.filter((item) => !item.hidden).length;
    find("told").textContent = of.value ? `${shown} of the findings below` : "";
    if (of.value && !shown) find("told").textContent = "No finding shown here is of this class.";
  };
  of.addEventListener("change", show);
}

// Following a link to a collapsed or filtered finding shows it.
addEventListener("hashchange", () => {
  const kind = find(location.hash.slice(1));
  if (!kind || !kind.matches(".finding")) return;
  if (kind.hidden) {
    of.value = "";
    of.dispatchEvent(new Event("change"));
  }
  kind.open = true;
  kind.scrollIntoView();
});
