/** Arrows between the branches that part at a message. */

import { html } from "../html.js";
import { open } from "../session_actions.js";
import { IconButton } from "./icon.js";

/** @param {{arrows: import("../branches.js").Arrows}} properties */
export function BranchArrows({ arrows }) {
  const { position, total, previous, next } = arrows;
  return html`
    <span class="arrows" role="group" aria-label="Branches">
      <${IconButton} icon="left" label="Previous branch" disabled=${!previous} onClick=${() => previous && open(previous)} />
      <span>${position + 1} / ${total}</span>
      <${IconButton} icon="right" label="Next branch" disabled=${!next} onClick=${() => next && open(next)} />
    </span>
  `;
}
