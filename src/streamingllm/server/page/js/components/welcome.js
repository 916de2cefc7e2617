/** A session that has not begun; the first time with a hint at what is different here. */

import { can, isGateway } from "../capabilities.js";
import { html } from "../html.js";
import { change, settings } from "../settings.js";
import { isListLoaded, query, sessions } from "../state.js";
import { send } from "../turn.js";

const SUGGESTIONS = [
  "Explain attention sinks in two sentences.",
  "Write a Python function that reverses a list.",
  "Tell me a long story about the sea.",
];

const HOW =
  "The model keeps the first tokens and a window of the latest ones. When the window is full, " +
  "it forgets the oldest and goes on at the same speed.";
const HOW_OTHERS =
  "Another server answers. It sees the system prompt and the latest messages. When its window is " +
  "full, the oldest messages are left out, and put back when a message is about them.";

export function Welcome() {
  const isFirst = isListLoaded.value && !query.value && sessions.value.length === 0;
  const hasHint = isFirst && !settings.value.isHintSeen;
  return html`
    <section class="welcome">
      ${hasHint ? html`<${Hint} />` : html`
        <h2>What is on your mind?</h2>
        <p>A session begins with your first message. It never ends.</p>
      `}
      <ul class="suggestions">
        ${SUGGESTIONS.map((text) => html`
          <li><button type="button" onClick=${() => send(text)}>${text}</button></li>
        `)}
      </ul>
    </section>
  `;
}

function Hint() {
  return html`
    <div class="hint">
      <h2>Conversations here never end</h2>
      <p>${isGateway() ? HOW_OTHERS : HOW}</p>
      <ul>
        <li>The bar above a conversation shows what is pinned, forgotten and visible.</li>
        <li>Forgotten messages turn grey. They stay readable; only the model lost them.</li>
        ${can("truncation") && html`<li>Switch streaming mode off to feel the limit that others have.</li>`}
        <li>Press <kbd>?</kbd> for the keys.</li>
      </ul>
      <button type="button" class="button button-main" onClick=${() => change({ isHintSeen: true })}>
        Understood
      </button>
    </div>
  `;
}
