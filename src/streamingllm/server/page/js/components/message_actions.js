/** What can be done with a message. */

import { useState } from "preact/hooks";
import { answerStats } from "../answer_stats.js";
import { can } from "../capabilities.js";
import { copy } from "../clipboard.js";
import { html } from "../html.js";
import { fork, rewind } from "../session_actions.js";
import { answer, editedId } from "../state.js";
import { regenerate, send } from "../turn.js";
import { IconButton } from "./icon.js";

/**
 * @param {{message: import("../sessions_api.js").Message, number: number, isLast: boolean,
 *   onForm: (form: "pin" | "forget") => void}} properties
 */
export function MessageActions({ message, number, isLast, onForm }) {
  const [isCopied, setCopied] = useState(false);
  const isBusy = Boolean(answer.value);
  const { id, role, text } = message;
  const isCutShort = isLast && role === "assistant" && (answerStats.value[id]?.status ?? "completed") !== "completed";

  async function copyText() {
    if (!(await copy(text))) return;
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  }

  return html`
    <span class="actions">
      <${IconButton} icon=${isCopied ? "check" : "copy"} label="Copy" onClick=${copyText} />
      ${role === "user" && can("fork") && html`
        <${IconButton} icon="edit" label="Edit on a branch" disabled=${isBusy} onClick=${() => { editedId.value = id; }} />
      `}
      ${role === "assistant" && can("fork") && html`
        <${IconButton} icon="redo" label="Regenerate on a branch" disabled=${isBusy} onClick=${() => regenerate(number)} />
      `}
      ${can("fork") && html`
        <${IconButton} icon="fork" label="Fork here" disabled=${isBusy} onClick=${() => fork(id)} />
      `}
      ${!isLast && can("rewind") && html`
        <${IconButton} icon="rewind" label="Rewind to here" disabled=${isBusy} onClick=${() => rewind(id)} />
      `}
      ${can("facts") && html`
        <${IconButton} icon="pin" label="Pin as a fact" disabled=${isBusy} onClick=${() => onForm("pin")} />
      `}
      ${can("forget") && html`
        <${IconButton} icon="trash" label="Forget for good" disabled=${isBusy} onClick=${() => onForm("forget")} />
      `}
      ${isCutShort && html`
        <button type="button" class="button" disabled=${isBusy} onClick=${() => send("Continue.")}>Continue</button>
      `}
    </span>
  `;
}
