// The page of `topwork serve`: pictures in, answers out, two at a time. Nothing is kept but the token, for this tab.
const $ = (id) => document.getElementById(id);
const AT_ONCE = 2;
const results = new Map(); // card → { name, answer }
const waiting = [];
let models = [];
let running = 0;
let stopped = false; // until there is a token

const percent = (p) => (p > 0.999 && p < 1 ? "> 99.9 %" : `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)} %`);
const say = (text) => { $("live").textContent = text; };
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server doesn't answer. Start it again (topwork serve), then try once more.");
  }
  if (response.status === 401) {
    sessionStorage.removeItem("token");
    stopped = true;
    $("unlock").hidden = false;
    $("token").focus();
    throw Object.assign(new Error("This server asks for a token."), { again: true });
  }
  if (response.status === 429) {
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    say(`The server is busy; trying again in ${seconds} s.`);
    await pause(seconds);
    return ask(path, options);
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error?.message ?? `The server answered ${response.status}.`);
  return body;
}

async function begin() {
  try {
    ({ models } = await ask("v1/models"));
  } catch (error) {
    $("about").textContent = error.message;
    return;
  }
  $("unlock").hidden = true;
  $("model").replaceChildren(...models.map((m) => new Option(m.name, m.name)));
  $("choice").hidden = models.length < 2;
  introduce();
  stopped = false;
  pump();
}

function introduce() {
  const model = chosen();
  $("title").textContent = model.name;
  document.title = `${model.name} – Topwork`;
  const few = model.classes.slice(0, 8).join(", ") + (model.classes.length > 8 ? ` and ${model.classes.length - 8} more` : "");
  const [low, high] = model.test?.interval ?? [];
  const tested = model.test
    ? ` Tested on ${model.test.images} pictures: ${percent(model.test.accuracy)} right (${percent(low)} to ${percent(high)}).`
    : " Not tested.";
  $("about").textContent = `Knows ${few}.${tested}`;
}

const chosen = () => models.find((m) => m.name === $("model").value) ?? models[0];

function add(files) {
  const pictures = [...files].filter((f) => f instanceof Blob);
  if (!pictures.length) return say("That was no file: drop or paste a picture.");
  for (const file of pictures) {
    const card = $("card").content.firstElementChild.cloneNode(true);
    const image = card.querySelector("figure img");
    image.src = URL.createObjectURL(file);
    image.alt = `Your picture ${file.name ?? ""}`;
    card.querySelector("figcaption").textContent = file.name ?? "pasted picture";
    card.querySelector("h2").textContent = "…";
    card.querySelector(".remove").addEventListener("click", () => remove(card));
    $("cards").prepend(card);
    results.set(card, { name: file.name ?? "", own: image.src });
    waiting.push({ card, file });
  }
  $("tools").hidden = false;
  pump();
}

function pump() {
  while (!stopped && models.length && running < AT_ONCE && waiting.length) {
    running += 1;
    const job = waiting.shift();
    classify(job).finally(() => { running -= 1; pump(); });
  }
}

async function classify(job) {
  const { card, file } = job;
  const model = chosen();
  const query = new URLSearchParams({ model: model.name, top: 5, explain: model.explains.join(",") });
  try {
    const told = await ask(`v1/predict?${query}`, { method: "POST", body: file });
    show(card, told.predictions[0], told);
  } catch (error) {
    if (error.again) return void waiting.unshift(job);
    card.classList.add("failed");
    card.querySelector("h2").textContent = "No answer";
    card.querySelector(".reason").textContent = error.message;
    card.querySelector(".copy").hidden = true;
    results.set(card, { ...results.get(card), error: error.message });
    say(`${file.name ?? "The picture"}: ${error.message}`);
  }
}

