// Draws what flows into what on the overview, and lights up the neighbours of the card one looks at. Searches for what
// was typed before anything listened.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function middle(card, side, frame) {
  const box = card.getBoundingClientRect();
  return { x: (side === "right" ? box.right : box.left) - frame.left, y: box.top - frame.top + Math.min(box.height / 2, 26) };
}

function curve(from, to, frame) {
  const down = Math.abs(from.getBoundingClientRect().left - to.getBoundingClientRect().left) < 40;
  const a = middle(from, down ? "left" : "right", frame);
  const b = middle(to, "left", frame);
  if (down) {
    return `M${a.x} ${a.y} C${a.x - 26} ${a.y} ${b.x - 26} ${b.y} ${b.x - 5} ${b.y}`;
  }
  const bend = Math.max(24, Math.min(90, (b.x - a.x) / 2));
  return `M${a.x} ${a.y} C${a.x + bend} ${a.y} ${b.x - bend} ${b.y} ${b.x - 5} ${b.y}`;
}

function draw() {
  const walk = document.getElementById("walk");
  if (!walk) return;
  const svg = walk.querySelector("svg.edges");
  svg.replaceChildren();
  const frame = walk.getBoundingClientRect();
  if (getComputedStyle(svg).display === "none") return;
  svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
  const cards = new Map([...walk.querySelectorAll("[data-node]")].map((card) => [card.dataset.node, card]));
  for (const card of cards.values()) {
    for (const name of card.dataset.from.split(" ").filter(Boolean)) {
      const from = cards.get(name);
      if (!from) continue;
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", curve(from, card, frame));
      path.dataset.ends = `${name} ${card.dataset.node}`;
      // What leaps over a stage would run behind its cards: shown only when one of its ends is looked at.
      path.classList.toggle("long", middle(card, "left", frame).x - middle(from, "right", frame).x > card.offsetWidth);
      svg.append(path);
      const tip = document.createElementNS(SVG, "path");
      const b = middle(card, "left", frame);
      tip.setAttribute("d", `M${b.x - 8} ${b.y - 4} L${b.x - 1} ${b.y} L${b.x - 8} ${b.y + 4} Z`);
      tip.setAttribute("class", "tip");
      tip.dataset.ends = path.dataset.ends;
      svg.append(tip);
    }
  }
}

function light(event) {
  const card = event.target.closest ? event.target.closest("[data-node]") : null;
  const node = card ? card.dataset.node : null;
  for (const path of document.querySelectorAll("svg.edges path")) {
    path.classList.toggle("lit", node !== null && path.dataset.ends.split(" ").includes(node));
  }
}

// A field can be typed into, or filled by the browser from an earlier visit, before the scripts are there.
function searchWhatWasTyped(event) {
  for (const field of event.target.querySelectorAll("input[type=search]")) {
    if (field.value !== field.defaultValue) field.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

document.addEventListener("htmx:after:init", searchWhatWasTyped);
document.addEventListener("mouseover", light);
document.addEventListener("focusin", light);
window.addEventListener("resize", draw);
window.addEventListener("load", draw);
// The walk is replaced as a whole while a deployment starts.
new MutationObserver(draw).observe(document.getElementById("main"), { childList: true });
draw();
