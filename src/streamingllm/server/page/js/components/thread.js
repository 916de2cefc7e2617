/** The messages of the open session, the answer that runs, and the line of forgetting. */

import { useLayoutEffect, useRef } from "preact/hooks";
import { branchArrows } from "../branches.js";
import { can } from "../capabilities.js";
import { counted } from "../format.js";
import { html } from "../html.js";
import { answer, session, view } from "../state.js";
import { Facts } from "./facts.js";
import { Message } from "./message.js";
import { Pending } from "./pending.js";
import { Welcome } from "./welcome.js";

const NEAR_END_PX = 120;

export function Thread() {
  const area = useRef(/** @type {HTMLElement | null} */ (null));
  const isAtEnd = useRef(true);
  const running = answer.value;
  const id = session.value?.id;
  useLayoutEffect(() => { isAtEnd.current = true; }, [id, Boolean(running)]);
  useLayoutEffect(() => {
    if (isAtEnd.current && area.current) area.current.scrollTop = area.current.scrollHeight;
  });

  /** @param {Event} event */
  function onScroll(event) {
    const { scrollTop, scrollHeight, clientHeight } = /** @type {HTMLElement} */ (event.currentTarget);
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  }

  if (!session.value) return html`<div class="thread"><${Welcome} /></div>`;
  const messages = session.value.messages;
  const arrows = branchArrows(session.value, session.value.branches);
  const line = messages.findLastIndex(({ visibility }) => visibility === "forgotten");
  running?.text.value; // read here too, so that each delta scrolls
  return html`
    <div class="thread" ref=${area} onScroll=${onScroll} tabindex="0" role="log" aria-live="off" aria-label="Messages">
      <div class="messages">
        <${Facts} />
        ${messages.map((message, number) => html`
          <${Message}
            key=${message.id}
            message=${message}
            number=${number}
            isLast=${number === messages.length - 1 && !running}
            arrows=${arrows.get(number)}
          />
          ${number === line && html`<${ForgettingLine} key="line" />`}
        `)}
        ${running && html`<${Pending} answer=${running} />`}
      </div>
    </div>
  `;
}

function ForgettingLine() {
  const forgotten = view.value?.forgotten_tokens ?? 0;
  const uses = ["read", "search", can("rewind") && "rewind", can("fork") && "fork"].filter(Boolean);
  return html`
    <div class="forgetting" role="separator" aria-label="What is above is forgotten">
      <span>
        Above this line the model sees only what is pinned; it no longer sees
        ${" "}${counted(forgotten, "token")}. All of it is stored: ${uses.slice(0, -1).join(", ")} or ${uses.at(-1)} it.
      </span>
    </div>
  `;
}
