/* From a file to its answer: the server, the queue, and what is told meanwhile. */
"use strict";
const AT_ONCE = 2;  // requests in flight: enough for the server to batch, few enough for a phone's uplink
const PATIENCE_MS = 300_000;  // so long a server that is busy is asked again: 300 pictures of somebody else, or opening PyTorch
const UNDO_MS = 30_000;  // so long what was cleared can be had back; not for good, as others may come to this screen

/** All pictures until they are cleared. counts: by kind, which is a verdict, or "failed". */
const begin = () => ({ waiting: [], pictures: [], counts: {}, get total() { return this.pictures.length; } });
let model = null, token = "", running = 0, round = begin();
let cleared = null;  // the round before this one, with its cards, while it can be had back
let unmet = false;  // whether it was said why there is no model yet
let held = false;  // whether pictures wait for a token, or for a server that is gone

/* ---- talking to the server ---- */

class Refused extends Error {
  constructor(status, text, retryAfter) { super(text); this.status = status; this.retryAfter = retryAfter; }
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  const body = await answer.json().catch(() => ({}));
  if (answer.ok || body.detections?.length) return body;
  throw new Refused(answer.status, body.detail ?? `the server answered ${answer.status}`, answer.headers.get("Retry-After"));
}

async function meetModel() {
  try {
    introduce(await ask("v1/model"));
  } catch (error) {
    if (error.status === 401) showDoor();
    else {
      unmet = true;
      const rest = round.waiting.length ? ` ${round.waiting.length} of ${round.total} pictures wait until it can.` : "";
      say(`The server cannot be reached: ${error.message}.${rest} Trying again …`);
      setTimeout(meetModel, 3000);  // pictures may wait already
    }
    return;
  }
  byId("door").hidden = true;
  if (unmet || round.total) report();  // instead of why the model was not there; what else was said stays
  unmet = held = false;
  pump();
}

function introduce(described) {
  model = described;
  const { limits, checked_thresholds: thresholds } = model;
  byId("limits").textContent = `Up to ${size(limits.max_upload_bytes)} and ${limits.max_pixels / 1e6 >= 1 ? Math.floor(limits.max_pixels / 1e6) : limits.max_pixels / 1e6} megapixels each.`;
  byId("model").textContent = `Model ${model.name} ${model.version}, weights sha256 ${model.sha256}. ` +
    `Photograph below ${exact(thresholds.real_below)}, generated from ${exact(thresholds.generated_from)}.`;
  byId("kept").hidden = !model.explanations?.available;
}

function showDoor() {
  unmet = held = true;
  if (token) byId("door-text").textContent = "The server did not accept this token. Please check it.";
  byId("door").hidden = false;
  byId("token").focus();
  say("Please enter the access token.");
}

/* ---- the queue: one picture a request, a few requests at a time ---- */

function add(files, pasted = false) {
  if (!files.length) return;
  forget();
  for (const file of files) {
    const card = make("li", { className: "card result" });
    byId("results").append(card);
    const copied = pasted && file.name === "image.png";  // what browsers call a picture that was copied, not a file
    const picture = URL.createObjectURL(file);
    round.pictures.push(picture);
    enter({ file, card, picture, round, copied, id: `picture-${round.total}` });
  }
  report();
  pump();
}

function enter(item) {
  item.card.removeAttribute("aria-busy");
  item.card.replaceChildren(figure(item, null), make("div", {}, title(item), make("p", { className: "quiet", textContent: "Waiting …" })));
  item.round.waiting.push(item);
}

function pump() {
  while (model && !held && running < AT_ONCE && round.waiting.length) check(round.waiting.shift());
}

async function check(item) {
  running += 1;
  item.card.querySelector("p.quiet").textContent = "Checking …";
  item.card.setAttribute("aria-busy", "true");
  try {
    const fingerprint = await sha256(item.file);
    const row = await send(item);
    if (item.round === round || item.round === cleared?.round) finish(item, { ...row, record: record(item.file, fingerprint) });
  } catch (error) {
    if (item.round === round && error.status === 401) {
      round.waiting.unshift(item);
      showDoor();
    } else if (item.round === round) finish(item, { error: error.message, again: error.status === 0 || error.status >= 500 });
    else if (item.round === cleared?.round) enter(item);  // asked for once more should it come back
    if (error.status === 0 && !held) {  // the others wait until it is back
      held = true;
      meetModel();
    }
  }
  running -= 1;
  pump();
}

async function send(item) {
  const answer = await post("v1/detect", item);
  if (answer.model && answer.model.sha256 !== model.sha256) introduce(await ask("v1/model"));  // the server has others since
  return answer.detections[0];
}

