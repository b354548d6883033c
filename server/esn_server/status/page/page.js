"use strict";
// Asks for the part that changes, once a second while somebody can see it.
const now = document.getElementById("now");
const lost = document.getElementById("lost");

async function refresh() {
  try {
    const response = await fetch("/now", { cache: "no-store" });
    if (!response.ok) throw new Error(response.statusText);
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    now.replaceChildren(...fresh.body.childNodes);
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
}

setInterval(() => { if (!document.hidden) refresh(); }, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
