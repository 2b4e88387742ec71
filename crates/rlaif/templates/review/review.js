"use strict";
// Keys press what the page already has; without this file the buttons do.
let sent = false;
for (const form of document.forms) {
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault(); // a key held down must not judge the next pair too
    sent = true;
  });
}
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const at = document.activeElement;
  if (event.key === "Escape" && at) return at.blur();
  const writes = at && (at.tagName === "TEXTAREA" || (at.tagName === "INPUT" && at.type !== "radio"));
  const chooses = at && at.type === "radio" && event.key.startsWith("Arrow");
  if (writes || chooses || event.repeat) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const target = Array.from(document.querySelectorAll("[data-key]")).find((one) => one.dataset.key === key);
  if (!target) return;
  event.preventDefault();
  if (target.tagName === "DETAILS") target.open = !target.open;
  else if (target.tagName === "TEXTAREA") target.focus();
  else target.click();
});
