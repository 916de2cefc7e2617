/** The facts that the session pins; each can be corrected and unpinned. */

import { useState } from "preact/hooks";
import { html } from "../html.js";
import { correct, unpin } from "../memory_actions.js";
import { answer, session } from "../state.js";
import { IconButton } from "./icon.js";
import { FactForm } from "./memory_forms.js";

export function Facts() {
  const facts = session.value?.facts ?? [];
  if (!facts.length) return null;
  return html`
    <section class="pinned-facts" aria-label="Pinned facts">
      <header class="message-head"><strong>Pinned facts</strong> <span class="tag tag-pinned">pinned</span></header>
      <ul>${facts.map((fact) => html`<${Fact} key=${fact.id} fact=${fact} />`)}</ul>
    </section>
  `;
}

/** @param {{fact: import("../sessions_api.js").Fact}} properties */
function Fact({ fact }) {
  const [isEdited, setEdited] = useState(false);
  const isBusy = Boolean(answer.value);
  const end = () => setEdited(false);
  if (isEdited) {
    const save = (text) => correct(fact.id, text);
    return html`<li><${FactForm} text=${fact.text} action="Correct" onEnd=${end} onSubmit=${save} /></li>`;
  }
  return html`
    <li>
      <span>${fact.text}</span>
      <${IconButton} icon="edit" label="Correct the fact" disabled=${isBusy} onClick=${() => setEdited(true)} />
      <${IconButton} icon="close" label="Unpin the fact" disabled=${isBusy} onClick=${() => unpin(fact.id)} />
    </li>
  `;
}
