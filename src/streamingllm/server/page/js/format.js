/** Turns numbers and times into text for people. */

const NUMBER = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });

/** @param {number} value */
export const count = (value) => NUMBER.format(value);

/**
 * @param {number} value
 * @param {string} noun in the singular
 */
export const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** @param {number} seconds a duration */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** @param {number} seconds since 1970 */
export function clock(seconds) {
  const date = new Date(seconds * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? CLOCK.format(date) : DAY.format(date);
}

/** @param {number} perSecond */
export const speed = (perSecond) => `${perSecond.toFixed(perSecond < 10 ? 1 : 0)} tokens/s`;

/** @param {string} text */
export function titleOf(text) {
  const line = text.trim().split("\n", 1)[0];
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}
