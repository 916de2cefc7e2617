/** A session in the list: opened, renamed, exported, deleted from here. */

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { can } from "../capabilities.js";
import { clock, count } from "../format.js";
import { html } from "../html.js";
import { download, open, remove, rename } from "../session_actions.js";
import { resume } from "../turn.js";
import { answers } from "../state.js";
import { Icon, IconButton } from "./icon.js";

/** @param {{info: import("../sessions_api.js").SessionInfo, isOpen: boolean}} properties */
export function SessionItem({ info, isOpen }) {
  const [mode, setMode] = useState(/** @type {"plain" | "rename" | "delete"} */ ("plain"));
  const title = info.metadata.title || "Untitled";
  const back = () => setMode("plain");
  if (mode === "rename") return html`<li><${Rename} info=${info} title=${title} onEnd=${back} /></li>`;
  if (mode === "delete") return html`<li><${Delete} info=${info} title=${title} onEnd=${back} /></li>`;
  return html`
    <li class="session" data-open=${isOpen || undefined}>
      <button type="button" class="session-open" aria-current=${isOpen ? "page" : undefined} onClick=${() => openSession(info.id)}>
        <span class="session-title">
          ${info.parent_id && html`<span class="session-branch" title="A branch"><${Icon} name="fork" /></span>`}
          ${title}
        </span>
        <span class="session-facts">
          ${answers.value[info.id] ? "answering…" : `${count(info.seen_tokens)} tokens`} · ${clock(info.updated_at)}
        </span>
      </button>
      <span class="session-actions">
        <${IconButton} icon="edit" label=${`Rename ${title}`} onClick=${() => setMode("rename")} />
        ${can("export") && html`
          <${IconButton} icon="download" label=${`Export ${title}`} onClick=${() => download(info)} />
        `}
        <${IconButton} icon="trash" label=${`Delete ${title}`} onClick=${() => setMode("delete")} />
      </span>
    </li>
  `;
}

/** @param {string} id */
async function openSession(id) {
  await open(id);
  resume(id);
}

/** @param {{info: import("../sessions_api.js").SessionInfo, title: string, onEnd: () => void}} properties */
function Rename({ info, title, onEnd }) {
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  useLayoutEffect(() => field.current?.select(), []);

  async function submit(event) {
    event.preventDefault();
    const text = field.current?.value.trim();
    if (text) await rename(info, text);
    onEnd();
  }

  return html`
    <form class="session-form" onSubmit=${submit} onKeyDown=${(event) => event.key === "Escape" && onEnd()}>
      <input ref=${field} defaultValue=${title} aria-label="Title" maxlength="200" />
      <${IconButton} icon="check" label="Save the title" onClick=${submit} />
    </form>
  `;
}

/** @param {{info: import("../sessions_api.js").SessionInfo, title: string, onEnd: () => void}} properties */
function Delete({ info, title, onEnd }) {
  const button = useRef(/** @type {HTMLButtonElement | null} */ (null));
  useLayoutEffect(() => button.current?.focus(), []);
  return html`
    <div class="session-form" role="group" aria-label=${`Delete ${title}?`} onKeyDown=${(event) => event.key === "Escape" && onEnd()}>
      <span class="session-question">Delete for ever?</span>
      <button type="button" class="button button-danger" onClick=${() => remove(info.id)}>Delete</button>
      <button type="button" class="button" ref=${button} onClick=${onEnd}>Keep</button>
    </div>
  `;
}
