/* The ways in: files chosen, dropped or pasted; then the page begins. */
"use strict";
function take(files, way) {
  if (!files.length) say(`What was ${way} is not a file: save the picture first, then drop or choose it.`);
  add(files, way === "pasted");
}

function drop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  if (entries.some((entry) => entry.isDirectory)) addFolders(entries);
  else take(transfer.files, "dropped");
}

/** All files in these folders and beside them, in the order of their names; a name has the way to its file. */
async function addFolders(entries) {
  const promised = (object, method) => new Promise((resolve, reject) => object[method](resolve, reject));
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await promised(entry, "file");
      return files.push(new File([file], entry.fullPath.slice(1), { type: file.type }));
    }
    const reader = entry.createReader(), found = [];
    for (let some = [null]; some.length;) found.push(...some = await promised(reader, "readEntries"));  // a hundred at a time
    found.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    for (const one of found) if (!one.name.startsWith(".")) await walk(one);  // hidden: notes of the system
  };
  say("Looking into the folder …");
  try {
    for (const entry of entries) await walk(entry);
  } catch (error) {
    say(`The folder could not be read: ${error.message} Choose the pictures in it instead.`);
    return;
  }
  if (files.length) add(files);
  else say("There is no file in this folder.");
}

byId("kinds").append(...Object.entries({ "": "All", ...WORDS, failed: FAILED }).map(([kind, word]) => {
  const button = make("button", { type: "button", onclick: () => showOnly(kind) }, kind ? icon(kind) : null, `${word} `, make("strong"));
  if (kind) button.className = kind;
  button.dataset.kind = kind;
  return button;
}));
showOnly("");
byId("place").textContent = location.host;
byId("choose").onclick = () => byId("files").click();
byId("files").onchange = (event) => { add(event.target.files); event.target.value = ""; };
byId("clear").onclick = clearAll;
byId("undo").onclick = undo;
byId("door").onsubmit = (event) => { event.preventDefault(); token = byId("token").value; meetModel(); };
addEventListener("dragover", (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("drop").classList.remove("over"); });
addEventListener("drop", (event) => { event.preventDefault(); byId("drop").classList.remove("over"); drop(event.dataTransfer); });
addEventListener("paste", (event) => { if (event.target !== byId("token")) take(event.clipboardData.files, "pasted"); });
addEventListener("beforeunload", (event) => { if (round.total > 10) event.preventDefault(); });  // minutes of work: the browser asks first
addEventListener("beforeprint", () => {  // paper cannot be unfolded
  for (const folded of document.querySelectorAll("#results details:not([open])")) folded.open = folded.dataset.printed = true;
});
addEventListener("afterprint", () => {
  for (const unfolded of document.querySelectorAll("#results details[data-printed]")) {
    unfolded.open = false;
    delete unfolded.dataset.printed;
  }
});
meetModel();
