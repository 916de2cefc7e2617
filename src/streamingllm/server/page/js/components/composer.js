/** The field in which a message is written, with the switch of streaming mode. */

import { useLayoutEffect, useRef } from "preact/hooks";
import { can } from "../capabilities.js";
import { html } from "../html.js";
import { count, speed } from "../format.js";
import { change, settings } from "../settings.js";
import { answer, draft, session } from "../state.js";
import { send, stop } from "../turn.js";
import { Icon } from "./icon.js";

const MAX_HEIGHT_PX = 220;

export function Composer() {
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useLayoutEffect(() => fitToText(field.current), [draft.value]);
  const isRunning = Boolean(answer.value) || Boolean(session.value?.is_running);
  const canStop = Boolean(answer.value) || can("stop");

  async function submit(event) {
    event?.preventDefault();
    const text = draft.value.trim();
    if (!text || isRunning) return;
    draft.value = "";
    if (!(await send(text)) && !draft.value) draft.value = text;
    field.current?.focus();
  }

  /** @param {KeyboardEvent} event */
  function onKeyDown(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  }

  return html`
    <form class="composer" onSubmit=${submit}>
      <div class="composer-field">
        <label class="unseen" for="composer">Message</label>
        <textarea
          id="composer"
          ref=${field}
          rows="1"
          placeholder="Write a message"
          value=${draft.value}
          onInput=${(event) => { draft.value = event.currentTarget.value; }}
          onKeyDown=${onKeyDown}
        ></textarea>
        ${isRunning
          ? html`<button type="button" class="send" aria-label="Stop" title="Stop (Esc)" disabled=${!canStop} onClick=${stop}>
              <${Icon} name="stop" />
            </button>`
          : html`<button type="submit" class="send" aria-label="Send" title="Send (Enter)" disabled=${!draft.value.trim()}>
              <${Icon} name="send" />
            </button>`}
      </div>
      <div class="composer-row">
        ${can("truncation") && html`<${StreamingSwitch} />`}
        <${Progress} />
      </div>
    </form>
  `;
}

function StreamingSwitch() {
  const { isStreaming } = settings.value;
  const note = isStreaming
    ? "never ends: the oldest is forgotten"
    : "nothing is forgotten: ends when the window is full";
  return html`
    <label class="switch">
      <input
        type="checkbox"
        role="switch"
        checked=${isStreaming}
        aria-describedby="streaming-note"
        onChange=${(event) => change({ isStreaming: event.currentTarget.checked })}
      />
      <span class="switch-label">Streaming mode</span>
      <span class="switch-note" id="streaming-note">${note}</span>
    </label>
  `;
}

function Progress() {
  const running = answer.value;
  if (!running) return html`<span class="progress keys-hint">Enter sends, Shift+Enter breaks the line</span>`;
  const tokens = running.numTokens.value;
  if (!tokens) return html`<span class="progress">reading…</span>`;
  const rate = running.tokensPerSecond.value;
  return html`
    <span class="progress">${count(tokens)} tokens${rate > 0 && ` · ${speed(rate)}`}</span>
  `;
}

/** @param {HTMLTextAreaElement | null} field */
function fitToText(field) {
  if (!field) return;
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, MAX_HEIGHT_PX)}px`;
}
