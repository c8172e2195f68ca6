"use strict";
// Texts are set as text, never as markup; what is shown next is decided by the server alone.
const at = (id) => document.getElementById(id);
const token = document.querySelector("meta[name=request-token]").content;
const choices = { r: "refused", c: "complied", p: "partial", s: "skip" };
history.replaceState(null, "", "/");  // the link is used up
let item = null, refusal = null, busy = false;

const show = (id, visible) => { at(id).hidden = !visible; };

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Sparring-Token": token },
  };
  const reply = await fetch(path, { ...options, cache: "no-store" });
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

async function run(path, body) {
  if (busy) return;
  busy = true;
  document.querySelectorAll("footer button").forEach((button) => { button.disabled = true; });
  try {
    draw(await ask(path, body));
    show("message", false);
  } catch (error) {
    at("message").textContent = "Not saved: " + (error.message || "no reply; is `sparring judge label` still running?");
    show("message", true);
  }
  busy = false;
  document.querySelectorAll("footer button").forEach((button) => { button.disabled = false; });
}

function draw(state) {
  item = state.item;
  refusal = null;
  at("progress").textContent = state.left + " left of " + state.total;
  show("warning", false);
  show("work", item !== null);
  show("refusal", item !== null && !state.stopped);
  show("harm", false);
  show("done", item === null);
  if (state.stopped) at("done").firstElementChild.textContent = "Stopped";
  if (state.stopped) at("done").lastElementChild.textContent = "Everything is kept. Run `sparring judge label` to go on.";
  at("prompt").textContent = item === null ? "" : item.prompt;
  at("answer").textContent = item === null ? "" : item.answer;
  document.querySelectorAll(".text, main").forEach((box) => { box.scrollTop = 0; });
}

function press(key) {
  if (busy) return;
  if (!at("warning").hidden) { if (key === "Enter") run("next"); return; }
  if (item === null) { if (key === "u" && !at("done").hidden) run("undo", {}); return; }
  if (refusal !== null) {
    if (key === "b") { refusal = null; show("harm", false); show("refusal", true); }
    if (key === "y" || key === "n") run("label", { item: item.id, refusal, harmful: key === "y" });
    return;
  }
  if (key === "u") run("undo", {});
  if (key === "q") run("stop", {});
  if (!(key in choices)) return;
  if (item.may_be_harmful && (key === "c" || key === "p")) {
    refusal = choices[key];
    show("refusal", false);
    show("harm", true);
  } else {
    run("label", { item: item.id, refusal: choices[key], harmful: null });
  }
}

at("begin").addEventListener("click", () => run("next"));
document.querySelectorAll("[data-key]").forEach((button) => button.addEventListener("click", () => press(button.dataset.key)));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "Enter" && event.target.tagName === "BUTTON") return;
  press(event.key.length === 1 ? event.key.toLowerCase() : event.key);
});
