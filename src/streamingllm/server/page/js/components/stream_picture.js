/** The stream as a picture: pinned, forgotten and visible tokens in proportion. */

import { html } from "../html.js";
import { count } from "../format.js";
import { session, view } from "../state.js";

const WIDTH = 1000;
const HEIGHT = 22;
const MIN_WIDTH = 6; // of a part that is there, however small its share

export function StreamPicture() {
  const seen = view.value;
  if (!seen || !session.value) return null;
  const { cache_size: cacheSize, messages } = session.value;
  const parts = partsOf(seen, cacheSize);
  const text =
    `${count(seen.seen_tokens)} tokens seen. ${count(parts.pinned.tokens)} pinned, ` +
    `${count(seen.forgotten_tokens)} forgotten, ` +
    `${count(parts.visible.tokens)} visible in the window.${roomOf(seen, cacheSize)}`;
  return html`
    <figure class="stream" aria-label="The stream">
      <svg
        class="stream-picture"
        viewBox=${`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label=${text}
      >
        <defs>
          <pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse">
            <path class="hatch" d="M-1 8 8 -1" />
          </pattern>
        </defs>
        <rect class="stream-room" width=${WIDTH} height=${HEIGHT} />
        ${Object.entries(parts).map(([name, part]) => html`
          <rect class=${`stream-${name}`} x=${part.x} width=${part.width} height=${HEIGHT} />
          ${name === "forgotten" && html`
            <rect fill="url(#hatch)" x=${part.x} width=${part.width} height=${HEIGHT} />
          `}
        `)}
        ${ticks(messages, seen, parts).map((x) => html`
          <path class="stream-tick" d=${`M${x} 0V${HEIGHT}`} />
        `)}
      </svg>
      <figcaption class="legend">
        <${Entry} name="pinned" tokens=${parts.pinned.tokens} hint="The system prompt and the first tokens. They stay for ever." />
        <${Entry} name="forgotten" tokens=${seen.forgotten_tokens} hint="The model no longer sees these. They are stored, and you can read them." />
        <${Entry} name="visible" tokens=${parts.visible.tokens} hint="The window: what the model sees now." />
        ${cacheSize > 0 && html`<${Gauge} used=${seen.visible_tokens} size=${cacheSize} />`}
      </figcaption>
    </figure>
  `;
}

/**
 * @param {import("../sessions_api.js").View} seen
 * @param {number} cacheSize 0 if it is not known.
 */
function roomOf(seen, cacheSize) {
  if (!cacheSize) return "";
  const room = Math.max(0, cacheSize - seen.visible_tokens);
  return ` Room for ${count(room)} more before the oldest are forgotten.`;
}

/** @param {{name: string, tokens: number, hint: string}} properties */
function Entry({ name, tokens, hint }) {
  return html`
    <span class="legend-entry" title=${hint}>
      <i class=${`swatch swatch-${name}`}></i><b>${count(tokens)}</b> ${name}
    </span>
  `;
}

/** How full the window is. @param {{used: number, size: number}} properties */
function Gauge({ used, size }) {
  const title = `${count(used)} of ${count(size)} tokens of the window are in use`;
  return html`
    <span class="gauge" title=${title}>
      <svg viewBox="0 0 100 10" role="meter" aria-label="Window in use" aria-valuemin="0" aria-valuemax=${size} aria-valuenow=${used} aria-valuetext=${title}>
        <rect class="gauge-room" width="100" height="10" rx="5" />
        <rect class="gauge-used" width=${Math.min(100, (used / size) * 100)} height="10" rx="5" />
      </svg>
      <span>${count(used)} / ${count(size)}</span>
    </span>
  `;
}

/**
 * @param {import("../sessions_api.js").View} seen
 * @param {number} cacheSize
 */
function partsOf(seen, cacheSize) {
  const pinned = Math.min(seen.pinned_tokens, seen.visible_tokens);
  const tokens = { pinned, forgotten: seen.forgotten_tokens, visible: seen.visible_tokens - pinned };
  const all = Math.max(seen.seen_tokens, cacheSize, 1);
  const widths = Object.values(tokens).map((n) => (n ? Math.max(MIN_WIDTH, (n / all) * WIDTH) : 0));
  // Parts that were widened to be seen take their width from the forgotten one.
  const tooWide = Math.max(0, widths[0] + widths[1] + widths[2] - WIDTH);
  widths[1] = Math.max(0, widths[1] - tooWide);
  return {
    pinned: { tokens: tokens.pinned, x: 0, width: widths[0] },
    forgotten: { tokens: tokens.forgotten, x: widths[0], width: widths[1] },
    visible: { tokens: tokens.visible, x: widths[0] + widths[1], width: widths[2] },
  };
}

/**
 * Places where the visible messages begin.
 *
 * @param {import("../sessions_api.js").Message[]} messages
 * @param {import("../sessions_api.js").View} seen
 * @param {ReturnType<typeof partsOf>} parts
 */
function ticks(messages, seen, parts) {
  const first = seen.pinned_tokens + seen.forgotten_tokens;
  const { x, width, tokens } = parts.visible;
  return messages
    .filter((message) => message.first_token > first && message.num_tokens > 0)
    .slice(-60)
    .map((message) => x + ((message.first_token - first) / Math.max(tokens, 1)) * width);
}
