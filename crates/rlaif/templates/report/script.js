"use strict";
// Words under the pointer also below the picture, where a finger reaches them too; the lists can be narrowed. The page is whole without.
for (const figure of document.querySelectorAll("figure")) {
  const source = figure.querySelector(".source");
  const before = source.textContent;
  const tell = (event) => {
    const title = event.target.closest(".hit")?.querySelector("title");
    source.textContent = title ? title.textContent : before;
    source.classList.toggle("now", Boolean(title));
  };
  figure.addEventListener("pointerover", tell);
  figure.addEventListener("pointerdown", tell);
  figure.addEventListener("pointerleave", tell);
}
for (const form of document.querySelectorAll(".filters")) {
  const items = Array.from(form.parentElement.querySelectorAll(".list > details"));
  const wanted = (name) => form.elements[name] ? form.elements[name].value : "";
  const narrow = () => {
    const [policy, tag, outcome] = ["policy", "tag", "outcome"].map(wanted);
    const words = wanted("words").toLowerCase();
    const keys = [
      policy && "policy:" + policy,
      tag && "tag:" + tag,
      outcome && (policy ? "both:" + policy + ":" + outcome : "outcome:" + outcome),
    ].filter(Boolean);
    let left = 0;
    for (const item of items) {
      const has = item.dataset.keys.split("\n");
      const found = keys.every((key) => has.includes(key)) && item.textContent.toLowerCase().includes(words);
      item.hidden = !found;
      left += found ? 1 : 0;
    }
    form.querySelector("output").textContent = left + " of " + items.length;
  };
  form.addEventListener("input", narrow);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  narrow();
}
const opened = [];
addEventListener("beforeprint", () => {
  for (const item of document.querySelectorAll("details.printed:not([open])")) {
    item.open = true;
    opened.push(item);
  }
});
addEventListener("afterprint", () => {
  for (const item of opened.splice(0)) item.open = false;
});