function show(card, answer, told) {
  if (!results.has(card)) return; // removed meanwhile
  results.set(card, { ...results.get(card), answer });
  const title = answer.rejected ? "None of these" : answer.class;
  card.classList.toggle("none", answer.rejected);
  card.querySelector("h2").textContent = title;
  card.querySelector(".reason").textContent = answer.rejected
    ? `${answer.reason}. Of the classes, ${answer.class} would be the nearest.`
    : `${percent(answer.probability)} sure`;
  card.querySelector("dl").replaceChildren(...answer.top.flatMap(({ class: name, probability }) => {
    const [dt, bar, share, meter] = ["dt", "dd", "dd", "meter"].map((tag) => document.createElement(tag));
    dt.textContent = name;
    meter.value = probability;
    meter.setAttribute("aria-hidden", "true");
    bar.append(meter);
    share.className = "share";
    share.textContent = percent(probability);
    return [dt, bar, share];
  }));
  if (answer.map) withMap(card, answer);
  if (answer.neighbours?.length) {
    card.querySelector(".near").hidden = false;
    card.querySelector(".near ul").replaceChildren(...answer.neighbours.map((near) => {
      const item = document.createElement("li");
      const image = new Image();
      image.src = near.thumbnail;
      image.alt = `Training picture of ${near.label}`;
      item.append(image, near.label);
      return item;
    }));
  }
  card.querySelector(".copy").addEventListener("click", async () => {
    const { map, neighbours, ...plain } = answer;
    await navigator.clipboard?.writeText(JSON.stringify({ model: told.model, version: told.version, ...plain }, null, 2));
    say("Copied.");
  });
  say(`${results.get(card).name || "Picture"}: ${title}${answer.rejected ? "" : `, ${percent(answer.probability)}`}`);
}

function withMap(card, answer) {
  const [button, image] = [card.querySelector(".look"), card.querySelector("figure img")];
  const { own } = results.get(card);
  button.hidden = false;
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "The picture" : "Where it looked";
    image.src = on ? answer.map : own;
  });
}

function remove(card) {
  const next = card.nextElementSibling ?? card.previousElementSibling;
  URL.revokeObjectURL(results.get(card).own);
  results.delete(card);
  const at = waiting.findIndex((job) => job.card === card);
  if (at >= 0) waiting.splice(at, 1);
  card.remove();
  $("tools").hidden = results.size === 0;
  (next ?? $("files")).focus();
}

function csv() {
  // A name that begins like a formula must not become one in a spreadsheet.
  const cell = (value) => `"${String(value ?? "").replace(/^([=+\-@\t\r])/, "'$1").replaceAll('"', '""')}"`;
  const number = (value) => (value ?? "");
  const rows = [...results.values()].map(({ name, answer, error }) => [
    cell(name), cell(answer ? (answer.rejected ? "" : answer.class) : ""), number(answer?.probability),
    answer ? answer.rejected : "", cell(answer?.reason), cell(error),
  ].join(","));
  return `image,class,probability,rejected,reason,error\r\n${rows.join("\r\n")}\r\n`;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

let stream = null;
async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    return say("The camera needs https, or localhost; choose a picture instead.");
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    return say("There is no camera here, or it isn't allowed.");
  }
  $("video").srcObject = stream;
  $("shot").showModal();
}

function takePicture() {
  const [video, canvas] = [$("video"), document.createElement("canvas")];
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { add([new File([blob], "camera.jpg", { type: "image/jpeg" })]); $("shot").close(); }, "image/jpeg", 0.92);
}

$("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
$("model").addEventListener("change", introduce);
$("camera").addEventListener("click", openCamera);
$("take").addEventListener("click", takePicture);
$("close").addEventListener("click", () => $("shot").close());
$("shot").addEventListener("close", () => { stream?.getTracks().forEach((track) => track.stop()); stream = null; });
$("save").addEventListener("click", save);
$("clear").addEventListener("click", () => [...results.keys()].forEach(remove));
$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  begin();
});
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) add(event.clipboardData.files); });
document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); add(event.dataTransfer.files); });
begin();
