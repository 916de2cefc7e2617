/** Line icons, drawn in one stroke width. */

import { html } from "../html.js";

const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM20 20l-4-4",
  settings: "M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4",
  theme: "M12 4a8 8 0 1 0 0 16ZM12 4a8 8 0 0 1 0 16",
  help: "M9.2 9.2a2.8 2.8 0 1 1 4 2.6c-.9.4-1.2 1-1.2 2M12 17.4v.2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7Z",
  copy: "M9 9h10v11H9ZM15 9V4H5v11h4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  edit: "M4 20l1-4L16.5 4.5l3 3L8 19l-4 1Z",
  redo: "M19 12a7 7 0 1 1-2-5l2.5 2.5M19.5 4.5v5h-5",
  rewind: "M11 7l-6 5 6 5ZM19 7l-6 5 6 5Z",
  fork:
    "M7 7v10M17 7v1a4 4 0 0 1-4 4H7M7 7a1.8 1.8 0 1 0 0-3.6A1.8 1.8 0 0 0 7 7ZM7 20.6A1.8 1.8 0 1 0 7 17" +
    "a1.8 1.8 0 0 0 0 3.6ZM17 7a1.8 1.8 0 1 0 0-3.6A1.8 1.8 0 0 0 17 7Z",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  trash: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  close: "M6 6l12 12M18 6 6 18",
  pin: "M9 4h6l-1 6 3 3H7l3-3ZM12 13v7",
};

/** @param {{name: keyof typeof PATHS}} properties */
export function Icon({ name }) {
  return html`
    <svg class=${`icon icon-${name}`} viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
      <path d=${PATHS[name]} />
    </svg>
  `;
}

/**
 * A button that shows an icon only; its label is read out and shown on hover.
 *
 * @param {{icon: keyof typeof PATHS, label: string, onClick: (event: Event) => void,
 *   class?: string, disabled?: boolean, isPressed?: boolean}} properties
 */
export function IconButton({ icon, label, onClick, class: name = "", disabled, isPressed }) {
  return html`
    <button
      type="button"
      class=${`icon-button ${name}`}
      aria-label=${label}
      title=${label}
      aria-pressed=${isPressed}
      disabled=${disabled}
      onClick=${onClick}
    >
      <${Icon} name=${icon} />
    </button>
  `;
}
