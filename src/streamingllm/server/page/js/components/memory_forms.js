/** Small forms under a message: pin a fact of it, or forget it for good. */

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { html } from "../html.js";
import { forget, pin } from "../memory_actions.js";

/** @param {{message: import("../sessions_api.js").Message, onEnd: () => void}} properties */
export function PinForm({ message, onEnd }) {
  return html`<${FactForm} text=${message.text} action="Pin" onEnd=${onEnd} onSubmit=${(text) => pin(text, message.id)} />`;
}

/**
 * @param {{text: string, action: string, onEnd: () => void,
 *   onSubmit: (text: string) => Promise<boolean>}} properties
 */
export function FactForm({ text, action, onEnd, onSubmit }) {
  const [changed, setChanged] = useState(text);
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useLayoutEffect(() => field.current?.focus(), []);

  async function submit(event) {
    event.preventDefault();
    if (changed.trim() && (await onSubmit(changed.trim()))) onEnd();
  }

  return html`
    <form class="edit" onSubmit=${submit} onKeyDown=${(event) => event.key === "Escape" && onEnd()}>
      <textarea ref=${field} rows="2" maxlength="2000" aria-label="Fact" value=${changed}
        onInput=${(event) => setChanged(event.currentTarget.value)}></textarea>
      <div class="edit-row">
        <button type="submit" class="button button-main">${action} the fact</button>
        <button type="button" class="button" onClick=${onEnd}>Cancel</button>
      </div>
    </form>
  `;
}

/** @param {{message: import("../sessions_api.js").Message, onEnd: () => void}} properties */
export function ForgetForm({ message, onEnd }) {
  const field = useRef(/** @type {HTMLButtonElement | null} */ (null));
  useLayoutEffect(() => field.current?.focus(), []);

  async function submit(event) {
    event.preventDefault();
    if (!(await forget(message.id))) onEnd();
  }

  return html`
    <form class="edit" onSubmit=${submit} onKeyDown=${(event) => event.key === "Escape" && onEnd()}>
      <p>
        The message is erased from this session, its branches and the memory. The model reads the rest again.
        Answers that repeat it stay: forget them too.
      </p>
      <div class="edit-row">
        <button type="submit" ref=${field} class="button button-main">Forget for good</button>
        <button type="button" class="button" onClick=${onEnd}>Keep</button>
      </div>
    </form>
  `;
}
