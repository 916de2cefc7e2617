/** A message of the user that is being changed; the old one stays on its branch. */

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { html } from "../html.js";
import { editedId } from "../state.js";
import { resend } from "../turn.js";

/** @param {{text: string, number: number}} properties */
export function EditForm({ text, number }) {
  const [changed, setChanged] = useState(text);
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useLayoutEffect(() => field.current?.focus(), []);
  const cancel = () => { editedId.value = ""; };

  function submit(event) {
    event.preventDefault();
    if (changed.trim()) resend(number, changed.trim());
  }

  /** @param {KeyboardEvent} event */
  function onKeyDown(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  }

  return html`
    <form class="edit" onSubmit=${submit}>
      <label class="unseen" for="edit">Changed message</label>
      <textarea id="edit" ref=${field} rows="3" value=${changed}
        onInput=${(event) => setChanged(event.currentTarget.value)} onKeyDown=${onKeyDown}></textarea>
      <div class="edit-row">
        <button type="submit" class="button button-main">Send on a branch</button>
        <button type="button" class="button" onClick=${cancel}>Cancel</button>
      </div>
    </form>
  `;
}
