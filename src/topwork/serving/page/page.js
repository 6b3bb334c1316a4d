"use strict";
const find = (id) => document.getElementById(id);
const AT_ONCE = 2, TOP = 5, EXPLAINED = ["map", "neighbours"], PROBE_MS = 3000, TOKEN = "topwork-token";
const HINT = "The more orange a region, the more it contributed to the prediction. The map is coarse, and only a hint.";
let models = [], model = null;
let jobs = []; // as they are shown, the newest first
let queue = []; // those that wait, the oldest first
let busy = 0, halted = "", taken = 0;

// Nothing that comes from a file or from the server becomes markup: text is appended as text.
function make(name, kind, ...inside) {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  node.append(...inside);
  return node;
}

function button(text, does, kind) {
  const node = make("button", kind, text);
  node.type = "button";
  node.addEventListener("click", () => does(node));
  return node;
}

function picture(source, alt, kind) {
  const node = make("img", kind);
  node.alt = alt;
  node.src = source;
  return node;
}

const named = (text) => make("bdi", "", text); // its direction of writing ends with it
const percent = (p, digits = 0) => `${(100 * p).toFixed(digits)}\u00a0%`;
const plural = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

function share(p) {
  if (p > 0.999) return `>\u00a0${percent(0.999, 1)}`;
  if (p < 0.001) return `<\u00a0${percent(0.001, 1)}`;
  return percent(p, p < 0.01 || p > 0.99 ? 1 : 0);
}

function inWords(p) {
  const [words] = [["almost certainly", 0.99], ["very likely", 0.9], ["probably", 0.7], ["perhaps", 0.5], ["hard to say", 0]]
    .find(([, least]) => p >= least);
  return `${words}: ${share(p)}`;
}

function tell(text) {
  find("told").textContent = text;
  if (find("camera").open) find("camera-told").textContent = text;
}

// The server.

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const reply = await fetch(path, { ...options, headers: { ...options.headers, ...headers }, cache: "no-store" });
  const text = await reply.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* not of our server: told by its status */ }
  return { status: reply.status, body, wait: Number(reply.headers.get("Retry-After")) || 1 };
}

const reasonOf = ({ status, body }) => body?.error?.message || `The server answered with the status ${status}.`;

async function loadModels() {
  let reply;
  try { reply = await ask("v1/models"); } catch { return halt("gone"); }
  if (reply.status === 401) return halt("token");
  if (reply.status !== 200 || !reply.body?.models) return halt("odd", reasonOf(reply));
  models = reply.body.models;
  if (!models.length) return halt("odd", "The server has no model yet.");
  resume();
  const before = model?.name;
  model = models.find((one) => one.name === before) || models[0];
  showModel();
  go();
}

const WHY = {
  gone: "The server doesn’t respond. Start it again with “topwork serve”; this page then continues by itself, and no picture is lost.",
  token: "",
};
let probe = 0;

function halt(why, text) {
  halted = why;
  clearTimeout(probe);
  const asks = why === "token";
  find("notice").hidden = asks;
  find("asking").hidden = !asks;
  if (asks) {
    find("refused").hidden = sessionStorage.getItem(TOKEN) === null;
    sessionStorage.removeItem(TOKEN);
    if (find("camera").open) find("camera").close();
    find("token").value = "";
    find("token").focus();
  } else {
    find("why").textContent = text || WHY[why];
    probe = setTimeout(loadModels, PROBE_MS);
  }
  progress();
}

function resume() {
  halted = "";
  clearTimeout(probe);
  find("notice").hidden = find("asking").hidden = true;
}

find("again").addEventListener("click", loadModels);
find("asking").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = find("token").value.trim();
  // What no header can hold is not the token either.
  sessionStorage.setItem(TOKEN, /^[\x21-\x7e]+$/.test(token) ? token : "-");
  loadModels().then(() => halted || find("choose").focus());
});

