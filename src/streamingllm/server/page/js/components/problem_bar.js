/** The last problem, with what to do about it. */

import { html } from "../html.js";
import { problem } from "../state.js";
import { IconButton } from "./icon.js";

export function ProblemBar() {
  if (!problem.value) return null;
  const { title, text, detail, action } = problem.value;
  const close = () => { problem.value = null; };
  const run = () => { close(); action?.run(); };
  return html`
    <section class="problem" role="alert">
      <div>
        <strong>${title}</strong>
        <p>${text}</p>
        ${action && html`<button type="button" class="button" onClick=${run}>${action.label}</button>`}
        ${detail && html`<details><summary>The server's words</summary><p>${detail}</p></details>`}
      </div>
      <${IconButton} icon="close" label="Dismiss" onClick=${close} />
    </section>
  `;
}
