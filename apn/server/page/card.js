/* One card: a picture, its verdict, and what both rest on. */
"use strict";
function figure(item, row) {
  const frame = make("div", { className: "frame" });
  const image = make("img", { src: item.picture, alt: "", decoding: "async" });
  const replace = (reason) => {
    const blank = make("div", { className: "blank", textContent: reason });
    if (row?.width) blank.style.aspectRatio = `${row.width} / ${row.height}`;
    image.replaceWith(blank);
  };
  image.onerror = () => replace("This browser cannot show this picture.");
  image.onload = () => {  // a map of the parts would lie beside them
    const shape = row?.width ? image.naturalWidth / image.naturalHeight * row.height / row.width : 1;
    if (Math.abs(Math.log(shape)) > 0.02) replace("This browser shows this picture turned, not upright as it was judged.");
    else if (row?.frames > 1) image.replaceWith(still(image));
  };
  frame.append(image);
  return frame;
}

/** The first frame of a picture that may move: the others were not scored, and a map of the parts would lie on them. */
function still(image) {
  const reduction = Math.max(1, image.naturalWidth / 1600, image.naturalHeight / 1600);
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side / reduction)));
  const canvas = make("canvas", { width, height, ariaHidden: "true" });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);  // of an animation the first frame, by definition
  return canvas;
}

function title(item) {
  return make("h3", { id: item.id, textContent: printable(item.file.name) });
}

function headline(kind, text) {
  return make("p", { className: `verdict ${kind}` }, icon(kind), make("span", { textContent: text }));
}

function failure(item, row) {
  return [figure(item, row), make("div", {}, title(item),
    headline("failed", FAILED), make("p", { textContent: row.error }), row.again ? tryAgain(item) : null, recorded(row))];
}

function recorded(row) {
  return row.record ? make("p", { className: "quiet record", textContent: row.record }) : null;
}

/** A button that checks a picture once more which the server did not answer for. */
function tryAgain(item) {
  const button = named(make("button", { type: "button", textContent: "Try again" }), item, "again");
  button.onclick = () => {
    item.round.counts.failed -= 1;
    item.card.tabIndex = -1;
    item.card.focus();  // the button goes
    enter(item);
    report();
    pump();
  };
  return button;
}

function findings(item, row) {
  const frame = figure(item, row);
  const long = row.width >= 4 * row.height ? "across" : row.height >= 4 * row.width ? "down" : "";
  const shown = long ? make("div", { className: `panorama ${long}`, tabIndex: 0 }, frame) : frame;  // arrow keys move it
  if (long) {
    named(shown, item, "panorama");
    shown.setAttribute("role", "group");
    shown.setAttribute("aria-label", `Picture, scrolls ${long === "across" ? "sideways" : "down"} where its parts are shown`);
  }
  const facts = [row.format, `${row.width} × ${row.height} pixels`, row.frames > 1 ? `${row.frames} pictures in the file, only the ${CHOSEN[row.format] ?? "first"} is scored` : null];
  return [shown, make("div", {},
    title(item),
    make("p", { className: "quiet", textContent: facts.filter(Boolean).join(", ") }),
    headline(row.verdict, WORDS[row.verdict]),
    make("p", { textContent: `Probability of being AI-generated: ${chance(row)}` }),
    lookedAt(row),
    ...scale(row),
    make("p", { textContent: meaning(row) }),
    disagreeing(row),
    item.copied ? make("p", { className: "warning", textContent: "Pasted: the browser saved the copied picture anew, " +
      "without what its file says of its origin. Save the picture from where it is and drop that file instead." }) : null,
    ...row.warnings.map((text) => make("p", { className: "warning", textContent: `Warning: ${text}` })),
    tiles(item, row, frame), explanation(item, row), stability(item, row), metadata(item, row), recorded(row))];
}

const countParts = (row) => row.tiles.length === 1 ? "one part" : `${row.tiles.length} parts`;

/** How much of the picture was scored, where a good deal was not; null where it is nearly all. */
function lookedAt(row) {
  const union = (starts, size) => [...new Set(starts)].sort((a, b) => a - b)
    .reduce((sum, start, i, all) => sum + Math.min(size, (all[i + 1] ?? Infinity) - start), 0);  // parts may overlap
  const size = row.tiles[0]?.size ?? 0;
  const [across, down] = ["left", "top"].map((side) => union(row.tiles.map((tile) => tile[side]), size));
  const share = across * down / (row.width * row.height);
  if (!size || share > 0.9) return null;
  return make("p", { className: "quiet", textContent: `Judged by ${countParts(row)} of ${size} × ${size} pixels, ` +
    `${Number((100 * share).toPrecision(2))} % of the picture: what was changed elsewhere is not seen.` });
}

