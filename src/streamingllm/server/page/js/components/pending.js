/** The question that was just asked and the answer that is on its way. */

import { html } from "../html.js";
import { MarkdownText } from "./markdown_text.js";
import { RecallNote } from "./recall_note.js";

/** @param {{answer: import("../running_answer.js").RunningAnswer}} properties */
export function Pending({ answer }) {
  const text = answer.text.value;
  const reasoning = answer.reasoning.value;
  answer.view.value; // notices come with it
  return html`
    ${answer.question && html`
      <article class="message message-user" data-visibility="visible" aria-label="You">
        <div class="bubble">
          <header class="message-head"><strong>You</strong></header>
          <div class="plain-text">${answer.question}</div>
        </div>
      </article>
    `}
    <article class="message message-assistant" data-running aria-label="Model, answering" aria-busy="true">
      <header class="message-head"><strong>Model</strong></header>
      ${reasoning && html`<details class="reasoning"><summary>Reasoning</summary>${reasoning}</details>`}
      ${text
        ? html`<${MarkdownText} text=${text} />`
        : html`<p class="waiting"><i></i><i></i><i></i><span class="unseen">The model reads.</span></p>`}
      <${RecallNote} recall=${answer.recall.value} />
      ${answer.notices.map((notice) => html`<p class="notice" role="note">${notice}</p>`)}
    </article>
  `;
}
