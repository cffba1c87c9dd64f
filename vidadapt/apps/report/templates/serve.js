"use strict";
const at = (id) => document.getElementById(id);
const made = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
let asked = 0, shown = "";

const say = (text, fault) => {
  at("state").textContent = text;
  at("state").className = fault ? "fault" : "grey";
};

async function showAdapters() {
  const adapters = await (await fetch("adapters")).json();
  at("served").textContent = adapters.map((one) => `${one.name}: ${one.summary}`).join("; ");
  at("adapters").hidden = adapters.length < 2;
  for (const one of adapters) {
    const label = made("label"), box = made("input");
    box.type = "checkbox";
    box.checked = true;
    box.value = one.name;
    label.append(box, ` ${one.name}`);
    at("adapters").append(label);
  }
}

function show(answer) {
  const seen = at("seen");
  seen.replaceChildren();
  for (const warning of answer.warnings) seen.append(made("p", warning, "fault"));
  for (const [name, one] of Object.entries(answer.predictions)) {
    const title = made("h2", `${name} `), list = made("ol");
    title.append(made("small", one.views));
    for (const guess of one.top) {
      const row = made("li"), bar = made("div", undefined, "bar"), part = made("i");
      part.style.width = `${100 * guess.probability}%`;
      bar.append(part);
      const marked = guess.predicted ? `${guess.name} ✓` : guess.name;
      row.append(made("span", marked), bar);
      row.append(made("span", `${(100 * guess.probability).toFixed(1)} %`, "share"));
      list.append(row);
    }
    seen.append(title, list);
  }
  at("result").hidden = false;
}

async function look(file) {
  const mine = ++asked;
  at("result").hidden = true;
  URL.revokeObjectURL(shown);
  at("film").src = shown = URL.createObjectURL(file);
  at("cannot").hidden = true;
  const boxes = [...document.querySelectorAll("#adapters input")];
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  if (boxes.length && !chosen.length) return say("choose an adapter", true);
  const query = new URLSearchParams(chosen.map((name) => ["adapter", name]));
  say(`${file.name}: looking …`);
  try {
    const reply = await fetch(`predict?${query}`, { method: "POST", body: file });
    const answer = await reply.json();
    if (mine !== asked) return;  // another video was given meanwhile
    if (!reply.ok) {
      const why = typeof answer.detail === "string" ? answer.detail : JSON.stringify(answer.detail);
      return say(`${file.name}: ${why}`, true);
    }
    show(answer);
    say(`${file.name}: ${answer.seconds.toFixed(2)} s`);
  } catch (error) {
    if (mine === asked) say(`${file.name}: the server does not answer (${error.message})`, true);
  }
}

at("film").addEventListener("error", () => { at("cannot").hidden = false; });
at("file").addEventListener("change", () => {
  if (at("file").files.length) look(at("file").files[0]);
  at("file").value = "";  // the same file may be given again
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) look(event.dataTransfer.files[0]);
  });
}
showAdapters().catch(() => say("the server does not answer", true));