function showModel() {
  document.title = `${model.name} · Topwork`;
  find("model").replaceChildren(named(model.name));
  find("picking").hidden = models.length < 2;
  find("picker").replaceChildren(...models.map(({ name }) => new Option(name, name, false, name === model.name)));
  const test = model.test;
  find("tested").textContent = test
    ? `Tested on ${plural(test.images, "picture")}: ${percent(test.accuracy)} correct ` +
      `(95 % interval: ${(100 * test.interval[0]).toFixed(0)} to ${(100 * test.interval[1]).toFixed(0)}).`
    : "Not tested: there were no test pictures.";
  const names = model.classes.flatMap((name, i) => [i ? ", " : "", named(name)]);
  const end = model.rejects ? "; or none of these." : ".";
  const many = model.classes.length > 12;
  const list = make(many ? "details" : "p", "");
  if (many) list.append(make("summary", "", `Distinguishes ${model.classes.length} classes${end}`), make("p", "", ...names));
  else list.append("Classes: ", ...names, end);
  find("classes").replaceChildren(list);
}

find("picker").addEventListener("change", () => {
  model = models.find(({ name }) => name === find("picker").value);
  showModel();
  queue = [];
  for (const job of [...jobs].reverse()) enqueue(job);
  go();
});

// Pictures: each is sent by itself, two at a time.

function add(files) {
  const fresh = [...files].map((file) => ({ file, name: file.name || "picture", url: URL.createObjectURL(file) }));
  if (!fresh.length) return;
  for (const job of fresh) {
    draw(job);
    enqueue(job);
  }
  jobs = [...fresh, ...jobs];
  find("cards").prepend(...fresh.map((job) => job.card));
  go();
}

function enqueue(job) {
  job.abort?.abort();
  job.abort = new AbortController();
  job.answer = job.error = null;
  queue.push(job);
  showWait(job, "Waiting");
}

function go() {
  while (busy < AT_ONCE && queue.length && !halted && model) {
    busy += 1;
    look(queue.shift()).finally(() => { busy -= 1; go(); });
  }
  progress();
}

const sleep = (ms, signal) => new Promise((done) => {
  const timer = setTimeout(done, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); done(); });
});

async function look(job) {
  const { signal } = job.abort;
  const about = new URLSearchParams({ model: model.name, top: TOP });
  const explain = EXPLAINED.filter((one) => model.explains?.includes(one)).join();
  if (explain) about.set("explain", explain);
  let body;
  try {
    body = await job.file.arrayBuffer();
  } catch {
    return showError(job, "This file can’t be read. If it is a folder, choose the pictures in it.");
  }
  const headers = { "Content-Type": "application/octet-stream" };
  while (!signal.aborted) {
    showWait(job, "Classifying");
    let reply;
    try {
      reply = await ask(`v1/predict?${about}`, { method: "POST", body, headers, signal });
    } catch {
      if (signal.aborted) return;
      queue.unshift(job);
      showWait(job, "Waiting");
      return halt("gone");
    }
    if (signal.aborted) return;
    if (reply.status === 429 || reply.status === 503) {
      showWait(job, `The server is busy; trying again in ${reply.wait} s`);
      await sleep(1000 * reply.wait, signal);
    } else if (reply.status === 401) {
      queue.unshift(job);
      showWait(job, "Waiting");
      return halt("token");
    } else if (reply.status !== 200 || !reply.body?.predictions?.length) {
      const mend = /\.hei[cf]$/i.test(job.name) ? ". Save it as JPEG first." : "";
      return showError(job, reasonOf(reply) + mend);
    } else {
      showAnswer(job, reply.body);
      if (reply.body.version !== model.version && reply.body.model === model.name) loadModels();
      return;
    }
  }
}

// A picture's card.

function draw(job) {
  job.frame = make("span", "frame");
  const shown = picture(job.url, job.name, "picture");
  shown.addEventListener("load", () => job.frame.classList.toggle("small", shown.naturalWidth < 144));
  shown.addEventListener("error", () => shown.replaceWith(make("span", "blind", "This browser can’t show it.")));
  job.frame.append(shown);
  job.view = make("div", "view", job.frame);
  job.said = make("div", "said");
  const remove = button("Remove", () => drop(job), "plain");
  remove.setAttribute("aria-label", `Remove ${job.name}`);
  job.card = make("li", "card", make("div", "top", make("h2", "", named(job.name)), remove), job.view, job.said);
}

function drop(job) {
  const next = job.card.nextElementSibling || job.card.previousElementSibling;
  forget(job);
  jobs = jobs.filter((one) => one !== job);
  queue = queue.filter((one) => one !== job);
  (next?.querySelector("button") || find("choose")).focus();
  tell(`${job.name} removed`);
  progress();
}

