"use strict";
const svg = document.getElementById("network");
const boxes = [...svg.querySelectorAll(".box")];
const rows = [...document.querySelectorAll("#groups li")];
const search = document.getElementById("search");
const told = document.getElementById("told");
const found = document.getElementById("found");
const whole = svg.dataset.size.split(" ").map(Number);
let view = [...whole];
let kept = null;

const groupsOf = (box) => (box.dataset.groups ? box.dataset.groups.split(" ") : []);
const textOf = (box) => box.querySelector("title").textContent;

function light(test) {
  svg.classList.toggle("dimmed", test !== null);
  boxes.forEach((box) => box.classList.toggle("lit", test !== null && test(box)));
}

// What is lit without the mouse: the group that was clicked, else what the search finds.
function settle() {
  const words = search.value.trim().toLowerCase();
  rows.forEach((row) => row.classList.toggle("kept", kept !== null && kept.has(row.dataset.group)));
  if (kept !== null) light((box) => groupsOf(box).some((g) => kept.has(g)));
  else if (words) light(matches(words));
  else light(null);
}

function matches(words) {
  const groups = new Set(rows.filter((row) => row.textContent.toLowerCase().includes(words))
    .map((row) => row.dataset.group));
  return (box) => box.dataset.words.includes(words) || groupsOf(box).some((g) => groups.has(g));
}

function hover(groups, text) {
  if (text) told.textContent = text;
  if (kept === null && groups.length) light((box) => groupsOf(box).some((g) => groups.includes(g)));
}

function keep(groups) {
  const same = kept !== null && groups.every((g) => kept.has(g));
  kept = groups.length && !same ? new Set(groups) : null;
  settle();
}

boxes.forEach((box) => {
  box.addEventListener("mouseenter", () => hover(groupsOf(box), textOf(box)));
  box.addEventListener("mouseleave", settle);
  box.addEventListener("click", () => { if (!dragged) keep(groupsOf(box)); });
});
rows.forEach((row) => {
  row.addEventListener("mouseenter", () => hover([row.dataset.group], row.title));
  row.addEventListener("mouseleave", settle);
  row.addEventListener("click", () => keep([row.dataset.group]));
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") keep([row.dataset.group]); });
});

search.addEventListener("input", () => {
  const words = search.value.trim().toLowerCase();
  kept = null;
  rows.forEach((row) => row.classList.toggle("hidden", !row.textContent.toLowerCase().includes(words)));
  if (!rows.some((row) => !row.classList.contains("hidden"))) {
    rows.forEach((row) => row.classList.remove("hidden"));
  }
  settle();
  const hits = words ? boxes.filter(matches(words)) : [];
  found.textContent = words ? `${hits.length} of ${boxes.length} boxes; Enter goes to the first` : "";
});
search.addEventListener("keydown", (event) => {
  const words = search.value.trim().toLowerCase();
  const hit = event.key === "Enter" && words ? boxes.find(matches(words)) : null;
  if (hit) show(hit);
});

function look() {
  svg.setAttribute("viewBox", view.join(" "));
}

function show(box) {
  const at = box.transform.baseVal.consolidate().matrix;
  const width = Math.min(whole[2], 900);
  const height = (width * svg.clientHeight) / svg.clientWidth;
  view = [at.e - width / 2 + 80, at.f - height / 3, width, height];
  look();
}

function start() {
  // A tall network begins at its top, at a readable size.
  const width = Math.max(svg.clientWidth / 1.2, Math.min(whole[2], 1600));
  const height = (width * svg.clientHeight) / svg.clientWidth;
  view = [(whole[2] - width) / 2, 0, width, Math.min(height, Math.max(whole[3], height))];
  look();
}

svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  const factor = Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.004);
  const area = svg.getBoundingClientRect();
  const scale = Math.max(view[2] / area.width, view[3] / area.height);
  const width = area.width * scale, height = area.height * scale;
  const left = view[0] - (width - view[2]) / 2, top = view[1] - (height - view[3]) / 2;
  const x = (event.clientX - area.left) / area.width, y = (event.clientY - area.top) / area.height;
  view = [left + x * width * (1 - factor), top + y * height * (1 - factor), width * factor, height * factor];
  look();
}, { passive: false });

let from = null;
let dragged = false;
svg.addEventListener("pointerdown", (event) => {
  from = [event.clientX, event.clientY, view[0], view[1]];
  dragged = false;
});
window.addEventListener("pointermove", (event) => {
  if (from === null) return;
  const scale = Math.max(view[2] / svg.clientWidth, view[3] / svg.clientHeight);
  const dx = event.clientX - from[0], dy = event.clientY - from[1];
  dragged = dragged || Math.abs(dx) + Math.abs(dy) > 4;
  if (!dragged) return;
  svg.classList.add("moving");
  view[0] = from[2] - dx * scale;
  view[1] = from[3] - dy * scale;
  look();
});
window.addEventListener("pointerup", () => { from = null; svg.classList.remove("moving"); });
document.getElementById("whole").addEventListener("click", () => { view = [...whole]; look(); });
start();
