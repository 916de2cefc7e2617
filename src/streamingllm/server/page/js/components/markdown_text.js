/** A text as markdown, with a copy button at each block of code. */

import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { copy } from "../clipboard.js";
import { html } from "../html.js";
import { markdown } from "../markdown.js";

/** @param {{text: string}} properties */
export function MarkdownText({ text }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const safe = useMemo(() => ({ __html: markdown(text) }), [text]);
  useLayoutEffect(() => addCopyButtons(element.current), [text]);
  return html`<div class="markdown" ref=${element} dangerouslySetInnerHTML=${safe}></div>`;
}

/** @param {HTMLElement | null} element */
function addCopyButtons(element) {
  for (const block of element?.querySelectorAll("pre") ?? []) {
    if (block.querySelector("button")) continue;
    const code = block.querySelector("code")?.textContent ?? "";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy-code";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      button.textContent = (await copy(code)) ? "Copied" : "Not allowed";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }
}
