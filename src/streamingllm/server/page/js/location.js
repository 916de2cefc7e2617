/** The open session stands in the page's address, so that a reload finds it. */

const MARK = "#/s/";

/** @returns {string} id; "" if none is open. */
export function sessionIdOfPage() {
  const { hash } = window.location;
  return hash.startsWith(MARK) ? decodeURIComponent(hash.slice(MARK.length)) : "";
}

/** @param {string} id */
export function open(id) {
  if (sessionIdOfPage() !== id) history.pushState(null, "", MARK + encodeURIComponent(id));
}

export function clear() {
  if (sessionIdOfPage()) history.pushState(null, "", window.location.pathname);
}
