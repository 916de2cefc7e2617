/** A session that has not begun; the first time with a hint at what is different here. */

import { html } from "../html.js";
import { change, settings } from "../settings.js";
import { isListLoaded, query, sessions } from "../state.js";
import { send } from "../turn.js";

const SUGGESTIONS = [
  "Explain attention sinks in two sentences.",
  "Write a Python function that reverses a list.",
  "Tell me a long story about the sea.",
];

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
      <p>
        The model keeps the first tokens and a window of the latest ones. When the window is full,
        it forgets the oldest and goes on at the same speed.
      </p>
      <ul>
        <li>The bar above a conversation shows what is pinned, forgotten and visible.</li>
        <li>Forgotten messages turn grey. They stay readable; only the model lost them.</li>
        <li>Switch streaming mode off to feel the limit that others have.</li>
        <li>Press <kbd>?</kbd> for the keys.</li>
      </ul>
      <button type="button" class="button button-main" onClick=${() => change({ isHintSeen: true })}>
        Understood
      </button>
    </div>
  `;
}
