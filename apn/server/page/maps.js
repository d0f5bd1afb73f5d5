/* Drawn on request: the map of the parts, and the explanation. */
"use strict";
/** Blue over grey to vermilion, with more ink towards both ends; 0 real, 1 generated. */
function tileColour(probability) {
  const [ink, distance] = probability < 0.5 ? ["0 114 178", 1 - 2 * probability] : ["213 94 0", 2 * probability - 1];
  return `rgb(${ink} / ${(0.12 + 0.58 * distance).toFixed(2)})`;
}

/** The parts cut where they overlap, so that nothing is painted twice: there the mean of their probabilities. */
function cells(tiles) {
  const edges = (side) => [...new Set(tiles.flatMap((tile) => [tile[side], tile[side] + tile.size]))].sort((a, b) => a - b);
  const spans = (side) => edges(side).slice(1).map((end, i) => [edges(side)[i], end]);
  return spans("top").flatMap(([top, bottom]) => spans("left").flatMap(([left, right]) => {
    const over = tiles.filter((tile) => tile.left <= left && right <= tile.left + tile.size && tile.top <= top && bottom <= tile.top + tile.size);
    const probability = over.reduce((sum, tile) => sum + tile.probability, 0) / over.length;
    return over.length ? [{ left, top, right, bottom, probability }] : [];
  }));
}

function tiles(item, row, frame) {
  const [first] = row.tiles;
  if (!first || (row.tiles.length === 1 && first.size >= Math.max(row.width, row.height))) return null;  // no parts, or one that is all of it
  const layer = make("div", { hidden: true });
  layer.setAttribute("aria-hidden", "true");  // the table below the map says the same
  const lay = (element, left, top, right, bottom) => {
    element.style.left = `${100 * left / row.width}%`;
    element.style.top = `${100 * top / row.height}%`;
    element.style.width = `${100 * (right - left) / row.width}%`;
    element.style.height = `${100 * (bottom - top) / row.height}%`;
    layer.append(element);
    return element;
  };
  for (const { left, top, right, bottom, probability } of cells(row.tiles)) {
    lay(make("div", { className: "cell" }), left, top, right, bottom).style.background = tileColour(probability);
  }
  for (const { left, top, size, probability } of row.tiles) {
    lay(make("div", { className: "tile" }, make("span", { textContent: score(probability) })), left, top, left + size, top + size);
  }
  frame.append(layer);
  const key = make("div", { hidden: true }, ramp([0, .25, .5, .75, 1].map(tileColour).join(), ["0, photograph", "0.5", "1, generated"]),
    make("p", { className: "quiet", textContent: "Each square is a part that was scored by itself, and the probability above comes from all of them; where they overlap, the colour is that of their mean; what lies outside was not looked at." }),
    make("details", {}, named(make("summary", { textContent: "Scores as a table" }), item, "scores"), table(countParts(row), ["left", "top", "size", "probability"],
      row.tiles.map((tile) => [tile.left, tile.top, tile.size, score(tile.probability)]))));
  const toggle = named(make("button", { type: "button", textContent: "Show the score of each part" }), item, "parts");
  toggle.setAttribute("aria-pressed", "false");
  toggle.onclick = () => {
    const shown = layer.hidden;
    layer.hidden = key.hidden = !shown;
    item.card.classList.toggle("mapped", shown);
    toggle.setAttribute("aria-pressed", String(shown));
  };
  return make("div", { className: "map" }, toggle, key);
}

/** A button that asks for the explanation once, then shows and hides it; null where this server has none. */
function explanation(item, row) {
  if (!model.explanations?.available) return null;
  const place = make("div", { className: "explanation", hidden: true });
  const note = make("p", { className: "quiet" });  // the status line may be out of sight
  const button = named(make("button", { type: "button", textContent: "Explain" }), item, "explain");
  button.setAttribute("aria-expanded", "false");
  const show = (shown) => {
    place.hidden = !shown;
    item.card.classList.toggle("explained", shown);
    button.setAttribute("aria-expanded", String(shown));
    button.textContent = shown ? "Hide the explanation" : "Explain";
  };
  button.onclick = async () => {
    if (button.ariaBusy === "true") return;
    if (place.hasChildNodes()) return show(place.hidden);
    button.ariaBusy = "true";  // not disabled, which would lose the focus
    button.textContent = "Explaining …";
    note.textContent = "The first explanation takes longer.";
    say(`Explaining ${printable(item.file.name)}. The first one takes longer.`);
    try {
      const answer = await post("v1/explain", item);
      if (!answer.panels) throw new Error(answer.detail);
      place.append(...panels(item, answer, row));
      note.textContent = "";
      show(true);
      if (item.round === round) say(`${printable(item.file.name)} is explained.`);
    } catch (error) {
      button.textContent = "Explain";
      note.textContent = `Could not be explained: ${error.message}`;
      if (error.status === 401) showDoor();
      else if (item.round === round) say(`${printable(item.file.name)} could not be explained: ${error.message}`);
    }
    button.ariaBusy = "false";
  };
  return make("div", { className: "map" }, button, note, place);
}

function panels(item, answer, row) {
  const draw = (panel) => make("figure", {},
    make("img", { src: panel.image, alt: panel.title, width: panel.width, height: panel.height }),
    panel.scale && ramp(panel.scale.colours.join(), [panel.scale.low, panel.scale.label, panel.scale.high]),
    make("figcaption", {}, make("strong", { textContent: panel.title }), make("span", { className: "quiet", textContent: ` ${panel.meaning}` })));
  const small = (panel) => /band|purified|residual/.test(panel.name);
  const { left, top, size } = answer.tile;
  const inside = left + size <= row.width && top + size <= row.height;
  const part = inside ? `the part of ${size} pixels at left ${left}, top ${top}` : `one part of ${size} pixels, which the picture is repeated to fill`;
  return [
    make("p", { className: "quiet", textContent: "This shows what moved the model, not whether it was right to be moved. A picture that looks like a photograph has brightest places too. Trust the evidence before the maps of the branches: those lie mostly where there is fine detail." }),
    make("div", { className: "panels" }, ...answer.panels.filter((panel) => !small(panel)).map(draw)),
    make("div", { className: "panels small" }, ...answer.panels.filter(small).map(draw)),
    make("details", {}, named(make("summary", { textContent: `Bands: ${answer.bands.length}, as a table` }), item, "bands"),
      table(`Frequencies that each band keeps, in ${answer.unit} (0 is even, 0.5 changes at every pixel), of ${part}. Effect: what the logit, generated less real, would lose without the band.`,
        ["band", "weight", "effect", "keeps of", "horizontal", "vertical"], answer.bands.flatMap(bandRows))),
  ];
}

function bandRows(band) {
  const signed = (effect) => `${effect < 0 ? "-" : "+"}${Math.abs(effect).toFixed(2)}`;
  const digits = (frequency) => Number(frequency.toFixed(3));
  const span = (component, axis) => {
    const found = band.intervals.filter((one) => one.component === component && one.axis === axis && !one.void);
    if (!found.length) return "0 only";
    return `${digits(Math.min(...found.map((one) => one.low)))} to ${digits(Math.max(...found.map((one) => one.high)))}`;
  };
  return ["amplitude", "phase"].map((component) => [band.number, band.weight.toFixed(3), signed(band.effect), component, span(component, "horizontal"), span(component, "vertical")]);
}