/** The verdict that the probability alone would give; the row says `unsure` also where re-deliveries disagree with it. */
function band(probability) {
  const { real_below, generated_from } = model.checked_thresholds;
  return probability >= generated_from ? "generated" : probability < real_below ? "real" : "unsure";
}

/** The probability, and whether it counts. */
function chance(row) {
  return score(row.probability) + (row.verdict === band(row.probability) ? "" : ", which does not stand here");
}

function meaning(row) {
  const { real_below, generated_from, target_fpr, target_fnr } = model.checked_thresholds;
  const alone = band(row.probability);
  if (row.verdict !== alone) {
    const unstable = row.stability.some((delivery) => delivery.verdict !== alone);
    return `By itself the probability says “${WORDS[alone]}”, but ` + (unstable
      ? "that changes when the picture is saved, resized or shifted once more, so the verdict is withdrawn."
      : "it says nothing of this picture, so there is no verdict: the warning says why.");
  }
  const rate = (target, wrong) => target == null ? "These weights are not calibrated: how often such a verdict is wrong is not known."
    : `At this threshold (${exact(alone === "real" ? real_below : generated_from)}) at most ${percent(target)} of ${wrong}, among pictures like those the model was calibrated on. ` +
      "That is not the chance that this verdict is wrong, which also depends on how many of the pictures you check are generated.";
  return {
    generated: rate(target_fpr, "real photographs are called generated"),
    real: rate(target_fnr, "generated pictures are called photographs"),
    unsure: `The probability lies between ${exact(real_below)} and ${exact(generated_from)}, where the model is too often wrong to give an answer.`,
  }[alone];
}

/** How many parts say the opposite of the verdict by themselves; null where none does. */
function disagreeing(row) {
  const opposite = { generated: "real", real: "generated" }[row.verdict];
  const parts = row.tiles.filter((tile) => band(tile.probability) === opposite).length;
  if (!parts) return null;
  return make("p", { className: "warning", textContent: `By themselves ${parts} of ${row.tiles.length} parts say “${WORDS[opposite]}”. ` +
    "The verdict averages all parts: in a screenshot, a collage or an edited picture it can be wrong about one of them." });
}

function scale(row) {
  const { real_below, generated_from } = model.checked_thresholds;
  const zones = [["real", 0, real_below, `photograph: below ${exact(real_below)}`], ["unsure", real_below, generated_from, "unsure: between"],
    ["generated", generated_from, 1, `generated: from ${exact(generated_from)}`]].filter(([, from, to]) => from < to);
  const bar = make("div", { className: row.verdict === band(row.probability) ? "scale" : "scale void" });
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `Scale from 0 to 1: probability ${chance(row)}; ${zones.map((zone) => zone[3]).join("; ")}`);
  for (const [kind, from, to] of zones) {
    const zone = make("span", { className: `zone ${kind}` });
    zone.style.left = `${100 * from}%`;
    zone.style.width = `${100 * (to - from)}%`;
    bar.append(zone);
  }
  const marker = make("span", { className: "marker" });
  marker.style.left = `calc(${100 * row.probability}% - 1.5px)`;
  bar.append(marker);
  const legend = make("ul", { className: "legend quiet" }, ...zones.map(([kind, , , text]) =>
    make("li", {}, make("span", { className: `zone swatch ${kind}` }), text)));
  return [bar, legend];
}


function stability(item, row) {
  if (!row.stability.length) return null;
  const alone = band(row.probability);
  const same = row.stability.filter((delivery) => delivery.verdict === alone).length;
  return make("details", {}, named(make("summary", { textContent: `Stability: ${same} of ${row.stability.length} re-deliveries agree` }), item, "stability"),
    table("The picture was saved, resized or shifted once more and scored again. A verdict stands only where all agree.", ["delivery", "probability", "verdict"],
      row.stability.map((delivery) => [delivery.name, score(delivery.probability), SHORT[delivery.verdict]])));
}

function metadata(item, row) {
  const entries = Object.entries(row.metadata).map(([field, value]) => [field.replaceAll("_", " "), value]);
  const { generator, digital_source_type, content_credentials } = row.metadata;
  const open = Boolean(generator || digital_source_type || content_credentials);  // may tell more than any score
  const told = generator ? ", the file names an image generator" : "";
  return make("details", { open }, named(make("summary", { textContent: `Metadata: ${entries.length || "no"} finding${entries.length === 1 ? "" : "s"}${told}` }), item, "metadata"),
    entries.length ? table("Found in the file, not used for the score. Anyone can write or remove it.", ["field", "value"], entries)
      : make("p", { className: "quiet", textContent: "The file says nothing of its origin, which is common and proves nothing." }));
}
