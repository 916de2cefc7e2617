/** Starts the page: shows it, loads the sessions, opens the one of the address. */

import { render } from "preact";
import { loadCapabilities } from "./capabilities.js";
import { App } from "./components/app.js";
import { html } from "./html.js";
import { sessionIdOfPage } from "./location.js";
import { listenToKeys } from "./keyboard.js";
import { explain } from "./problems.js";
import { listModels } from "./responses_api.js";
import { open, refreshList, startNew } from "./session_actions.js";
import { settings } from "./settings.js";
import { model, session } from "./state.js";
import { resume } from "./turn.js";

/** Loads all that the page shows first; called again when the key has changed. */
export async function start() {
  try {
    await loadCapabilities();
    await Promise.all([loadModel(), refreshList(), openFromAddress()]);
  } catch (error) {
    explain(error);
  }
}

async function loadModel() {
  model.value = (await listModels())[0]?.id ?? "";
}

async function openFromAddress() {
  const id = sessionIdOfPage();
  if (!id) {
    if (session.value) startNew();
    return;
  }
  if (session.value?.id !== id) await open(id);
  resume(id);
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.replaceChildren();
render(html`<${App} />`, root);
listenToKeys();
window.addEventListener("popstate", openFromAddress);
window.addEventListener("hashchange", openFromAddress);

let key = settings.value.apiKey;
settings.subscribe(({ apiKey }) => {
  if (apiKey === key) return;
  key = apiKey;
  start();
});
start();
