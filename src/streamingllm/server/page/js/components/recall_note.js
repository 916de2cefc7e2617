/** What was recalled for an answer, from when and why; or that nothing was. */

import { clock, counted } from "../format.js";
import { html } from "../html.js";
import { showMessage } from "../recall.js";
import { session } from "../state.js";

const MAX_CHARACTERS = 160;
const NAMES = { user: "You", assistant: "Model" };

/** @param {{recall: import("../recall.js").Recall | null | undefined}} properties */
export function RecallNote({ recall }) {
  if (!recall) return null;
  const { passages } = recall;
  return html`
    <div class="recall">
      ${recall.searches?.map((query) => html`<p>The model searched the session for “${query}”.</p>`)}
      ${passages.length
        ? html`
            <details>
              <summary>Recalled ${counted(passages.length, "passage")}</summary>
              <ul>${passages.map((passage) => html`<${Passage} key=${passage.id} passage=${passage} />`)}</ul>
            </details>
          `
        : html`<p class="recall-none">Nothing recalled.</p>`}
      <${NotFound} recall=${recall} />
    </div>
  `;
}

/** @param {{passage: import("../recall.js").Passage}} properties */
function Passage({ passage }) {
  const message = session.value?.messages.find(({ id }) => id === passage.id);
  if (!message) return html`<li class="empty">a message that is deleted</li>`;
  const text = message.text.length > MAX_CHARACTERS ? `${message.text.slice(0, MAX_CHARACTERS)}…` : message.text;
  const why = passage.words.length
    ? `because of ${passage.words.map((word) => `“${word}”`).join(", ")}`
    : "next to a passage that fits";
  return html`
    <li>
      <button type="button" class="passage" title="Show it in its place" onClick=${() => showMessage(passage.id)}>
        <span>${text}</span>
        <span class="facts">${NAMES[passage.speaker] ?? passage.speaker} · ${clock(passage.saidAt)} · ${why}</span>
      </button>
    </li>
  `;
}

/** @param {{recall: import("../recall.js").Recall}} properties */
function NotFound({ recall }) {
  if (!recall.isNotFound) return null;
  const words = recall.unknownWords.map((word) => `“${word}”`).join(", ");
  return html`
    <p class="recall-not-found" role="note">
      Neither visible nor found in this session${words && `: ${words}`}. The answer may be made up.
    </p>
  `;
}