/** Of the whole file; "" where the browser makes none: it does on https and on this machine. */
async function sha256(file) {
  if (file.size > model.limits.max_upload_bytes) return "";  // is not read
  const bytes = await file.arrayBuffer().catch(() => {
    throw new Error("The browser cannot read this file: it is a folder, or was moved or changed since. Choose the pictures themselves, or the file anew.");
  });
  if (!crypto.subtle) return "";
  return [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What a report has to name: when, by which weights, which file. */
function record(file, fingerprint) {
  const when = new Date().toISOString().replace("T", " ").replace(/\..*/, " UTC");
  return `Checked ${when} by ${model.name} ${model.version}, weights ${model.sha256.slice(0, 12)}. ` +
    `File of ${file.size} bytes${fingerprint && `, sha256 ${fingerprint}`}.`;
}

/** What the server says of a picture; asks again while it is busy, unless the card is gone. */
async function post(path, { file, round: begunIn }) {
  const limit = model.limits.max_upload_bytes;
  if (file.size > limit) throw new Error(`The file is larger than the ${size(limit)} that this server takes.`);
  for (const begun = Date.now(); ;) {
    const body = new FormData();
    body.append("files", file, file.name);
    try {
      return await ask(path, { method: "POST", body });
    } catch (error) {
      if (!(error instanceof Refused)) throw new Refused(0, "No answer: the server cannot be reached. Was it stopped?");
      if (error.status !== 503 || Date.now() - begun > PATIENCE_MS || begunIn !== round) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (Number(error.retryAfter) || 1)));  // a proxy may give a date, or none
    }
  }
}

function finish(item, row) {
  const kind = row.error ? "failed" : row.verdict, { counts } = item.round;
  counts[kind] = (counts[kind] ?? 0) + 1;
  item.card.dataset.kind = kind;
  item.card.removeAttribute("aria-busy");
  item.card.replaceChildren(...(row.error ? failure(item, row) : findings(item, row)));
  if (item.round === round) report(`${printable(item.file.name)}: ${row.error ? "not checked" : WORDS[row.verdict] + (row.verdict === "unsure" ? "" : `, probability ${score(row.probability)}`)}. `);
}

function report(news = "") {
  const { counts, total } = round;
  const failed = counts.failed ?? 0, done = Object.values(counts).reduce((sum, count) => sum + count, 0);
  showCounts();
  byId("progress").hidden = byId("clear").hidden = total === 0;
  byId("progress").max = Math.max(total, 1);
  byId("progress").value = done;
  // Of many pictures a screen reader tells every tenth part, not each one: it would fall behind by minutes.
  const told = !news || total <= 10 || done === total || Math.floor(10 * done / total) > Math.floor(10 * (done - 1) / total);
  say(total ? `${news}${done - failed} of ${total} pictures checked${failed ? `, ${failed} could not be` : ""}.` : "", told ? "polite" : "off");
}

/** How many pictures there are of each kind, on buttons that show this kind alone; none for a single picture. */
function showCounts() {
  const { counts, total } = round;
  byId("kinds").hidden = total < 2;
  for (const button of byId("kinds").children) {
    const { kind } = button.dataset, count = kind ? counts[kind] ?? 0 : total;
    button.lastChild.textContent = count;
    button.hidden = !count && button.ariaPressed === "false";
  }
}

/** Show the pictures of one kind, or all where it is "". */
function showOnly(kind) {
  byId("results").dataset.only = kind;
  for (const button of byId("kinds").children) button.ariaPressed = String(button.dataset.kind === kind);
  showCounts();
  if (byId("results").getBoundingClientRect().top < 0) byId("results").scrollIntoView();  // from the first of them
}

/** Told once: a screen reader would read the same text again. */
function say(text, live = "polite") {
  byId("status").ariaLive = live;
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

/* ---- cleared, and had back ---- */

function clearAll() {
  const told = `${round.total === 1 ? "1 picture" : `${round.total} pictures`} cleared. ` +
    `For ${UNDO_MS / 1000} seconds, or until others are added, this can be undone.`;
  const { only } = byId("results").dataset;
  cleared = { round, cards: [...byId("results").children], only, told, timer: setTimeout(forget, UNDO_MS) };
  byId("results").replaceChildren();
  round = begin();
  showOnly("");
  report();
  say(told);
  byId("undo").hidden = false;
  byId("undo").focus();
}

function undo() {
  const { cards, only } = cleared;
  clearTimeout(cleared.timer);
  round = cleared.round;
  cleared = null;
  byId("results").append(...cards);
  showOnly(only);
  report();
  pump();
  byId("clear").focus();
  byId("undo").hidden = true;
}

/** What was cleared is gone for good. */
function forget() {
  if (!cleared) return;
  clearTimeout(cleared.timer);
  cleared.round.pictures.forEach((picture) => URL.revokeObjectURL(picture));
  if (byId("status").textContent === cleared.told) say("");
  cleared = null;
  if (document.activeElement === byId("undo")) byId("choose").focus({ preventScroll: true });
  byId("undo").hidden = true;
}