function forget(job) {
  job.abort.abort();
  URL.revokeObjectURL(job.url);
  job.card.remove();
}

function showWait(job, text) {
  job.card.className = "card";
  job.card.setAttribute("aria-busy", "true");
  job.view.replaceChildren(job.frame);
  job.frame.querySelector(".map")?.remove();
  job.said.replaceChildren(make("p", "wait", `${text}…`));
}

function showError(job, message) {
  job.error = message;
  job.card.className = "card failed";
  job.card.removeAttribute("aria-busy");
  job.said.replaceChildren(make("div", "", make("p", "answer", "No answer"), make("p", "sure", message)));
  tell(`${job.name}: no answer. ${message}`);
}

function showAnswer(job, reply) {
  const [said] = reply.predictions;
  job.answer = { ...said, model: reply.model, version: reply.version };
  job.card.className = said.rejected ? "card none" : "card";
  job.card.removeAttribute("aria-busy");
  const words = inWords(said.probability), left = make("div", "");
  if (said.rejected) {
    left.append(make("p", "answer", "None of these"), make("p", "reason", said.reason ? `${said.reason}.` : ""));
    const alone = ` (${share(said.probability)}), if it had to be one of them.`;
    left.append(make("p", "near", "The nearest class would be ", named(said.class), alone));
    tell(`${job.name}: none of these. ${said.reason || ""}`);
  } else {
    left.append(make("p", "answer", named(said.class)), make("p", "sure", words));
    tell(`${job.name}: ${said.class}, ${words}`);
  }
  left.append(bars(said.top), button("Copy as JSON", (node) => copy(node, job)));
  job.said.replaceChildren(left);
  if (said.neighbours?.length) job.said.append(neighbours(said.neighbours));
  if (said.map) job.view.append(...mapSwitch(job, said.map));
}

function bars(top) {
  const list = make("ol", "bars");
  list.setAttribute("aria-label", "Most likely classes");
  for (const one of top) {
    const fill = make("span", "fill");
    fill.style.width = `${100 * one.probability}%`;
    list.append(make("li", "", named(one.class), make("span", "track", fill), make("span", "share", share(one.probability))));
  }
  return list;
}

function neighbours(nearest) {
  const list = make("ul", "");
  for (const { label, similarity, thumbnail } of nearest) {
    const alike = make("small", "", `similarity ${similarity.toFixed(2)}`);
    list.append(make("li", "", picture(thumbnail, `Training picture of ${label}`), named(label), alike));
  }
  return make("div", "seen", make("h3", "", "Nearest training pictures"), list);
}

function mapSwitch(job, source) {
  const map = picture(source, `Attention map of ${job.name}`, "map"), hint = make("p", "legend", HINT);
  const { fit, size_px: side } = model.input ?? {}, share = fit?.resized_px ? side / fit.resized_px : fit?.share ?? 1;
  job.frame.classList.toggle("crop", (fit?.fit ?? fit) === "crop");
  map.style.transform = share < 1 ? `scale(${share})` : "";  // a part of the square, or of the stretched picture
  map.hidden = hint.hidden = true;
  job.frame.append(map);
  const turn = button("Attention map", () => {
    map.hidden = hint.hidden = !map.hidden;
    turn.setAttribute("aria-pressed", String(!map.hidden));
  });
  turn.setAttribute("aria-pressed", "false");
  return [turn, hint];
}

function progress() {
  const done = jobs.filter((job) => job.answer || job.error).length;
  document.body.classList.toggle("some", jobs.length > 0);
  find("tools").hidden = !jobs.length;
  find("csv").disabled = !done;
  find("progress").textContent = done < jobs.length
    ? `${done} of ${plural(jobs.length, "picture")} done${halted ? ", halted" : ""}`
    : plural(jobs.length, "picture");
}

// What leaves the page: JSON to the clipboard, CSV to a file.

