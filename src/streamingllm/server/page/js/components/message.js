/** A message that is stored: its text, how far the model sees it, and what can be done with it. */

import { useState } from "preact/hooks";
import { answerStats } from "../answer_stats.js";
import { clock, counted, duration, speed } from "../format.js";
import { html } from "../html.js";
import { editedId } from "../state.js";
import { BranchArrows } from "./branch_arrows.js";
import { EditForm } from "./edit_form.js";
import { MarkdownText } from "./markdown_text.js";
import { ForgetForm, PinForm } from "./memory_forms.js";
import { MessageActions } from "./message_actions.js";
import { RecallNote } from "./recall_note.js";

const NAMES = { user: "You", assistant: "Model", system: "System prompt", tool: "Tool" };
const VISIBILITY = {
  partly: ["partly visible", "The model sees only the end of this message."],
  forgotten: ["forgotten", "The model no longer sees this."],
};

/**
 * @param {{message: import("../sessions_api.js").Message, number: number, isLast: boolean,
 *   arrows?: import("../branches.js").Arrows}} properties
 */
export function Message({ message, number, isLast, arrows }) {
  const { id, role, text, visibility } = message;
  const name = NAMES[role] ?? role;
  const isEdited = editedId.value === id;
  const [form, setForm] = useState("");
  const Form = { pin: PinForm, forget: ForgetForm }[form];
  if (role === "system" && number === 0) return html`<${SystemPrompt} message=${message} />`;
  return html`
    <article
      class=${`message message-${role}`}
      data-visibility=${visibility}
      data-message-id=${id}
      tabindex="-1"
      aria-label=${`${name}${VISIBILITY[visibility] ? `, ${VISIBILITY[visibility][0]}` : ""}`}
    >
      <div class="bubble">
        <${Head} name=${name} message=${message} />
        ${isEdited
          ? html`<${EditForm} text=${text} number=${number} />`
          : html`<${Body} message=${message} />`}
        <${RecallNote} recall=${answerStats.value[id]?.recall} />
        <${Notices} id=${id} />
      </div>
      <footer class="message-foot">
        ${arrows && html`<${BranchArrows} arrows=${arrows} />`}
        ${!isEdited && html`
          <${MessageActions} message=${message} number=${number} isLast=${isLast} onForm=${setForm} />
        `}
      </footer>
      ${Form && html`<${Form} message=${message} onEnd=${() => setForm("")} />`}
    </article>
  `;
}

/** @param {{message: import("../sessions_api.js").Message}} properties */
function Body({ message }) {
  const { role, text, tool_calls: calls } = message;
  return html`
    ${text && (role === "user" || role === "tool"
      ? html`<div class="plain-text">${text}</div>`
      : html`<${MarkdownText} text=${text} />`)}
    ${calls.map((call) => html`<pre class="call">${call.name}(${call.arguments})</pre>`)}
    ${!text && !calls.length && html`<p class="empty">(no text)</p>`}
  `;
}

/** @param {{name: string, message: import("../sessions_api.js").Message}} properties */
function Head({ name, message }) {
  const stats = answerStats.value[message.id];
  const [label, hint] = VISIBILITY[message.visibility] ?? [];
  const facts = [
    message.num_tokens > 0 && counted(message.num_tokens, "token"),
    stats && duration(stats.seconds),
    stats?.tokensPerSecond > 0 && speed(stats.tokensPerSecond),
    stats && clock(stats.endedAt),
  ].filter(Boolean);
  return html`
    <header class="message-head">
      <strong>${name}</strong>
      ${label && html`<span class="tag tag-visibility" title=${hint}>${label}</span>`}
      <${Ending} stats=${stats} />
      <span class="facts">${facts.join(" · ")}</span>
    </header>
  `;
}

/** @param {{stats?: import("../answer_stats.js").AnswerStats}} properties */
function Ending({ stats }) {
  if (!stats || stats.status === "completed") return null;
  const reason = stats.reason === "max_output_tokens" ? "reached its limit" : "stopped";
  return html`<span class="tag tag-ending">${reason}</span>`;
}

/** Texts that the operator wants shown. @param {{id: string}} properties */
function Notices({ id }) {
  const notices = answerStats.value[id]?.notices ?? [];
  return notices.map((notice) => html`<p class="notice" role="note">${notice}</p>`);
}

/** @param {{message: import("../sessions_api.js").Message}} properties */
function SystemPrompt({ message }) {
  return html`
    <details class="system-prompt" data-message-id=${message.id} tabindex="-1">
      <summary>
        System prompt <span class="tag tag-pinned">pinned</span>
        <span class="facts">${counted(message.num_tokens, "token")}</span>
      </summary>
      <div class="plain-text">${message.text}</div>
    </details>
  `;
}
