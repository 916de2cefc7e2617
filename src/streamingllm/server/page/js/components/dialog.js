/** A modal dialog of the browser's own: it holds the focus and closes with Escape. */

import { useLayoutEffect, useRef } from "preact/hooks";
import { html } from "../html.js";
import { dialog } from "../state.js";
import { IconButton } from "./icon.js";

/** @param {{title: string, children: unknown}} properties */
export function Dialog({ title, children }) {
  const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useLayoutEffect(() => element.current?.showModal(), []);
  const close = () => { dialog.value = null; };

  /** A click beside the box closes it. @param {MouseEvent} event */
  function onClick(event) {
    if (event.target === element.current) close();
  }

  return html`
    <dialog ref=${element} class="dialog" aria-labelledby="dialog-title" onClose=${close} onClick=${onClick}>
      <div class="dialog-box">
        <header class="dialog-head">
          <h2 id="dialog-title">${title}</h2>
          <${IconButton} icon="close" label="Close" onClick=${close} />
        </header>
        ${children}
      </div>
    </dialog>
  `;
}