async function copy(node, job) {
  const plain = { picture: job.name, ...job.answer, neighbours: job.answer.neighbours?.map(({ label, similarity }) => ({ label, similarity })) };
  delete plain.map;
  delete plain.image;
  const text = JSON.stringify(plain, null, 2);
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // without https or localhost there is no such clipboard
    const area = make("textarea", "unseen", text);
    node.after(area);
    area.select();
    copied = document.execCommand("copy");
    area.remove();
    node.focus();
  }
  node.textContent = copied ? "Copied" : "The browser refused";
  tell(node.textContent);
  setTimeout(() => { node.textContent = "Copy as JSON"; }, 2000);
}

function cell(value) {
  if (typeof value === "number") return String(value);
  let text = String(value ?? "");
  if (/^\s*[=+\-@\t\r]/.test(text)) text = `'${text}`; // else a spreadsheet may take it for a formula
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function table() {
  const head = ["picture", "class", "probability", "rejected", "reason", "novelty", "error", "model", "version"];
  for (let i = 2; i <= TOP; i += 1) head.push(`class_${i}`, `probability_${i}`);
  const rows = jobs.filter((job) => job.answer || job.error).map(({ name, error, answer }) => {
    if (!answer) return [name, "", "", "", "", "", error];
    const { probability, rejected, reason, novelty, version } = answer;
    const others = answer.top.slice(1).flatMap((one) => [one.class, one.probability]);
    return [name, answer.class, probability, rejected, reason, novelty, "", answer.model, version, ...others];
  });
  const width = head.length;
  return [head, ...rows].map((row) => Array.from({ length: width }, (_, i) => cell(row[i])).join()).join("\r\n") + "\r\n";
}

find("csv").addEventListener("click", () => {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", table()], { type: "text/csv" }));
  link.download = "topwork.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});

find("clear").addEventListener("click", () => {
  jobs.forEach(forget);
  jobs = [];
  queue = [];
  progress();
  find("choose").focus();
  tell("All pictures removed");
});

// Where pictures come from: a choice, a drop, the clipboard, the camera.

find("choose").addEventListener("click", () => find("files").click());
find("files").addEventListener("change", () => {
  add(find("files").files);
  find("files").value = "";
});
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
const mark = (on) => document.body.classList.toggle("dropping", on);
addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  mark(true);
});
addEventListener("dragleave", (event) => event.relatedTarget || mark(false));
addEventListener("drop", (event) => {
  mark(false);
  if (!holdsFiles(event)) return;
  event.preventDefault();
  add(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) add(event.clipboardData.files);
});

const camera = find("camera"), live = find("live");
let facing = "environment";

function stopCamera() {
  for (const track of live.srcObject?.getTracks() || []) track.stop();
  live.srcObject = null;
}

async function startCamera() {
  stopCamera();
  find("shutter").disabled = true;
  find("camera-told").textContent = "Waiting for the camera…";
  try {
    const video = { facingMode: facing, width: { ideal: 1920 }, height: { ideal: 1080 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video });
    live.srcObject = stream;
    if (!camera.open) return stopCamera();
    await live.play();
    find("camera-told").textContent = "";
    find("shutter").disabled = false;
    find("shutter").focus();
    const kinds = await navigator.mediaDevices.enumerateDevices();
    find("turn").hidden = kinds.filter(({ kind }) => kind === "videoinput").length < 2;
  } catch (error) {
    if (!camera.open) return stopCamera();
    find("camera-told").textContent = {
      NotAllowedError: "The camera was not allowed. Allow it for this page in the browser’s settings, then open it again.",
      NotFoundError: "No camera was found.",
    }[error.name] || `The camera can’t be used: ${error.message}`;
  }
}

if (navigator.mediaDevices?.getUserMedia) find("open-camera").hidden = false;
else find("no-camera").hidden = false;
find("open-camera").addEventListener("click", () => { camera.showModal(); startCamera(); });
find("close-camera").addEventListener("click", () => camera.close());
camera.addEventListener("close", stopCamera);
find("turn").addEventListener("click", () => {
  facing = facing === "user" ? "environment" : "user";
  startCamera();
});
find("shutter").addEventListener("click", () => {
  const still = make("canvas");
  still.width = live.videoWidth;
  still.height = live.videoHeight;
  still.getContext("2d").drawImage(live, 0, 0);
  taken += 1;
  const name = `camera ${taken}.jpg`;
  still.toBlob((blob) => add([new File([blob], name, { type: "image/jpeg" })]), "image/jpeg", 0.95);
});

loadModels();
