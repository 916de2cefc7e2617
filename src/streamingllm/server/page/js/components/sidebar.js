/** The list of sessions, with search and import. */

import { useRef } from "preact/hooks";
import { can } from "../capabilities.js";
import { html } from "../html.js";
import { loadMore, search, startNew, upload } from "../session_actions.js";
import { isListLoaded, nextPage, query, session, sessions } from "../state.js";
import { Icon, IconButton } from "./icon.js";
import { SessionItem } from "./session_item.js";

const SEARCH_DELAY_MS = 200;

export function Sidebar() {
  return html`
    <nav class="sidebar" aria-label="Sessions">
      <div class="brand"><img src="/page/icon.svg" width="26" height="26" alt="" /> streamingllm</div>
      <div class="sidebar-tools">
        <button type="button" class="button button-main new" onClick=${startNew}>
          <${Icon} name="plus" /> New session
        </button>
        ${can("export") && html`<${Import} />`}
      </div>
      <${Search} />
      <${List} />
    </nav>
  `;
}

function Search() {
  const timer = useRef(0);

  /** @param {Event} event */
  function onInput(event) {
    const text = /** @type {HTMLInputElement} */ (event.currentTarget).value;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => search(text.trim()), SEARCH_DELAY_MS);
  }

  return html`
    <div class="search">
      <${Icon} name="search" />
      <input id="search" type="search" placeholder="Search all messages" aria-label="Search the sessions" onInput=${onInput} />
    </div>
  `;
}

function List() {
  if (!isListLoaded.value) return null;
  if (!sessions.value.length) {
    return html`<p class="none">${query.value ? "Nothing found." : "No sessions yet."}</p>`;
  }
  return html`
    <ul class="sessions">
      ${sessions.value.map((info) => html`
        <${SessionItem} key=${info.id} info=${info} isOpen=${info.id === session.value?.id} />
      `)}
    </ul>
    ${nextPage.value && html`<button type="button" class="button more" onClick=${loadMore}>More</button>`}
  `;
}

function Import() {
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));

  /** @param {Event} event */
  function onChange(event) {
    const input = /** @type {HTMLInputElement} */ (event.currentTarget);
    if (input.files?.[0]) upload(input.files[0]);
    input.value = "";
  }

  return html`
    <input ref=${field} id="import" type="file" accept="application/json,.json" class="unseen" tabindex="-1" aria-label="File of a session" onChange=${onChange} />
    <${IconButton} icon="upload" label="Import a session" onClick=${() => field.current?.click()} />
  `;
}
